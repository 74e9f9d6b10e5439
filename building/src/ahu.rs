//! An air handler: mixing box, economizer, coils, fan, filter.
//!
//! Air goes through damper, filter, fan, cooling coil, heating coil, in this order.

use crate::{
    design::{Ahu, Climate, Reset},
    memory::{AhuMemory, AhuMode},
    psychrometrics::{EVAPORATION, humidity_ratio, saturation},
    vav::ACTUATOR,
    weather::Weather,
    zone::OUTSIDE_CO2,
};
use libm::sqrt;

/// How much colder than the air it leaves the water of a cooling coil must be, K.
const APPROACH: f64 = 4.0;
/// Part of the difference between water and air that the heating coil gets into the air.
const EFFECTIVENESS: f64 = 0.5;
/// Discharge setpoint while the zones are to be warmed, °C.
const WARM_AIR: f64 = 30.0;
/// Most that the discharge setpoint moves in a minute, K.
const SLEW: f64 = 0.5;
/// The outside air damper closes before mixed air gets colder, °C.
const FREEZE_LIMIT: f64 = 3.0;
/// Part of the fan's pressure at no flow over that at design flow, less one (fan curve).
const FAN_CURVE: f64 = 0.25;

/// The air that comes back, and what the zones need.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Return {
    /// Air flow that the boxes take, m³/s.
    pub(crate) flow: f64,
    /// °C
    pub(crate) temp: f64,
    /// ppm
    pub(crate) co2: f64,
    /// kg/kg
    pub(crate) moisture: f64,
    /// Outside air due in working hours, m³/s.
    pub(crate) ventilation: f64,
    /// Demand of the zone that needs most, 0 to 1.
    pub(crate) most_cooling: f64,
    /// Mean demand for heat, 0 to 1.
    pub(crate) mean_heating: f64,
}

/// Water at the coils, °C; none where no pump runs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Water {
    pub(crate) chilled: Option<f64>,
    pub(crate) hot: Option<f64>,
}

/// Least opening of the valves, from leaks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Leaks {
    pub(crate) cooling: f64,
    pub(crate) heating: f64,
}

/// What an air handler does during a minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct AhuNow {
    pub(crate) on: bool,
    /// m³/s
    pub(crate) flow: f64,
    pub(crate) outside_flow: f64,
    /// Return air, °C.
    pub(crate) returned: f64,
    /// Discharge air: ppm and kg/kg.
    pub(crate) co2: f64,
    pub(crate) moisture: f64,
    /// CO₂ of the return air, ppm.
    pub(crate) return_co2: f64,
    /// Part of full speed.
    pub(crate) fan_speed: f64,
    /// W
    pub(crate) fan_power: f64,
    /// Pa
    pub(crate) static_pressure: f64,
    pub(crate) filter_drop: f64,
    /// Heat to chilled water and from hot water, W.
    pub(crate) cooling: f64,
    pub(crate) heating: f64,
}

/// Moves an air handler on by one minute.
pub(crate) fn advance(
    ahu: &Ahu,
    memory: &mut AhuMemory,
    climate: &Climate,
    weather: &Weather,
    back: &Return,
    water: Water,
    leaks: Leaks,
) -> AhuNow {
    let on = memory.mode != AhuMode::Off;
    let mut now = AhuNow { on, returned: back.temp, return_co2: back.co2, ..AhuNow::default() };
    if back.flow <= 0.0 {
        rest(memory, back, &mut now);
        return now;
    }
    now.flow = back.flow;
    fan(ahu, memory, &mut now);
    let fan_heat = now.fan_power / (now.flow * climate.heat_capacity);
    reset(ahu, memory, weather, back);
    let part = mix(ahu, memory, weather, back, fan_heat);
    now.outside_flow = part * now.flow;
    now.co2 = back.co2 + part * (OUTSIDE_CO2 - back.co2);
    let moisture = back.moisture + part * (weather.moisture - back.moisture);
    memory.mixed = back.temp + part * (weather.temp - back.temp);
    now.moisture = moisture;
    coils(memory, climate, memory.mixed + fan_heat, water, leaks, &mut now);
    memory.dust += now.flow * crate::zone::STEP / ahu.filter_life;
    now
}

/// Off: dampers and valves close, and the air in the ducts takes the temperature of the rooms.
fn rest(memory: &mut AhuMemory, back: &Return, now: &mut AhuNow) {
    memory.discharge += (back.temp - memory.discharge) * 0.03;
    memory.mixed += (back.temp - memory.mixed) * 0.03;
    memory.economizer = false;
    for position in [&mut memory.damper, &mut memory.cooling, &mut memory.heating] {
        *position = if *position < 0.01 { 0.0 } else { *position * (1.0 - ACTUATOR) };
    }
    (now.co2, now.moisture) = (back.co2, back.moisture);
}

