//! The building as designed: what a description comes to after checks and sizing, in SI units.

use crate::{calendar::Schedule, noise::Stream};
use chrono_tz::Tz;

/// Where the building stands, and its climate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Climate {
    /// Sine of the latitude.
    pub(crate) sin_latitude: f64,
    /// Cosine of the latitude.
    pub(crate) cos_latitude: f64,
    /// Degrees east.
    pub(crate) longitude: f64,
    /// Mean temperature of a year, °C.
    pub(crate) mean: f64,
    /// Half of what July is warmer than January, K; negative in the south.
    pub(crate) seasonal_swing: f64,
    /// Half of what the afternoon is warmer than the night, K.
    pub(crate) daily_swing: f64,
    /// Air pressure, Pa.
    pub(crate) pressure: f64,
    /// Density of air, kg/m³.
    pub(crate) density: f64,
    /// Heat that air takes up, J/(m³·K).
    pub(crate) heat_capacity: f64,
    /// The clock on the wall.
    pub(crate) time_zone: Tz,
}

/// Temperatures that the zones are held at, °C.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Setpoints {
    /// Heating in working hours.
    pub(crate) heating: f64,
    /// Cooling in working hours.
    pub(crate) cooling: f64,
    /// Heating at other times.
    pub(crate) setback: f64,
    /// Cooling at other times.
    pub(crate) setup: f64,
}

/// One zone and its VAV box.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Zone {
    /// Key of its entity.
    pub(crate) key: String,
    /// Index of its floor.
    pub(crate) floor: usize,
    /// Index of the air handler that serves it.
    pub(crate) ahu: usize,
    /// Index of its schedule.
    pub(crate) schedule: usize,
    /// Floor area, m².
    pub(crate) area: f64,
    /// Air in it, m³.
    pub(crate) volume: f64,
    /// Side that its wall and glass face.
    pub(crate) side: Option<usize>,
    /// Heat that it takes up with its furniture and mass, J/K.
    pub(crate) capacity: f64,
    /// Conductance of wall, glass and roof to the outside, W/K.
    pub(crate) envelope: f64,
    /// Conductance to the floor's other zones, W/K.
    pub(crate) coupling: f64,
    /// Glass that lets all light through and gives as much, m².
    pub(crate) sun_glass: f64,
    /// The same for what a sunlit wall passes on, m².
    pub(crate) sun_wall: f64,
    /// The same for the roof, m².
    pub(crate) sun_roof: f64,
    /// Infiltration at a wind of 1 m/s, m³/s.
    pub(crate) infiltration: f64,
    /// People at most.
    pub(crate) people: f64,
    /// Lights, all on, W.
    pub(crate) lighting: f64,
    /// Plug loads, all on, W.
    pub(crate) plugs: f64,
    /// Part of the lights that daylight saves at most.
    pub(crate) daylight: f64,
    /// Largest air flow, m³/s.
    pub(crate) flow_max: f64,
    /// Smallest air flow while the air handler runs, m³/s.
    pub(crate) flow_min: f64,
    /// Largest air flow when heating, m³/s.
    pub(crate) flow_heat: f64,
    /// Outside air it is due in working hours, m³/s.
    pub(crate) ventilation: f64,
    /// Its own randomness.
    pub(crate) stream: Stream,
}

/// How an air handler's discharge setpoint is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    /// By outside temperature.
    Outdoor,
    /// By the zone that needs most cooling.
    Demand,
}

/// One air handler.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ahu {
    /// Key of its entity.
    pub(crate) key: String,
    /// Zones it serves, by index.
    pub(crate) zones: Vec<usize>,
    /// Lowest discharge setpoint, °C.
    pub(crate) cold: f64,
    /// Highest discharge setpoint, °C.
    pub(crate) warm: f64,
    /// How the setpoint moves between them.
    pub(crate) reset: Reset,
    /// Outside temperature above which the economizer is locked out, °C; none without one.
    pub(crate) economizer: Option<f64>,
    /// Design air flow, m³/s.
    pub(crate) flow: f64,
    /// Setpoint of duct static pressure, Pa.
    pub(crate) static_pressure: f64,
    /// Fan pressure at design flow with a clean filter, Pa.
    pub(crate) fan_pressure: f64,
    /// Of fan, belt, motor and drive together.
    pub(crate) fan_efficiency: f64,
    /// Pressure drop of the clean filter at design flow, Pa.
    pub(crate) filter_clean: f64,
    /// Pressure drop at design flow at which it is changed, Pa.
    pub(crate) filter_dirty: f64,
    /// Air that makes a clean filter dirty, m³.
    pub(crate) filter_life: f64,
    /// Its own randomness.
    pub(crate) stream: Stream,
}

/// The chillers, their pumps and their cooling tower.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChillerPlant {
    /// How many chillers: 1 or 2.
    pub(crate) chillers: usize,
    /// Capacity of each, W.
    pub(crate) capacity: f64,
    /// Heat moved over electricity, at full load and design temperatures.
    pub(crate) cop: f64,
    /// Setpoint of supply water, °C.
    pub(crate) supply_temp: f64,
    /// Outside temperature below which they stay off, °C.
    pub(crate) lockout: f64,
    /// Chilled water pump at design flow, W.
    pub(crate) pump: f64,
    /// Condenser pump of each chiller, W.
    pub(crate) condenser_pump: f64,
    /// Tower fan at full speed, W.
    pub(crate) tower_fan: f64,
}

/// The boiler and its pump.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BoilerPlant {
    /// Capacity, W.
    pub(crate) capacity: f64,
    /// Efficiency at full load, without condensation, 0 to 1.
    pub(crate) efficiency: f64,
    /// Setpoint of supply water on a cold day, °C.
    pub(crate) supply_hot: f64,
    /// Setpoint of supply water on a mild day, °C.
    pub(crate) supply_mild: f64,
    /// Outside temperature above which it stays off, °C.
    pub(crate) lockout: f64,
    /// Heat in a cubic metre of gas, J.
    pub(crate) gas_heat: f64,
    /// Pump at design flow, W.
    pub(crate) pump: f64,
}

/// All that the physics works on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Design {
    pub(crate) climate: Climate,
    pub(crate) setpoints: Setpoints,
    pub(crate) schedules: Vec<Schedule>,
    /// How many floors.
    pub(crate) floors: usize,
    pub(crate) zones: Vec<Zone>,
    pub(crate) ahus: Vec<Ahu>,
    pub(crate) chillers: ChillerPlant,
    pub(crate) boiler: BoilerPlant,
    /// What the wiring loses of what the sub-meters count, 0 to 1.
    pub(crate) loss: f64,
}

#[cfg(test)]
impl Climate {
    /// A place at sea level, for tests.
    pub(crate) fn at(latitude: f64, longitude: f64) -> Self {
        Self {
            sin_latitude: libm::sin(latitude.to_radians()),
            cos_latitude: libm::cos(latitude.to_radians()),
            longitude,
            mean: 10.0,
            seasonal_swing: 9.0,
            daily_swing: 4.0,
            pressure: 101_325.0,
            density: 1.204,
            heat_capacity: 1_211.0,
            time_zone: chrono_tz::UTC,
        }
    }
}
