//! Points of meters. The number says which totalizer.

use super::{FROM_ZERO, Sort, View};

fn total(view: &View<'_>, index: usize) -> f64 {
    view.memory.totals[index].value
}

fn rate(view: &View<'_>, index: usize) -> f64 {
    view.rates[index]
}

/// An electricity meter.
pub(crate) static ELECTRICITY: [Sort; 2] = [
    Sort::number(
        "energy",
        "elec ac active energy sensor hisTotalized",
        "kWh",
        100.0,
        FROM_ZERO,
        total,
    ),
    Sort::number("power", "elec ac active power sensor", "kW", 100.0, FROM_ZERO, rate)
        .relative(0.002),
];

/// The gas meter.
pub(crate) static GAS: [Sort; 2] = [
    Sort::number("volume", "naturalGas volume sensor hisTotalized", "m³", 100.0, FROM_ZERO, total),
    Sort::number("flow", "naturalGas flow sensor", "m³/h", 100.0, FROM_ZERO, rate).relative(0.005),
];

/// The water meter.
pub(crate) static WATER: [Sort; 2] = [
    Sort::number(
        "volume",
        "domestic water volume sensor hisTotalized",
        "m³",
        1_000.0,
        FROM_ZERO,
        total,
    ),
    Sort::number("flow", "domestic water flow sensor", "m³/h", 1_000.0, FROM_ZERO, rate)
        .relative(0.01),
];

/// The heat meter in the chilled water.
pub(crate) static CHILLED_WATER: [Sort; 2] = [
    Sort::number(
        "energy",
        "chilled water thermal energy sensor hisTotalized",
        "kWh",
        10.0,
        FROM_ZERO,
        total,
    ),
    Sort::number("power", "chilled water thermal power sensor", "kW", 10.0, FROM_ZERO, rate)
        .relative(0.01),
];
