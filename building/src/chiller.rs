//! The chilled water plant: staged chillers, pumps, cooling tower.
//!
//! Curves have the form of `EnergyPlus` (Chiller:Electric:EIR): capacity and efficiency by water
//! temperatures, efficiency by part load; here of first order and second order.

use crate::{
    design::ChillerPlant, memory::ChillerMemory, psychrometrics::EVAPORATION, weather::Weather,
    zone::STEP,
};

/// Heat of water, J/(kg·K).
pub(crate) const WATER: f64 = 4_186.0;
/// J/K of water and pipes, for each W of capacity.
const LOOP: f64 = 60.0;
/// Seconds in which the controls want a deviation gone.
const RECOVERY: f64 = 600.0;
/// Rise of chilled water at design, K.
const RISE: f64 = 6.0;
/// Design temperature of water to the condenser, °C.
const CONDENSER: f64 = 29.4;
/// Below this part load a chiller cycles.
const LEAST: f64 = 0.15;
/// Minutes that a chiller or boiler runs or rests at least.
pub(crate) const REST: i64 = 15;
/// Tower water over wet bulb at design, K, and its lowest temperature, °C.
const TOWER_APPROACH: f64 = 4.0;
const TOWER_COLDEST: f64 = 20.0;
/// Concentration of salts in the tower over that in fresh water.
const CYCLES: f64 = 4.0;

/// What the plant does during a minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ChillerNow {
    /// Heat taken out of the air, W.
    pub(crate) load: f64,
    /// Heat taken out of the water, W.
    pub(crate) cooling: f64,
    /// Part load of each chiller that runs.
    pub(crate) part_load: f64,
    /// Electricity of each chiller that runs, W.
    pub(crate) chiller_power: f64,
    /// °C
    pub(crate) returned: f64,
    /// m³/s
    pub(crate) flow: f64,
    /// Part of full speed.
    pub(crate) pump_speed: f64,
    pub(crate) tower_speed: f64,
    /// All electricity of the plant, W.
    pub(crate) power: f64,
    /// Water that the tower takes, m³/s.
    pub(crate) makeup: f64,
}

/// Moves the plant on by one minute.
pub(crate) fn advance(
    plant: &ChillerPlant,
    memory: &mut ChillerMemory,
    minute: i64,
    weather: &Weather,
    called: bool,
    load: f64,
) -> ChillerNow {
    let heat = LOOP * plant.capacity * plant.chillers as f64;
    let needed = load + heat * (memory.supply - plant.supply_temp) / RECOVERY;
    stage(plant, memory, minute, called && weather.temp > plant.lockout, needed);
    let mut now = ChillerNow { load, returned: memory.supply, ..ChillerNow::default() };
    if memory.stage == 0 {
        memory.supply += (22.0 - memory.supply) * 0.002;
        memory.tower += (weather.wet_bulb.max(5.0) - memory.tower) * 0.005;
        return now;
    }
    let running = memory.stage as f64;
    // Colder condenser water and warmer chilled water help.
    let (lift, warm) = (memory.tower - CONDENSER, memory.supply - plant.supply_temp);
    let available = plant.capacity * (1.0 - 0.012 * lift + 0.02 * warm).clamp(0.6, 1.25);
    now.cooling = needed.clamp(0.0, running * available);
    memory.supply = (memory.supply + (load - now.cooling) * STEP / heat).clamp(2.0, 35.0);
    now.part_load = now.cooling / (running * available);
    now.chiller_power = power(plant, available, now.part_load, lift, warm);
    pumps(plant, memory, load, &mut now);
    tower(plant, memory, weather, &mut now);
    now.power += running * (now.chiller_power + plant.condenser_pump);
    now
}

/// Electricity of one chiller, W.
fn power(plant: &ChillerPlant, available: f64, part_load: f64, lift: f64, warm: f64) -> f64 {
    let by_temps = (1.0 + 0.021 * lift - 0.018 * warm).clamp(0.45, 1.4);
    let part = part_load.max(LEAST);
    let by_load = 0.21 + 0.33 * part + 0.46 * part * part;
    available / plant.cop * by_temps * by_load * (part_load / part)
}

/// Starts, stages and stops chillers; the one that leads changes weekly.
fn stage(plant: &ChillerPlant, memory: &mut ChillerMemory, minute: i64, called: bool, needed: f64) {
    let rested = minute - memory.since >= REST;
    let count = memory.stage;
    let one = plant.capacity;
    let next = match count {
        _ if !rested => count,
        0 => usize::from(called),
        _ if !called => 0,
        _ if needed > 0.95 * one * count as f64 => (count + 1).min(plant.chillers),
        2 if needed < 0.75 * one => 1,
        _ => count,
    };
    if next == count {
        return;
    }
    (memory.stage, memory.since) = (next, minute);
    let week = minute.div_euclid(7 * 1_440).rem_euclid(plant.chillers as i64) as usize;
    for chiller in 0..plant.chillers {
        // With both on there is no order; with one on, the one that ran goes on.
        let runs = match (count, next) {
            (_, 0) => false,
            (0, _) => chiller == week,
            (_, 1) => chiller == 0,
            _ => true,
        };
        if runs && !memory.running[chiller] {
            memory.starts[chiller] = minute;
        }
        memory.running[chiller] = runs;
    }
}

/// The chilled water pump follows the load down to 30 %; power by the affinity law.
fn pumps(plant: &ChillerPlant, memory: &ChillerMemory, load: f64, now: &mut ChillerNow) {
    let design = plant.capacity * plant.chillers as f64 / (WATER * RISE);
    let part = (load / (WATER * RISE) / design).clamp(0.3, 1.0);
    now.pump_speed = part;
    now.flow = design * part / 1_000.0;
    now.power += plant.pump * part * part * part;
    now.returned = memory.supply + load / (WATER * design * part);
}

/// The tower keeps its water near the wet bulb, not colder than the chillers like it.
fn tower(
    plant: &ChillerPlant,
    memory: &mut ChillerMemory,
    weather: &Weather,
    now: &mut ChillerNow,
) {
    let rejected = now.cooling + memory.stage as f64 * now.chiller_power;
    let design = plant.capacity * plant.chillers as f64 * (1.0 + 1.0 / plant.cop);
    let aim = (weather.wet_bulb + TOWER_APPROACH).max(TOWER_COLDEST);
    let part = rejected / design * TOWER_APPROACH / (aim - weather.wet_bulb);
    now.tower_speed = part.clamp(0.1, 1.0);
    let reached = aim + TOWER_APPROACH * (part - 1.0).clamp(0.0, 2.0);
    memory.tower += (reached - memory.tower) * 0.2;
    let speed = now.tower_speed;
    now.power += plant.tower_fan * speed * speed * speed;
    // Most heat leaves by evaporation; blow-down keeps the salts thin.
    now.makeup = 0.9 * rejected / EVAPORATION / 1_000.0 * CYCLES / (CYCLES - 1.0);
}
