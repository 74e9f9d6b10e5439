//! The hot water plant: one condensing boiler and its pump.
//!
//! Efficiency by part load and return temperature, as in `EnergyPlus` (Boiler:HotWater).

use crate::{
    chiller::{REST, WATER},
    design::BoilerPlant,
    memory::BoilerMemory,
    weather::Weather,
    zone::STEP,
};

/// J/K of water and pipes, for each W of capacity.
const LOOP: f64 = 40.0;
/// Seconds in which the controls want a deviation gone.
const RECOVERY: f64 = 600.0;
/// Fall of hot water at design, K.
const FALL: f64 = 15.0;
/// Return water warmer than this condenses nothing, °C.
const CONDENSING: f64 = 55.0;
/// Heat that boiler and pipes lose, part of capacity.
const STANDING: f64 = 0.005;

/// What the plant does during a minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct BoilerNow {
    /// Heat given to the air, W.
    pub(crate) load: f64,
    /// Heat given to the water, W.
    pub(crate) heating: f64,
    /// °C
    pub(crate) setpoint: f64,
    /// °C
    pub(crate) returned: f64,
    /// Part of full fire.
    pub(crate) firing: f64,
    /// Gas, m³/s.
    pub(crate) gas: f64,
    /// m³/s
    pub(crate) flow: f64,
    /// Electricity of the pump, W.
    pub(crate) power: f64,
}

/// Moves the plant on by one minute.
pub(crate) fn advance(
    plant: &BoilerPlant,
    memory: &mut BoilerMemory,
    minute: i64,
    weather: &Weather,
    called: bool,
    load: f64,
) -> BoilerNow {
    let wanted = called && weather.temp < plant.lockout;
    if wanted != memory.on && minute - memory.since >= REST {
        (memory.on, memory.since) = (wanted, minute);
        if wanted {
            memory.start = minute;
        }
    }
    let mild = ((weather.temp + 10.0) / 25.0).clamp(0.0, 1.0);
    let setpoint = plant.supply_hot + (plant.supply_mild - plant.supply_hot) * mild;
    let returned = memory.supply;
    let mut now = BoilerNow { load, setpoint, returned, ..BoilerNow::default() };
    if !memory.on {
        memory.supply += (22.0 - memory.supply) * 0.004;
        return now;
    }
    let heat = LOOP * plant.capacity;
    let lost = STANDING * plant.capacity;
    let needed = load + lost + heat * (setpoint - memory.supply) / RECOVERY;
    now.heating = needed.clamp(0.0, plant.capacity);
    memory.supply = (memory.supply + (now.heating - load - lost) * STEP / heat).clamp(5.0, 95.0);

    let design = plant.capacity / (WATER * FALL);
    let part = (load / (WATER * FALL) / design).clamp(0.3, 1.0);
    now.flow = design * part / 1_000.0;
    now.power = plant.pump * part * part * part;
    now.returned = memory.supply - load / (WATER * design * part);
    now.firing = now.heating / plant.capacity;
    let condensing = ((CONDENSING - now.returned) / 25.0).clamp(0.0, 1.0);
    let efficiency = plant.efficiency + 0.07 * condensing + 0.02 * (1.0 - now.firing);
    now.gas = now.heating / efficiency.min(0.99) / plant.gas_heat;
    now
}

/// What the boiler is about.
pub(crate) fn mode(memory: &BoilerMemory, now: &BoilerNow) -> &'static str {
    match (memory.on, now.firing > 0.01) {
        (false, _) => "off",
        (true, true) => "firing",
        (true, false) => "standby",
    }
}