/// Pressure and power of the fan: a duct whose static pressure is held, a square law for the rest,
/// a fan curve of second order that affinity laws move with speed.
fn fan(ahu: &Ahu, memory: &AhuMemory, now: &mut AhuNow) {
    let part = now.flow / ahu.flow;
    let square = part * part;
    let dirt = (ahu.filter_dirty - ahu.filter_clean) * memory.dust;
    now.filter_drop = (ahu.filter_clean + dirt) * square;
    let duct = ahu.static_pressure + (ahu.fan_pressure - ahu.static_pressure) * square;
    let pressure = duct + dirt * square;
    now.static_pressure = ahu.static_pressure;
    now.fan_power = now.flow * pressure / ahu.fan_efficiency;
    let relative = pressure / ahu.fan_pressure;
    now.fan_speed = sqrt((relative + FAN_CURVE * square) / (1.0 + FAN_CURVE)).clamp(0.0, 1.0);
}

/// Moves the discharge setpoint towards where it should be.
fn reset(ahu: &Ahu, memory: &mut AhuMemory, weather: &Weather, back: &Return) {
    let to_warm =
        matches!(memory.mode, AhuMode::WarmUp | AhuMode::NightHeating) && back.most_cooling < 0.1;
    let mildness = match ahu.reset {
        Reset::Outdoor => ((20.0 - weather.temp) / 10.0).clamp(0.0, 1.0),
        Reset::Demand => ((0.8 - back.most_cooling) / 0.6).clamp(0.0, 1.0),
    };
    let target = if to_warm {
        ahu.warm + (WARM_AIR - ahu.warm) * (3.0 * back.mean_heating).min(1.0)
    } else {
        ahu.cold + (ahu.warm - ahu.cold) * mildness
    };
    memory.setpoint += (target - memory.setpoint).clamp(-SLEW, SLEW);
}

/// Moves the outside air damper; gives the part of outside air.
fn mix(ahu: &Ahu, memory: &mut AhuMemory, weather: &Weather, back: &Return, fan_heat: f64) -> f64 {
    let fresh = if memory.mode == AhuMode::Occupied { back.ventilation } else { 0.0 };
    let least = (fresh / back.flow).clamp(0.0, 1.0);
    let wanted = memory.setpoint - fan_heat;
    let colder = back.temp - weather.temp;
    // Half a degree of hysteresis on both limits.
    let ease = if memory.economizer { 0.5 } else { -0.5 };
    let useful = ahu.economizer.is_some_and(|limit| weather.temp < limit + ease)
        && colder > 1.5 - ease
        && matches!(memory.mode, AhuMode::Occupied | AhuMode::NightCooling | AhuMode::WarmUp);
    let free = if useful { ((back.temp - wanted) / colder).clamp(0.0, 1.0) } else { 0.0 };
    memory.economizer = free > least + 0.01;
    let mut target = free.max(least);
    if colder > 0.0 {
        target = target.min(((back.temp - FREEZE_LIMIT) / colder).clamp(0.0, 1.0));
    }
    memory.damper += (target - memory.damper) * ACTUATOR;
    memory.damper
}

/// Moves the valves, and cools and heats the air that came from the fan at `entering` °C.
fn coils(
    memory: &mut AhuMemory,
    climate: &Climate,
    entering: f64,
    water: Water,
    leaks: Leaks,
    now: &mut AhuNow,
) {
    // Without flow a valve opens as if there were water: that is what calls for the plant. While
    // zones are warmed at night the cooling coil is locked out.
    let locked_out = memory.mode == AhuMode::NightHeating;
    let drop = (entering - water.chilled.unwrap_or(7.0) - APPROACH).max(0.0);
    let call = if drop > 0.1 && !locked_out { (entering - memory.setpoint) / drop } else { 0.0 };
    memory.cooling += (call.clamp(0.0, 1.0) - memory.cooling) * ACTUATOR;
    let cold = match water.chilled {
        Some(_) => entering - drop * memory.cooling.max(leaks.cooling),
        None => entering,
    };
    let rise = (EFFECTIVENESS * (water.hot.unwrap_or(55.0) - cold)).max(0.0);
    let call = if rise > 0.1 { (memory.setpoint - cold) / rise } else { 0.0 };
    memory.heating += (call.clamp(0.0, 1.0) - memory.heating) * ACTUATOR;
    let warm = match water.hot {
        Some(_) => cold + rise * memory.heating.max(leaks.heating),
        None => cold,
    };
    let heat = now.flow * climate.heat_capacity;
    let mut dried = now.moisture;
    if entering - cold > 0.1 {
        dried = dried.min(0.95 * humidity_ratio(saturation(cold), climate.pressure));
    }
    let latent = now.flow * climate.density * EVAPORATION * (now.moisture - dried);
    now.cooling = heat * (entering - cold) + latent;
    now.heating = heat * (warm - cold);
    now.moisture = dried;
    memory.discharge = warm;
}
