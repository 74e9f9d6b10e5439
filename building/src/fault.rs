//! Faults by schedule: sensors that stick, drift or drop out, valves that leak.

use domain::Timestamp;

/// From when (included) until when (not included) a fault is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Period {
    /// Whether the fault is there at a moment.
    pub(crate) fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// What a faulty sensor does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SensorFault {
    /// Gives what it gave when the fault began.
    Stuck,
    /// Is off by so much more each day.
    Drift(f64),
    /// Gives nothing.
    DropOut,
}

/// A faulty sensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Faulty {
    /// Index of the point.
    pub(crate) point: usize,
    pub(crate) period: Period,
    pub(crate) fault: SensorFault,
}

/// Which valve leaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Valve {
    /// Cooling coil of an air handler, by index.
    AhuCooling(usize),
    /// Heating coil of an air handler, by index.
    AhuHeating(usize),
    /// Reheat coil of a zone's box, by index.
    Reheat(usize),
}

/// A valve that doesn't close.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Leak {
    pub(crate) valve: Valve,
    pub(crate) period: Period,
    /// Least part that it lets through, 0 to 1.
    pub(crate) part: f64,
}
