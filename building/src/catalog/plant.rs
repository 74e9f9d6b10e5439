//! Points of chillers, boiler, pumps and tower.

use super::{FROM_ZERO, PERCENT, Sort};
use crate::boiler;

const CHILLED: (f64, f64) = (0.0, 50.0);
const HOT: (f64, f64) = (0.0, 110.0);

/// A chiller.
pub(crate) static CHILLER: [Sort; 5] = [
    Sort::boolean("run", "chiller run sensor", |v, i| v.memory.chillers.running[i]),
    Sort::text("mode", "chiller mode sensor", |v, i| {
        match (v.memory.chillers.running[i], v.memory.chillers.stage) {
            (true, _) if v.now.chillers.part_load < 0.15 => "cycling",
            (true, _) => "running",
            (false, 0) => "off",
            (false, _) => "standby",
        }
    }),
    Sort::number("load", "chiller load sensor", "%", 1.0, PERCENT, |v, i| {
        if v.memory.chillers.running[i] { 100.0 * v.now.chillers.part_load } else { 0.0 }
    })
    .relative(0.005),
    Sort::number("power", "elec power sensor", "kW", 10.0, FROM_ZERO, |v, i| {
        if v.memory.chillers.running[i] { v.now.chillers.chiller_power / 1_000.0 } else { 0.0 }
    })
    .relative(0.008),
    Sort::moment("last-start", "chiller run start sensor", |v, i| v.memory.chillers.starts[i]),
];

/// What the chillers share.
pub(crate) static CHILLED_WATER_PLANT: [Sort; 9] = [
    Sort::number(
        "supply-temp",
        "chilled water leaving temp sensor",
        "°C",
        10.0,
        CHILLED,
        |v, _| v.memory.chillers.supply,
    )
    .noise(0.06),
    Sort::number(
        "supply-temp-sp",
        "chilled water leaving temp sp",
        "°C",
        10.0,
        CHILLED,
        |v, _| v.design.chillers.supply_temp,
    ),
    Sort::number(
        "return-temp",
        "chilled water entering temp sensor",
        "°C",
        10.0,
        CHILLED,
        |v, _| v.now.chillers.returned,
    )
    .noise(0.06),
    Sort::number("flow", "chilled water flow sensor", "L/s", 10.0, FROM_ZERO, |v, _| {
        v.now.chillers.flow * 1_000.0
    })
    .relative(0.01),
    Sort::number("pump-speed-cmd", "chilled water pump speed cmd", "%", 1.0, PERCENT, |v, _| {
        100.0 * v.now.chillers.pump_speed
    }),
    Sort::boolean("pump-run", "chilled water pump run sensor", |v, _| v.memory.chillers.stage > 0),
    Sort::number("tower-fan-speed-cmd", "coolingTower fan speed cmd", "%", 1.0, PERCENT, |v, _| {
        100.0 * v.now.chillers.tower_speed
    }),
    Sort::number(
        "condenser-water-temp",
        "condenser water entering temp sensor",
        "°C",
        10.0,
        CHILLED,
        |v, _| v.memory.chillers.tower,
    )
    .noise(0.1),
    Sort::number(
        "cooling-load",
        "chilled water thermal power sensor",
        "kW",
        10.0,
        FROM_ZERO,
        |v, _| v.now.chillers.load / 1_000.0,
    )
    .relative(0.01),
];

/// The boiler with its pump.
pub(crate) static BOILER: [Sort; 9] = [
    Sort::boolean("run", "boiler run sensor", |v, _| v.memory.boiler.on),
    Sort::text("mode", "boiler mode sensor", |v, _| boiler::mode(&v.memory.boiler, &v.now.boiler)),
    Sort::number("supply-temp", "hot water leaving temp sensor", "°C", 10.0, HOT, |v, _| {
        v.memory.boiler.supply
    })
    .noise(0.1),
    Sort::number("supply-temp-sp", "hot water leaving temp sp", "°C", 10.0, HOT, |v, _| {
        v.now.boiler.setpoint
    }),
    Sort::number("return-temp", "hot water entering temp sensor", "°C", 10.0, HOT, |v, _| {
        v.now.boiler.returned
    })
    .noise(0.1),
    Sort::number("flow", "hot water flow sensor", "L/s", 10.0, FROM_ZERO, |v, _| {
        v.now.boiler.flow * 1_000.0
    })
    .relative(0.01),
    Sort::number("firing-rate", "boiler burner modulating cmd", "%", 1.0, PERCENT, |v, _| {
        100.0 * v.now.boiler.firing
    }),
    Sort::boolean("pump-run", "hot water pump run sensor", |v, _| v.memory.boiler.on),
    Sort::moment("last-start", "boiler run start sensor", |v, _| v.memory.boiler.start),
];
