//! One zone over one minute: heat, CO₂ and moisture, each integrated exactly.

use crate::{balance::Balance, design::Zone, loads::Loads, memory::ZoneMemory, weather::Weather};
use libm::expm1;

/// Seconds of a step of the physics.
pub(crate) const STEP: f64 = 60.0;
/// CO₂ outside, ppm.
pub(crate) const OUTSIDE_CO2: f64 = 420.0;
/// Furniture and walls hold several times the water of the air.
const MOISTURE_BUFFER: f64 = 6.0;
/// m³ of CO₂ a second and person at office work (ASHRAE Fundamentals, 0.0052 L/s at 1.2 met).
const BREATH: f64 = 5.2e-6;
/// kg of water a second and person at office work.
const SWEAT: f64 = 2.0e-5;
/// Infiltration left while the air handler keeps the building under pressure.
const UNDER_PRESSURE: f64 = 0.35;

/// Air that a VAV box gives.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct SupplyAir {
    /// m³/s
    pub(crate) flow: f64,
    /// °C
    pub(crate) temp: f64,
    /// ppm
    pub(crate) co2: f64,
    /// kg/kg
    pub(crate) moisture: f64,
}

/// `start` after `STEP` seconds of C·dx/dt = drive − loss·x, and its mean over them.
fn relax(start: f64, drive: f64, loss: f64, capacity: f64) -> (f64, f64) {
    let x = loss * STEP / capacity;
    let (end, mean) = if x > 1e-7 {
        let end = -expm1(-x) / x;
        (end, (1.0 - end) / x)
    } else {
        (1.0, 0.5)
    };
    let pull = (drive - loss * start) * STEP / capacity;
    (start + pull * end, start + pull * mean)
}

/// What is around a zone.
pub(crate) struct Around<'a> {
    pub(crate) weather: &'a Weather,
    /// Mean temperature of the floor, °C.
    pub(crate) floor: f64,
    /// J/(m³·K) of air.
    pub(crate) air_heat: f64,
    /// kg/m³ of air.
    pub(crate) density: f64,
}

/// Moves a zone on by one minute.
pub(crate) fn advance(
    zone: &Zone,
    memory: &mut ZoneMemory,
    loads: &Loads,
    supply: &SupplyAir,
    around: &Around<'_>,
) -> Balance {
    let weather = around.weather;
    let pressed = if supply.flow > 0.0 { UNDER_PRESSURE } else { 1.0 };
    let leak = zone.infiltration * weather.wind * pressed;
    let (by_leak, by_air) = (leak * around.air_heat, supply.flow * around.air_heat);
    let drive = loads.heat()
        + (zone.envelope + by_leak) * weather.temp
        + zone.coupling * around.floor
        + by_air * supply.temp;
    let loss = zone.envelope + by_leak + zone.coupling + by_air;
    let before = memory.temp;
    let (after, mean) = relax(before, drive, loss, zone.capacity);
    memory.temp = after;

    let people = loads.people;
    let exchange = supply.flow + leak;
    let co2 = 1e6 * BREATH * people + supply.flow * supply.co2 + leak * OUTSIDE_CO2;
    memory.co2 = relax(memory.co2, co2, exchange, zone.volume).0;
    let water =
        people * SWEAT / around.density + supply.flow * supply.moisture + leak * weather.moisture;
    memory.moisture = relax(memory.moisture, water, exchange, zone.volume * MOISTURE_BUFFER).0;

    Balance {
        solar: loads.solar * STEP,
        people: loads.sensible() * STEP,
        lighting: loads.lighting * STEP,
        plugs: loads.plugs * STEP,
        envelope: zone.envelope * (weather.temp - mean) * STEP,
        infiltration: by_leak * (weather.temp - mean) * STEP,
        neighbours: zone.coupling * (around.floor - mean) * STEP,
        air: by_air * (supply.temp - mean) * STEP,
        stored: zone.capacity * (after - before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_exact_solution_and_needs_no_loss() {
        // 10 → 20 with a time constant of a minute: all but 1/e of it.
        let (end, mean) = relax(10.0, 20.0, 1.0, STEP);
        assert!((end - (20.0 - 10.0 * libm::exp(-1.0))).abs() < 1e-12);
        assert!((mean - (20.0 - 10.0 * (1.0 - libm::exp(-1.0)))).abs() < 1e-12);
        let (end, mean) = relax(10.0, 2.0, 0.0, STEP);
        assert!((end - 12.0).abs() < 1e-12 && (mean - 11.0).abs() < 1e-12);
    }
}
