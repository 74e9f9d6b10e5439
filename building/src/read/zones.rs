//! The zones of a floor.

use super::check::{NAME, fail, is_name, number, or};
use crate::{
    description::{self, At, Description, Side},
    design::{Climate, Zone},
    mistake::Mistake,
    noise::stream,
    sizing,
};
use std::collections::BTreeMap;

/// Part of what falls on a wall that gets in, over its U-value: absorbed over the film's
/// conductance, m²·K/W (ASHRAE Fundamentals, sol-air temperature).
const SOL_AIR: f64 = 0.035;

/// Makes the zones of one floor.
pub(super) struct Maker<'a> {
    pub(super) description: &'a Description,
    pub(super) climate: &'a Climate,
    pub(super) schedules: &'a [&'a String],
    pub(super) ahus: &'a BTreeMap<String, usize>,
    pub(super) floor: &'a description::Floor,
    pub(super) n: u32,
    /// Whether the roof is above.
    pub(super) top: bool,
}

impl Maker<'_> {
    /// Adds the floor's zones, in the order of their names.
    pub(super) fn floor(
        &self,
        floor: &str,
        index: usize,
        zones: &mut Vec<Zone>,
    ) -> Result<(), Mistake> {
        let height =
            or(&self.floor.height, &format!("floors.{floor}.height"), 2.8, 2.0..=20.0, "m")?;
        for (name, given) in &self.floor.zones {
            let path = format!("floors.{floor}.zones.{name}");
            if !is_name(name) {
                return fail(given, &path, format!("{name:?} is no name; {NAME}"));
            }
            zones.push(self.zone(format!("{floor}.{name}"), &path, index, height, given)?);
        }
        Ok(())
    }

    fn zone(
        &self,
        key: String,
        path: &str,
        floor: usize,
        height: f64,
        given: &At<description::Zone>,
    ) -> Result<Zone, Mistake> {
        let (value, shell, loads) =
            (&given.value, &self.description.envelope, &self.description.loads);
        let get = |at, part: &str, default, range, unit| {
            or(at, &format!("{path}.{part}"), default, range, unit)
        };
        let area = number(&value.area, &format!("{path}.area"), 2.0..=20_000.0, "m²")?;
        let wall = get(&value.wall, "wall", 0.0, 0.0..=20_000.0, "m²")?;
        let glass = get(&value.glass, "glass", 0.0, 0.0..=20_000.0, "m²")?;
        if let (None, Some(at)) = (value.faces, value.glass.as_ref().or(value.wall.as_ref())) {
            return fail(
                at,
                &format!("{path}.faces"),
                "wall and glass need a side; expected `faces`",
            );
        }
        let people = get(&value.people, "people", area / 18.0, 0.0..=5_000.0, "people")?;
        let wall_u = or(&shell.wall_u, "envelope.wall_u", 0.4, 0.05..=5.0, "W/(m²·K)")?;
        let glass_u = or(&shell.glass_u, "envelope.glass_u", 1.8, 0.3..=7.0, "W/(m²·K)")?;
        let roof_u = or(&shell.roof_u, "envelope.roof_u", 0.25, 0.05..=5.0, "W/(m²·K)")?;
        let shgc = or(&shell.glass_shgc, "envelope.glass_shgc", 0.35, 0.0..=1.0, "")?;
        let leak = or(&shell.infiltration, "envelope.infiltration", 0.25, 0.0..=5.0, "changes/h")?;
        let heat =
            or(&shell.heat_capacity, "envelope.heat_capacity", 165.0, 20.0..=1_000.0, "kJ/(m²·K)")?;
        let light = or(&loads.lighting, "loads.lighting", 8.5, 0.0..=100.0, "W/m²")?;
        let plug = or(&loads.plugs, "loads.plugs", 9.0, 0.0..=500.0, "W/m²")?;
        let daylight = or(&loads.daylight_saving, "loads.daylight_saving", 40.0, 0.0..=100.0, "%")?;
        let roof = if self.top { area } else { 0.0 };
        let ventilation = 0.0025 * people + 0.0003 * area;
        let mut zone = Zone {
            floor,
            ahu: self.ahu(value, path, given)?,
            schedule: self.schedule(value, path, given)?,
            area,
            volume: area * height,
            side: value.faces.map(side),
            capacity: heat * 1_000.0 * area,
            envelope: wall * wall_u + glass * glass_u + roof * roof_u,
            coupling: 0.7 * area,
            sun_glass: glass * shgc,
            sun_wall: wall * wall_u * SOL_AIR,
            sun_roof: roof * roof_u * SOL_AIR,
            // Design values hold at 4.47 m/s (DOE-2's coefficients in EnergyPlus).
            infiltration: if wall > 0.0 { leak * area * height / 3_600.0 * 0.224 } else { 0.0 },
            people,
            lighting: area * get(&value.lighting, "lighting", light, 0.0..=100.0, "W/m²")?,
            plugs: area * get(&value.plugs, "plugs", plug, 0.0..=500.0, "W/m²")?,
            daylight: if glass > 0.0 { daylight / 100.0 } else { 0.0 },
            flow_max: 0.0,
            flow_min: 0.0,
            flow_heat: 0.0,
            // A fifth is lost on its way to where people are (ASHRAE 62.1).
            ventilation: ventilation / 0.8,
            stream: stream(&key),
            key,
        };
        let given = value.airflow.as_ref().map(|at| {
            number(at, &format!("{path}.airflow"), 5.0..=100_000.0, "L/s").map(|l| l / 1_000.0)
        });
        (zone.flow_max, zone.flow_heat) = sizing::flows(&zone, self.climate, given.transpose()?);
        zone.flow_min = (0.2 * zone.flow_max).max(zone.ventilation).min(zone.flow_heat);
        Ok(zone)
    }

    fn ahu(
        &self,
        zone: &description::Zone,
        path: &str,
        place: &At<description::Zone>,
    ) -> Result<usize, Mistake> {
        let key = format!("{path}.ahu");
        let Some(at) = zone.ahu.as_ref().or(self.floor.ahu.as_ref()) else {
            if self.ahus.len() == 1 {
                return Ok(0);
            }
            return fail(place, &key, "expected the air handler's name, here or at the floor");
        };
        let name = at.value.replace("{n}", &self.n.to_string());
        let known: Vec<&str> = self.ahus.keys().map(String::as_str).take(10).collect();
        let text = || format!("no air handler {name:?}; expected one of {}", known.join(", "));
        self.ahus.get(&name).copied().map_or_else(|| fail(at, &key, text()), Ok)
    }

    fn schedule(
        &self,
        zone: &description::Zone,
        path: &str,
        place: &At<description::Zone>,
    ) -> Result<usize, Mistake> {
        let key = format!("{path}.schedule");
        let Some(at) = zone.schedule.as_ref().or(self.floor.schedule.as_ref()) else {
            if self.schedules.len() == 1 {
                return Ok(0);
            }
            return fail(place, &key, "expected the schedule's name, here or at the floor");
        };
        let known: Vec<&str> = self.schedules.iter().map(|name| name.as_str()).collect();
        let text = || format!("no schedule {:?}; expected one of {}", at.value, known.join(", "));
        self.schedules
            .iter()
            .position(|name| **name == at.value)
            .map_or_else(|| fail(at, &key, text()), Ok)
    }
}

/// Clockwise from north in eighths.
fn side(side: Side) -> usize {
    side as usize
}
