//! The sorts of points that each sort of equipment has.

mod air;
mod meter;
mod plant;
mod weather;

pub(crate) use air::{AHU, AHU_FAN_ENERGY, VAV};
pub(crate) use meter::{CHILLED_WATER, ELECTRICITY, GAS, WATER};
pub(crate) use plant::{BOILER, CHILLED_WATER_PLANT, CHILLER};
pub(crate) use weather::WEATHER;

use crate::{design::Design, memory::Memory, minute::Now};
use domain::device_type::Kind;

/// All that a sensor can see.
pub(crate) struct View<'a> {
    pub(crate) design: &'a Design,
    pub(crate) memory: &'a Memory,
    pub(crate) now: &'a Now,
    /// Rates of the totalizers, in their unit an hour.
    pub(crate) rates: &'a [f64],
}

/// How a point's value is found; the number says which zone, air handler, chiller or totalizer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Read {
    Number(fn(&View<'_>, usize) -> f64),
    Boolean(fn(&View<'_>, usize) -> bool),
    Text(fn(&View<'_>, usize) -> &'static str),
    /// A moment, in minutes since 1970 UTC.
    Minute(fn(&View<'_>, usize) -> i64),
}

/// A sort of point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sort {
    /// Last part of the key.
    pub(crate) name: &'static str,
    /// Marker tags besides `point`, by blanks.
    pub(crate) tags: &'static str,
    /// Unit of a number; empty without one.
    pub(crate) unit: &'static str,
    pub(crate) read: Read,
    /// How many steps of the sensor make one unit.
    pub(crate) steps: f64,
    /// Deviation of its noise, in its unit, and as part of its value.
    pub(crate) noise: f64,
    pub(crate) relative: f64,
    /// What it can show.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Sort {
    const fn of(name: &'static str, tags: &'static str, read: Read) -> Self {
        let (low, high) = (f64::MIN, f64::MAX);
        Self { name, tags, unit: "", read, steps: 1.0, noise: 0.0, relative: 0.0, low, high }
    }

    /// A number that shows `steps` steps a unit from `low` to `high`.
    const fn number(
        name: &'static str,
        tags: &'static str,
        unit: &'static str,
        steps: f64,
        (low, high): (f64, f64),
        read: fn(&View<'_>, usize) -> f64,
    ) -> Self {
        Self { unit, steps, low, high, ..Self::of(name, tags, Read::Number(read)) }
    }

    const fn boolean(
        name: &'static str,
        tags: &'static str,
        read: fn(&View<'_>, usize) -> bool,
    ) -> Self {
        Self::of(name, tags, Read::Boolean(read))
    }

    const fn text(
        name: &'static str,
        tags: &'static str,
        read: fn(&View<'_>, usize) -> &'static str,
    ) -> Self {
        Self::of(name, tags, Read::Text(read))
    }

    const fn moment(
        name: &'static str,
        tags: &'static str,
        read: fn(&View<'_>, usize) -> i64,
    ) -> Self {
        Self::of(name, tags, Read::Minute(read))
    }

    /// With noise of a deviation in its unit.
    const fn noise(self, noise: f64) -> Self {
        Self { noise, ..self }
    }

    /// With noise of a deviation that is a part of the value.
    const fn relative(self, relative: f64) -> Self {
        Self { relative, ..self }
    }

    /// What its readings are.
    pub(crate) fn kind(&self) -> Kind {
        match self.read {
            Read::Number(_) => Kind::Number,
            Read::Boolean(_) => Kind::Boolean,
            Read::Text(_) => Kind::String,
            Read::Minute(_) => Kind::Time,
        }
    }

    /// Whether it is a totalizer.
    pub(crate) fn counts(&self) -> bool {
        self.tags.split(' ').any(|tag| tag == "hisTotalized")
    }
}

/// Range of percentages.
const PERCENT: (f64, f64) = (0.0, 100.0);
/// Range of what is never negative.
const FROM_ZERO: (f64, f64) = (0.0, 1e15);
