//! All that a building remembers from one interval to the next.

use domain::{Timestamp, Values};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The state of a building between two intervals. Serialized and read back it goes on as if
/// nothing had been; it carries its own keys, so that it outlives changes of the description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Up to where the building has run: a boundary of its reporting interval.
    pub at: Timestamp,
    /// What all its randomness comes from.
    pub seed: u64,
    pub(crate) zones: Vec<ZoneMemory>,
    pub(crate) ahus: Vec<AhuMemory>,
    pub(crate) chillers: ChillerMemory,
    pub(crate) boiler: BoilerMemory,
    pub(crate) totals: Vec<Total>,
    /// What stuck sensors hold on to, by point.
    pub(crate) stuck: BTreeMap<String, Values>,
}

impl Memory {
    /// Readings of all meters, exact, by key of the point.
    pub fn totalizers(&self) -> BTreeMap<String, f64> {
        self.totals.iter().map(|total| (total.key.clone(), total.value)).collect()
    }
}

/// A zone and its VAV box.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ZoneMemory {
    pub(crate) key: String,
    /// Air temperature, °C.
    pub(crate) temp: f64,
    /// CO₂, ppm.
    pub(crate) co2: f64,
    /// Humidity ratio, kg/kg.
    pub(crate) moisture: f64,
    /// Air flow over the largest, 0 to 1.
    pub(crate) damper: f64,
    /// Position of the reheat valve, 0 to 1.
    pub(crate) reheat: f64,
}

/// What an air handler is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AhuMode {
    Off,
    WarmUp,
    Occupied,
    NightHeating,
    NightCooling,
}

/// An air handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AhuMemory {
    pub(crate) key: String,
    pub(crate) mode: AhuMode,
    pub(crate) economizer: bool,
    /// Discharge setpoint, °C.
    pub(crate) setpoint: f64,
    /// Discharge air, °C.
    pub(crate) discharge: f64,
    /// Mixed air, °C.
    pub(crate) mixed: f64,
    /// Position of the outside air damper, 0 to 1.
    pub(crate) damper: f64,
    /// Positions of the valves, 0 to 1.
    pub(crate) cooling: f64,
    pub(crate) heating: f64,
    /// Dust in the filter: 0 clean, 1 to be changed.
    pub(crate) dust: f64,
    /// Minute of the last change.
    pub(crate) filter_changed: i64,
}

/// The chilled water plant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChillerMemory {
    /// Supply water, °C.
    pub(crate) supply: f64,
    /// Water from the tower, °C.
    pub(crate) tower: f64,
    /// How many chillers run.
    pub(crate) stage: usize,
    /// Minute of the last change of `stage`.
    pub(crate) since: i64,
    /// Minute of each chiller's last start.
    pub(crate) starts: [i64; 2],
    /// Which of them run.
    pub(crate) running: [bool; 2],
}

/// The hot water plant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BoilerMemory {
    /// Supply water, °C.
    pub(crate) supply: f64,
    pub(crate) on: bool,
    /// Minute of the last change of `on`.
    pub(crate) since: i64,
    /// Minute of the last start.
    pub(crate) start: i64,
}

/// A totalizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Total {
    /// Key of its point.
    pub(crate) key: String,
    /// In the point's unit. Plain doubles do: at 10⁹ kWh one still counts 10⁻⁷ kWh, and adding
    /// what isn't negative never makes it less.
    pub(crate) value: f64,
}
