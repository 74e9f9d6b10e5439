//! Chillers, boiler, meters.

use super::check::{count_in, or};
use crate::{
    description::Description,
    design::{BoilerPlant, ChillerPlant, Climate, Zone},
    mistake::Mistake,
    sizing,
};

/// What a plant may be built for, kW.
const CAPACITY: std::ops::RangeInclusive<f64> = 5.0..=50_000.0;
/// What a pump or fan may take, kW.
const POWER: std::ops::RangeInclusive<f64> = 0.0..=2_000.0;

/// The chilled water plant; capacities left open cover the design load.
pub(super) fn chillers(
    description: &Description,
    zones: &[Zone],
    climate: &Climate,
) -> Result<ChillerPlant, Mistake> {
    let given = &description.chiller_plant;
    let key = |part: &str| format!("chiller_plant.{part}");
    let count =
        given.chillers.as_ref().map_or(Ok(1), |at| count_in(at, &key("chillers"), 1..=2))?;
    let number = f64::from(count);
    let needed = (sizing::cooling(zones, climate) / number / 1_000.0).max(5.0);
    let each = or(&given.capacity, &key("capacity"), needed, CAPACITY, "kW")?;
    let all = each * number;
    let kilowatts =
        |at, part: &str, default| Ok(1_000.0 * or(at, &key(part), default, POWER, "kW")?);
    Ok(ChillerPlant {
        chillers: count as usize,
        capacity: each * 1_000.0,
        cop: or(&given.cop, &key("cop"), 5.4, 1.5..=10.0, "")?,
        supply_temp: or(&given.supply_temp, &key("supply_temp"), 7.0, 4.0..=12.0, "°C")?,
        lockout: or(&given.lockout, &key("lockout"), 12.0, -30.0..=25.0, "°C")?,
        pump: kilowatts(&given.pump, "pump", 0.02 * all)?,
        condenser_pump: kilowatts(&given.condenser_pump, "condenser_pump", 0.018 * each)?,
        tower_fan: kilowatts(&given.tower_fan, "tower_fan", 0.015 * all)?,
    })
}

/// The hot water plant.
pub(super) fn boiler(
    description: &Description,
    zones: &[Zone],
    climate: &Climate,
) -> Result<BoilerPlant, Mistake> {
    let given = &description.boiler_plant;
    let key = |part: &str| format!("boiler_plant.{part}");
    let needed = (sizing::heating(zones, climate) / 1_000.0).max(5.0);
    let capacity = or(&given.capacity, &key("capacity"), needed, CAPACITY, "kW")?;
    let hot = or(&given.supply_hot, &key("supply_hot"), 75.0, 40.0..=90.0, "°C")?;
    let mild = or(&given.supply_mild, &key("supply_mild"), 50.0_f64.min(hot), 35.0..=hot, "°C")?;
    let gas = or(&given.gas_heat, &key("gas_heat"), 10.4, 3.0..=40.0, "kWh/m³")?;
    Ok(BoilerPlant {
        capacity: capacity * 1_000.0,
        efficiency: or(&given.efficiency, &key("efficiency"), 0.88, 0.5..=0.99, "")?,
        supply_hot: hot,
        supply_mild: mild,
        lockout: or(&given.lockout, &key("lockout"), 22.0, 5.0..=40.0, "°C")?,
        gas_heat: gas * 3.6e6,
        pump: 1_000.0 * or(&given.pump, &key("pump"), 0.008 * capacity, POWER, "kW")?,
    })
}

/// What the wiring loses, 0 to 1.
pub(super) fn loss(description: &Description) -> Result<f64, Mistake> {
    Ok(or(&description.meters.loss, "meters.loss", 1.5, 0.0..=20.0, "%")? / 100.0)
}
