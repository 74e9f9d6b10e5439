//! How a building begins, and how it goes on after its description changed.

use crate::{
    design::{Ahu, Zone},
    memory::{AhuMemory, AhuMode, BoilerMemory, ChillerMemory, Memory, Total, ZoneMemory},
    noise::{branch, stream, uniform},
    plan::Plan,
    psychrometrics::{humidity_ratio, saturation},
    weather::Weather,
};
use domain::Timestamp;
use std::collections::BTreeMap;

impl Plan {
    /// The memory of a building that starts at a boundary: `at`, or the last one before it. Rooms
    /// start near their setpoint, equipment off, totalizers at 0.
    pub fn begin(&self, seed: u64, at: Timestamp) -> Memory {
        let at = self.boundary(at);
        let minute = at.micros().div_euclid(60_000_000);
        let weather = Weather::at(&self.design.climate, seed, minute);
        let chance = |name| uniform(seed, stream(name), 0);
        let ago = |name, minutes: f64| minute - (chance(name) * minutes) as i64;
        let start = |zone: &Zone| self.begin_zone(zone, seed, &weather);
        Memory {
            at,
            seed,
            zones: self.design.zones.iter().map(start).collect(),
            ahus: self.design.ahus.iter().map(|ahu| begin_ahu(ahu, seed, minute)).collect(),
            chillers: ChillerMemory {
                supply: 18.0,
                tower: weather.wet_bulb.max(5.0),
                stage: 0,
                since: minute - 60,
                starts: [ago("chiller.one", 20_000.0), ago("chiller.two", 40_000.0)],
                running: [false; 2],
            },
            boiler: BoilerMemory {
                supply: 30.0,
                on: false,
                since: minute - 60,
                start: ago("boiler", 20_000.0),
            },
            totals: self
                .counters
                .iter()
                .map(|counter| Total { key: counter.key.clone(), value: 0.0 })
                .collect(),
            stuck: BTreeMap::new(),
        }
    }

    fn begin_zone(&self, zone: &Zone, seed: u64, weather: &Weather) -> ZoneMemory {
        let goal = &self.design.setpoints;
        let chance = uniform(seed, branch(zone.stream, stream("begin")), 0);
        let temp = goal.heating + (goal.cooling - goal.heating) * (0.2 + 0.6 * chance);
        let pressure = self.design.climate.pressure;
        let damp = humidity_ratio(0.6 * saturation(temp), pressure);
        ZoneMemory {
            key: zone.key.clone(),
            temp,
            co2: 450.0,
            moisture: weather.moisture.min(damp),
            damper: 0.0,
            reheat: 0.0,
        }
    }

    /// Takes over the memory of an earlier description: what is still there by its key goes on,
    /// totalizers included; what is new begins as in [`Plan::begin`]. The moment stays as it is;
    /// where the new interval has no boundary there, the first step is shorter.
    pub fn carry_over(&self, memory: &Memory) -> Memory {
        let mut next = self.begin(memory.seed, memory.at);
        next.at = memory.at;
        keep(&mut next.zones, &memory.zones, |zone| &zone.key);
        keep(&mut next.ahus, &memory.ahus, |ahu| &ahu.key);
        keep(&mut next.totals, &memory.totals, |total| &total.key);
        next.chillers = memory.chillers.clone();
        let installed = self.design.chillers.chillers;
        for gone in installed..next.chillers.running.len() {
            next.chillers.running[gone] = false;
        }
        next.chillers.stage = next.chillers.running.iter().filter(|runs| **runs).count();
        next.boiler = memory.boiler.clone();
        let here = |key: &String| self.sensors.iter().any(|sensor| sensor.key == *key);
        next.stuck = memory.stuck.clone();
        next.stuck.retain(|key, _| here(key));
        next
    }

    /// Whether a memory is this plan's.
    pub(crate) fn fits(&self, memory: &Memory) -> bool {
        let (zones, ahus) = (&self.design.zones, &self.design.ahus);
        zones.len() == memory.zones.len()
            && ahus.len() == memory.ahus.len()
            && self.counters.len() == memory.totals.len()
            && !memory.chillers.running.iter().skip(self.design.chillers.chillers).any(|runs| *runs)
            && zones.iter().zip(&memory.zones).all(|(plan, state)| plan.key == state.key)
            && ahus.iter().zip(&memory.ahus).all(|(plan, state)| plan.key == state.key)
            && self.counters.iter().zip(&memory.totals).all(|(plan, state)| plan.key == state.key)
    }
}

fn begin_ahu(ahu: &Ahu, seed: u64, minute: i64) -> AhuMemory {
    let dust = uniform(seed, branch(ahu.stream, stream("dust")), 0);
    AhuMemory {
        key: ahu.key.clone(),
        mode: AhuMode::Off,
        economizer: false,
        setpoint: ahu.warm,
        discharge: 21.0,
        mixed: 21.0,
        damper: 0.0,
        cooling: 0.0,
        heating: 0.0,
        dust: 0.9 * dust,
        // A filter lasts about half a year.
        filter_changed: minute - (dust * 160.0) as i64 * 1_440,
    }
}

/// Puts what was there before in the place of what begins.
fn keep<T: Clone>(next: &mut [T], before: &[T], key: impl Fn(&T) -> &String) {
    let known: BTreeMap<&String, &T> = before.iter().map(|item| (key(item), item)).collect();
    for item in next {
        if let Some(same) = known.get(key(item)) {
            *item = (*same).clone();
        }
    }
}
