//! Air handlers, floors, zones.

use super::{
    MAX_AHUS, MAX_FLOORS, MAX_ZONES,
    check::{Repeat, fail, numbered, or},
    zones::Maker,
};
use crate::{
    description::{self, Description},
    design::{Ahu, Climate, Reset, Zone},
    mistake::Mistake,
    noise::stream,
    sizing,
};
use std::collections::BTreeMap;

/// The air handlers, without zones yet.
pub(super) fn ahus(description: &Description) -> Result<Vec<Ahu>, Mistake> {
    let mut made: Vec<Ahu> = Vec::new();
    for given in &description.ahus {
        let value = &given.value;
        let repeat = Repeat::of(&value.name, value.count.as_ref(), value.first, "ahus")?;
        for n in repeat.numbers {
            let key = numbered(&value.name, n, "ahus.name")?;
            if made.iter().any(|other| other.key == key) {
                return fail(&value.name, "ahus.name", format!("{key} is there twice"));
            }
            made.push(ahu(key, value)?);
            if made.len() > MAX_AHUS {
                return fail(given, "ahus", format!("expected at most {MAX_AHUS} air handlers"));
            }
        }
    }
    Ok(made)
}

fn ahu(key: String, given: &description::Ahu) -> Result<Ahu, Mistake> {
    let path = |part: &str| format!("ahus.{key}.{part}");
    let get = |at, part: &str, default, range, unit| or(at, &path(part), default, range, unit);
    let cold = get(&given.discharge_cold, "discharge_cold", 13.0, 8.0..=20.0, "°C")?;
    let warm = get(&given.discharge_warm, "discharge_warm", 17.0, 8.0..=25.0, "°C")?;
    if let Some(at) = given.discharge_warm.as_ref().filter(|_| warm < cold) {
        return fail(at, &path("discharge_warm"), format!("expected {cold} °C or more"));
    }
    let limit = get(&given.economizer_limit, "economizer_limit", 21.0, 0.0..=35.0, "°C")?;
    let static_pressure =
        get(&given.static_pressure, "static_pressure", 250.0, 50.0..=1_000.0, "Pa")?;
    let clean = get(&given.filter_clean, "filter_clean", 80.0, 10.0..=500.0, "Pa")?;
    Ok(Ahu {
        zones: Vec::new(),
        cold,
        warm: warm.max(cold),
        reset: match given.reset {
            Some(description::Reset::Demand) => Reset::Demand,
            Some(description::Reset::Outdoor) | None => Reset::Outdoor,
        },
        economizer: given.economizer.unwrap_or(true).then_some(limit),
        flow: 0.0,
        static_pressure,
        fan_pressure: get(
            &given.fan_pressure,
            "fan_pressure",
            1_000.0,
            static_pressure..=3_000.0,
            "Pa",
        )?,
        fan_efficiency: get(&given.fan_efficiency, "fan_efficiency", 0.6, 0.1..=0.9, "")?,
        filter_clean: clean,
        filter_dirty: get(&given.filter_dirty, "filter_dirty", 250.0, clean + 1.0..=1_000.0, "Pa")?,
        filter_life: get(&given.filter_hours, "filter_hours", 1_100.0, 10.0..=50_000.0, "hours")?,
        stream: stream(&key),
        key,
    })
}

/// Design flow of the air handlers, and the life of their filters in air.
pub(super) fn size(ahus: &mut [Ahu], zones: &[Zone]) {
    for ahu in ahus {
        let sum: f64 = ahu.zones.iter().map(|index| zones[*index].flow_max).sum();
        ahu.flow = (sum * sizing::DIVERSITY).max(0.01);
        ahu.filter_life *= ahu.flow * 3_600.0;
    }
}

/// Keys of the floors, and all zones.
pub(super) fn zones(
    description: &Description,
    climate: &Climate,
    schedules: &[&String],
    ahus: &mut [Ahu],
) -> Result<(Vec<String>, Vec<Zone>), Mistake> {
    let index: BTreeMap<String, usize> =
        ahus.iter().enumerate().map(|(i, ahu)| (ahu.key.clone(), i)).collect();
    let (mut floors, mut zones): (Vec<String>, Vec<Zone>) = (Vec::new(), Vec::new());
    for (place, given) in description.floors.iter().enumerate() {
        let value = &given.value;
        let repeat = Repeat::of(&value.name, value.count.as_ref(), value.first, "floors")?;
        for n in repeat.numbers.clone() {
            let floor = numbered(&value.name, n, "floors.name")?;
            if floors.contains(&floor) {
                return fail(&value.name, "floors.name", format!("{floor} is there twice"));
            }
            let top = place + 1 == description.floors.len() && n + 1 == repeat.numbers.end;
            let maker =
                Maker { description, climate, schedules, ahus: &index, floor: value, n, top };
            maker.floor(&floor, floors.len(), &mut zones)?;
            floors.push(floor);
            if floors.len() > MAX_FLOORS || zones.len() > MAX_ZONES {
                let text = format!("expected at most {MAX_FLOORS} floors and {MAX_ZONES} zones");
                return fail(given, "floors", text);
            }
        }
    }
    for (i, zone) in zones.iter().enumerate() {
        ahus[zone.ahu].zones.push(i);
    }
    if let Some(idle) = ahus.iter().find(|ahu| ahu.zones.is_empty()) {
        let text = "serves no zone; expected a floor or zone with this `ahu`".to_owned();
        let line =
            description.ahus.first().and_then(|ahu| Some(ahu.referenced.line()).filter(|l| *l > 0));
        return Err(Mistake { line, key: format!("ahus.{}", idle.key), text });
    }
    if zones.is_empty() {
        let text = "expected at least one floor with a zone".to_owned();
        return Err(Mistake { line: None, key: "floors".to_owned(), text });
    }
    Ok((floors, zones))
}
