//! Points of air handlers and VAV boxes.

use super::{FROM_ZERO, PERCENT, Sort};
use crate::{memory::AhuMode, psychrometrics::relative_humidity};

const AIR: (f64, f64) = (-30.0, 60.0);
const ROOM: (f64, f64) = (5.0, 45.0);
const PPM: (f64, f64) = (350.0, 5_000.0);
const PASCAL: (f64, f64) = (0.0, 2_500.0);

/// A VAV box and its zone.
pub(crate) static VAV: [Sort; 11] = [
    Sort::number("zone-air-temp", "zone air temp sensor", "°C", 10.0, ROOM, |v, i| {
        v.memory.zones[i].temp
    })
    .noise(0.06),
    Sort::number("zone-air-humidity", "zone air humidity sensor", "%RH", 1.0, PERCENT, |v, i| {
        let zone = &v.memory.zones[i];
        relative_humidity(zone.temp, zone.moisture, v.design.climate.pressure)
    })
    .noise(0.6),
    Sort::number("zone-air-co2", "zone air co2 concentration sensor", "ppm", 1.0, PPM, |v, i| {
        v.memory.zones[i].co2
    })
    .noise(6.0),
    Sort::boolean("zone-occupied", "zone occupied sensor", |v, i| {
        v.now.zones[i].loads.people > 0.0
    }),
    Sort::number(
        "zone-heating-sp",
        "zone air temp heating effective sp",
        "°C",
        10.0,
        ROOM,
        |v, i| v.now.zones[i].demand.heat_at,
    ),
    Sort::number(
        "zone-cooling-sp",
        "zone air temp cooling effective sp",
        "°C",
        10.0,
        ROOM,
        |v, i| v.now.zones[i].demand.cool_at,
    ),
    Sort::number("discharge-air-temp", "discharge air temp sensor", "°C", 10.0, AIR, |v, i| {
        v.now.zones[i].supply.temp
    })
    .noise(0.1),
    Sort::number(
        "discharge-air-flow",
        "discharge air flow sensor",
        "L/s",
        1.0,
        FROM_ZERO,
        |v, i| v.now.zones[i].supply.flow * 1_000.0,
    )
    .relative(0.015),
    Sort::number("damper-cmd", "damper cmd", "%", 1.0, PERCENT, |v, i| {
        // Flow through a damper grows faster than its opening at first.
        let part = v.memory.zones[i].damper;
        100.0 * part * (0.6 + 0.4 * part)
    }),
    Sort::number("reheat-valve-cmd", "hot water valve heating cmd", "%", 1.0, PERCENT, |v, i| {
        100.0 * v.memory.zones[i].reheat
    }),
    Sort::text("mode", "airTerminalUnit mode sensor", |v, i| v.now.zones[i].mode.text()),
];

/// An air handler.
pub(crate) static AHU: [Sort; 20] = [
    Sort::text("mode", "ahu mode sensor", |v, i| v.memory.ahus[i].mode.text()),
    Sort::boolean("occupied-cmd", "occupied cmd", |v, i| {
        v.memory.ahus[i].mode == AhuMode::Occupied
    }),
    Sort::boolean("fan-run", "discharge fan run sensor", |v, i| v.now.ahus[i].on),
    Sort::number("fan-speed-cmd", "discharge fan speed cmd", "%", 1.0, PERCENT, |v, i| {
        100.0 * v.now.ahus[i].fan_speed
    }),
    Sort::number("fan-power", "discharge fan elec power sensor", "kW", 100.0, FROM_ZERO, |v, i| {
        v.now.ahus[i].fan_power / 1_000.0
    })
    .relative(0.01),
    Sort::number("discharge-air-temp", "discharge air temp sensor", "°C", 10.0, AIR, |v, i| {
        v.memory.ahus[i].discharge
    })
    .noise(0.08),
    Sort::number("discharge-air-temp-sp", "discharge air temp sp", "°C", 10.0, AIR, |v, i| {
        v.memory.ahus[i].setpoint
    }),
    Sort::number("mixed-air-temp", "mixed air temp sensor", "°C", 10.0, AIR, |v, i| {
        v.memory.ahus[i].mixed
    })
    .noise(0.15),
    Sort::number("return-air-temp", "return air temp sensor", "°C", 10.0, AIR, |v, i| {
        v.now.ahus[i].returned
    })
    .noise(0.08),
    Sort::number(
        "return-air-co2",
        "return air co2 concentration sensor",
        "ppm",
        1.0,
        PPM,
        |v, i| v.now.ahus[i].return_co2,
    )
    .noise(6.0),
    Sort::number(
        "discharge-air-flow",
        "discharge air flow sensor",
        "L/s",
        1.0,
        FROM_ZERO,
        |v, i| v.now.ahus[i].flow * 1_000.0,
    )
    .relative(0.01),
    Sort::number("outside-air-flow", "outside air flow sensor", "L/s", 1.0, FROM_ZERO, |v, i| {
        v.now.ahus[i].outside_flow * 1_000.0
    })
    .relative(0.02),
    Sort::number("outside-air-damper-cmd", "outside air damper cmd", "%", 1.0, PERCENT, |v, i| {
        100.0 * v.memory.ahus[i].damper
    }),
    Sort::boolean("economizer-active", "economizing run sensor", |v, i| {
        v.memory.ahus[i].economizer
    }),
    Sort::number(
        "cooling-valve-cmd",
        "chilled water valve cooling cmd",
        "%",
        1.0,
        PERCENT,
        |v, i| 100.0 * v.memory.ahus[i].cooling,
    ),
    Sort::number("heating-valve-cmd", "hot water valve heating cmd", "%", 1.0, PERCENT, |v, i| {
        100.0 * v.memory.ahus[i].heating
    }),
    Sort::number(
        "static-pressure",
        "discharge air static pressure sensor",
        "Pa",
        1.0,
        PASCAL,
        |v, i| v.now.ahus[i].static_pressure,
    )
    .relative(0.02),
    Sort::number(
        "static-pressure-sp",
        "discharge air static pressure sp",
        "Pa",
        1.0,
        PASCAL,
        |v, i| v.design.ahus[i].static_pressure,
    ),
    Sort::number(
        "filter-pressure-drop",
        "air filter delta pressure sensor",
        "Pa",
        1.0,
        PASCAL,
        |v, i| v.now.ahus[i].filter_drop,
    )
    .relative(0.02),
    Sort::moment("filter-changed", "air filter maintenance sensor", |v, i| {
        v.memory.ahus[i].filter_changed
    }),
];

/// What an air handler's fan has used; the number says which totalizer.
pub(crate) static AHU_FAN_ENERGY: Sort = Sort::number(
    "fan-energy",
    "discharge fan elec energy sensor hisTotalized",
    "kWh",
    100.0,
    FROM_ZERO,
    |v, i| v.memory.totals[i].value,
);
