//! Faults by schedule.

use super::{
    MAX_FAULTS,
    check::{fail, number},
};
use crate::{
    description::{At, Description, Fault, FaultSort, ValveSort},
    design::Design,
    fault::{Faulty, Leak, Period, SensorFault, Valve},
    mistake::Mistake,
    sensor::Sensor,
};
use domain::{Timestamp, device_type::Kind};
use std::collections::BTreeMap;

/// Faulty sensors and leaking valves; marks the sensors concerned.
pub(super) fn faults(
    description: &Description,
    design: &Design,
    sensors: &mut [Sensor],
) -> Result<(Vec<Faulty>, Vec<Leak>), Mistake> {
    let (mut faulty, mut leaks) = (Vec::new(), Vec::new());
    if let Some(extra) = description.faults.get(MAX_FAULTS) {
        return fail(extra, "faults", format!("expected at most {MAX_FAULTS} faults"));
    }
    let points: BTreeMap<String, usize> =
        sensors.iter().enumerate().map(|(i, sensor)| (sensor.key.clone(), i)).collect();
    for given in &description.faults {
        let fault = &given.value;
        let period = period(fault)?;
        if fault.sort == FaultSort::LeakingValve {
            leaks.push(leak(given, period, design)?);
            continue;
        }
        let Some(at) = &fault.point else {
            return fail(given, "faults.point", "expected the point's key");
        };
        let Some(&point) = points.get(&at.value) else {
            let text = format!("no point {:?}; expected one like ahu-1.mixed-air-temp", at.value);
            return fail(at, "faults.point", text);
        };
        let fault = sensor_fault(given, &sensors[point])?;
        sensors[point].faulty = true;
        faulty.push(Faulty { point, period, fault });
    }
    Ok((faulty, leaks))
}

fn period(fault: &Fault) -> Result<Period, Mistake> {
    let moment = |at: &At<String>, key: &str| {
        let text = format!("{:?} is no moment; expected one like 2026-03-01T08:00:00Z", at.value);
        Timestamp::parse_rfc3339(&at.value).map_or_else(|| fail(at, key, text), Ok)
    };
    let from = moment(&fault.from, "faults.from")?;
    let Some(at) = &fault.to else { return Ok(Period { from, to: Timestamp::MAX }) };
    let to = moment(at, "faults.to")?;
    if from < to {
        return Ok(Period { from, to });
    }
    fail(at, "faults.to", format!("{to} isn't after {from}; expected a later moment"))
}

fn sensor_fault(given: &At<Fault>, sensor: &Sensor) -> Result<SensorFault, Mistake> {
    let fault = &given.value;
    match fault.sort {
        FaultSort::Stuck => Ok(SensorFault::Stuck),
        FaultSort::DropOut | FaultSort::LeakingValve => Ok(SensorFault::DropOut),
        FaultSort::Drift => {
            let Some(at) = &fault.per_day else {
                return fail(given, "faults.per_day", "expected what it is off by more each day");
            };
            if sensor.sort.kind() != Kind::Number || sensor.sort.counts() {
                let text = "only numbers drift, and no totalizer does; expected another point";
                let place = fault.point.as_ref().map_or(at.referenced, |point| point.referenced);
                return Err(Mistake::at(place, "faults.point", text));
            }
            Ok(SensorFault::Drift(number(at, "faults.per_day", -1e6..=1e6, "a day")?))
        }
    }
}

fn leak(given: &At<Fault>, period: Period, design: &Design) -> Result<Leak, Mistake> {
    let fault = &given.value;
    let Some(equip) = &fault.equip else {
        return fail(given, "faults.equip", "expected the key of an air handler or a VAV box");
    };
    let part = match &fault.percent {
        Some(at) => number(at, "faults.percent", 0.0..=100.0, "%")? / 100.0,
        None => 0.1,
    };
    let name = equip.value.as_str();
    let ahu = design.ahus.iter().position(|ahu| ahu.key == name);
    let zone = name.strip_suffix(".vav");
    let zone = zone.and_then(|key| design.zones.iter().position(|zone| zone.key == key));
    let valve = match (ahu, zone, fault.valve.as_ref().map(|valve| valve.value)) {
        (Some(ahu), _, Some(ValveSort::Cooling)) => Valve::AhuCooling(ahu),
        (Some(ahu), _, Some(ValveSort::Heating)) => Valve::AhuHeating(ahu),
        (None, Some(zone), None | Some(ValveSort::Reheat)) => Valve::Reheat(zone),
        (None, None, _) => {
            let text =
                format!("no equipment {name:?}; expected one like ahu-1 or floor-1.east.vav");
            return fail(equip, "faults.equip", text);
        }
        _ => {
            let text = "expected cooling or heating for an air handler, reheat for a VAV box";
            return match &fault.valve {
                Some(valve) => fail(valve, "faults.valve", text),
                None => fail(given, "faults.valve", text),
            };
        }
    };
    Ok(Leak { valve, period, part })
}
