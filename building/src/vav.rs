//! A VAV box: proportional control of damper and reheat valve around a dead band.

use crate::{
    design::{Setpoints, Zone},
    memory::ZoneMemory,
    noise::{branch, stream, uniform},
};

/// From no demand to all of it, K.
const BAND: f64 = 1.0;
/// Part of the way that an actuator makes in a minute.
pub(crate) const ACTUATOR: f64 = 0.5;
/// Warmest air that a box gives, °C.
const WARMEST: f64 = 38.0;
/// Part of the difference between water and air that a reheat coil gets into the air.
const EFFECTIVENESS: f64 = 0.55;

/// What a box does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum VavMode {
    #[default]
    Off,
    Cooling,
    DeadBand,
    Heating,
}

impl VavMode {
    /// As its point reads.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Cooling => "cooling",
            Self::DeadBand => "deadband",
            Self::Heating => "heating",
        }
    }
}

/// How far above its setback a zone is warmed at night, K: past where night heating ends.
const NIGHT_LIFT: f64 = 1.5;

/// What a zone is to be kept ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// People.
    Comfort,
    /// Nobody: nothing but harm is kept away.
    Rest,
    /// Nobody, and it was too cold: it is warmed a little, once, instead of again and again.
    Lift,
}

/// What a zone asks for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Demand {
    /// Setpoints in force, °C.
    pub(crate) heat_at: f64,
    pub(crate) cool_at: f64,
    /// 0 to 1.
    pub(crate) heating: f64,
    pub(crate) cooling: f64,
}

impl Demand {
    /// What a zone at `temp` asks for. People set the thermostat up to half a degree off.
    pub(crate) fn of(zone: &Zone, setpoints: &Setpoints, seed: u64, need: Need, temp: f64) -> Self {
        let taste = uniform(seed, branch(zone.stream, stream("taste")), 0);
        let taste = (taste * 11.0).floor() / 10.0 - 0.5;
        let (heat_at, cool_at) = match need {
            Need::Comfort => (setpoints.heating + taste, setpoints.cooling + taste),
            Need::Lift => (setpoints.setback + NIGHT_LIFT, setpoints.setup),
            Need::Rest => (setpoints.setback, setpoints.setup),
        };
        let half = BAND / 2.0;
        Self {
            heat_at,
            cool_at,
            heating: ((heat_at + half - temp) / BAND).clamp(0.0, 1.0),
            cooling: ((temp - cool_at + half) / BAND).clamp(0.0, 1.0),
        }
    }

    fn mode(&self) -> VavMode {
        if self.cooling > 0.02 {
            VavMode::Cooling
        } else if self.heating > 0.02 {
            VavMode::Heating
        } else {
            VavMode::DeadBand
        }
    }
}

/// Moves the damper and the valve of a box; gives its mode.
pub(crate) fn control(zone: &Zone, memory: &mut ZoneMemory, demand: &Demand, on: bool) -> VavMode {
    let (flow, valve, mode) = if on {
        let for_cooling = demand.cooling * (zone.flow_max - zone.flow_min);
        let for_heating = demand.heating * (zone.flow_heat - zone.flow_min);
        (zone.flow_min + for_cooling + for_heating, demand.heating, demand.mode())
    } else {
        (0.0, 0.0, VavMode::Off)
    };
    memory.damper += (flow / zone.flow_max - memory.damper) * ACTUATOR;
    memory.reheat += (valve - memory.reheat) * ACTUATOR;
    if !on && memory.damper < 0.01 {
        (memory.damper, memory.reheat) = (0.0, 0.0);
    }
    mode
}

/// Temperature of the air after the reheat coil, with water of `water` °C where it flows.
/// `leak` is the least that the valve lets through.
pub(crate) fn reheat(memory: &ZoneMemory, air: f64, water: Option<f64>, leak: f64) -> f64 {
    let Some(water) = water else { return air };
    let most = (EFFECTIVENESS * (water - air)).min(WARMEST - air).max(0.0);
    air + most * memory.reheat.max(leak)
}
