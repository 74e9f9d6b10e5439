//! Sizes that a description leaves open: air flows and capacities from design loads.

use crate::design::{Climate, Zone};

/// Temperature difference that cools a zone at design, K.
const COOLING_DIFFERENCE: f64 = 11.0;
/// The same for heating.
const HEATING_DIFFERENCE: f64 = 15.0;
/// What equipment is larger than the load.
const RESERVE: f64 = 1.2;
/// Sun on a side at design, W/m².
const DESIGN_SUN: f64 = 450.0;

/// Outside temperatures at design: a hot afternoon and a cold morning, °C.
fn extremes(climate: &Climate) -> (f64, f64) {
    let swing = climate.seasonal_swing.abs();
    let (summer, winter) = (climate.mean + swing, climate.mean - swing);
    (summer + climate.daily_swing + 5.0, winter - climate.daily_swing - 7.0)
}

/// Largest flow and largest flow when heating for a zone with all else set, m³/s; `given` is the
/// largest flow where the description names it.
pub(crate) fn flows(zone: &Zone, climate: &Climate, given: Option<f64>) -> (f64, f64) {
    let (hot, cold) = extremes(climate);
    let inside = zone.lighting + zone.plugs + zone.people * 75.0;
    let sun = (zone.sun_glass * 0.7 + zone.sun_wall) * DESIGN_SUN + zone.sun_roof * 800.0;
    let by_leak = zone.infiltration * 4.0 * climate.heat_capacity;
    let through = (zone.envelope + by_leak) * (hot - 24.0).max(0.0);
    let cooling = (inside + sun + through) * RESERVE;
    let most = cooling / (climate.heat_capacity * COOLING_DIFFERENCE);
    // Air is mixed well only above some flow an area.
    let largest = given.unwrap_or(most.max(zone.area * 0.0025));
    let lost = (zone.envelope + by_leak) * (21.0 - cold).max(0.0);
    // Half as much again brings a cold room back in the morning.
    let heating = (lost * 1.5 + zone.area * 15.0) / (climate.heat_capacity * HEATING_DIFFERENCE);
    (largest, heating.clamp(0.35 * largest, largest))
}

/// Capacity of all chillers, W.
pub(crate) fn cooling(zones: &[Zone], climate: &Climate) -> f64 {
    let (hot, _) = extremes(climate);
    let flow: f64 = zones.iter().map(|zone| zone.flow_max).sum::<f64>() * DIVERSITY;
    let fresh: f64 = zones.iter().map(|zone| zone.ventilation).sum();
    let sensible = flow * climate.heat_capacity * COOLING_DIFFERENCE;
    let outside = fresh * climate.heat_capacity * (hot - 24.0).max(0.0);
    // Water taken out of the air is about a quarter of it all.
    (sensible + outside) * 1.3
}

/// Capacity of the boiler, W.
pub(crate) fn heating(zones: &[Zone], climate: &Climate) -> f64 {
    let (_, cold) = extremes(climate);
    let boxes: f64 = zones.iter().map(|zone| zone.flow_heat).sum();
    let fresh: f64 = zones.iter().map(|zone| zone.ventilation).sum();
    let air = climate.heat_capacity;
    (boxes * air * HEATING_DIFFERENCE + fresh * air * (21.0 - cold).max(0.0)) * RESERVE
}

/// Zones don't all take their largest flow at a time: the part that an air handler is built for.
pub(crate) const DIVERSITY: f64 = 0.85;
