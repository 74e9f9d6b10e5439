//! One reporting interval: minutes of physics, totalizers, readings.

use crate::{
    balance::Balance, catalog::View, design::Design, memory::Memory, minute::Now, plan::Plan,
    sensor,
};
use domain::{Timestamp, Values};

/// What a totalizer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// Electricity, kWh: all, with the wiring's loss.
    Main,
    /// Fans of the air handlers.
    Hvac,
    Lighting,
    Plugs,
    /// Chillers, pumps, tower.
    Plant,
    /// m³
    Gas,
    /// m³
    Water,
    /// Heat taken out of the air, kWh.
    ChilledWater,
    /// Fan of one air handler, by index.
    Fan(usize),
}

/// A totalizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counter {
    /// Key of its point.
    pub(crate) key: String,
    pub(crate) count: Count,
}

/// m³ of water that a person takes in an hour.
const WATER_A_PERSON: f64 = 0.0035;

/// Sums of one minute that totalizers share, W.
struct Sums {
    lighting: f64,
    plugs: f64,
    hvac: f64,
    plant: f64,
    people: f64,
}

impl Sums {
    fn of(now: &Now) -> Self {
        let zones = |part: fn(&crate::loads::Loads) -> f64| -> f64 {
            now.zones.iter().map(|zone| part(&zone.loads)).sum()
        };
        Self {
            lighting: zones(|loads| loads.lighting),
            plugs: zones(|loads| loads.plugs),
            people: zones(|loads| loads.people),
            hvac: now.ahus.iter().map(|ahu| ahu.fan_power).sum(),
            plant: now.chillers.power + now.boiler.power,
        }
    }

    /// The rate of a totalizer, in its unit an hour.
    fn rate(&self, count: Count, design: &Design, now: &Now) -> f64 {
        let electricity = self.lighting + self.plugs + self.hvac + self.plant;
        match count {
            Count::Main => electricity * (1.0 + design.loss) / 1_000.0,
            Count::Hvac => self.hvac / 1_000.0,
            Count::Lighting => self.lighting / 1_000.0,
            Count::Plugs => self.plugs / 1_000.0,
            Count::Plant => self.plant / 1_000.0,
            Count::Gas => now.boiler.gas * 3_600.0,
            Count::Water => self.people * WATER_A_PERSON + now.chillers.makeup * 3_600.0,
            Count::ChilledWater => now.chillers.load / 1_000.0,
            Count::Fan(index) => now.ahus[index].fan_power / 1_000.0,
        }
    }
}

impl Plan {
    /// Runs one reporting interval: moves `memory.at` on to the next boundary, that is by
    /// [`Plan::interval_minutes`], and gives the readings at that moment, each with the index of
    /// its point in [`Plan::points`], in that order. A sensor that dropped out gives none.
    ///
    /// Memory of another plan is taken over first, as [`Plan::carry_over`] does.
    pub fn step(&self, memory: &mut Memory, emit: impl FnMut(usize, Values)) {
        self.step_with(memory, emit, |_, _| {});
    }

    /// As [`Plan::step`]; besides, `balance` is given each zone's heat balance of each minute, with
    /// the zone's number in the order of [`Plan::entities`].
    pub fn step_with(
        &self,
        memory: &mut Memory,
        mut emit: impl FnMut(usize, Values),
        mut balance: impl FnMut(usize, Balance),
    ) {
        if !self.fits(memory) {
            *memory = self.carry_over(memory);
        }
        let end = self.boundary(memory.at).plus_micros(self.interval_micros());
        let minutes = |at: Timestamp| at.micros().div_euclid(60_000_000);
        let mut now = Now::new(&self.design);
        let mut rates = vec![0.0; self.counters.len()];
        for minute in minutes(memory.at)..minutes(end) {
            now.advance(&self.design, &self.leaks, memory, minute, &mut balance);
            let sums = Sums::of(&now);
            for (index, counter) in self.counters.iter().enumerate() {
                rates[index] = sums.rate(counter.count, &self.design, &now);
                memory.totals[index].value += rates[index] / 60.0;
            }
        }
        memory.at = end;
        let mut stuck = std::mem::take(&mut memory.stuck);
        let view = View { design: &self.design, memory, now: &now, rates: &rates };
        for (point, sensor) in self.sensors.iter().enumerate() {
            let faults = &self.faulty;
            if let Some(values) = sensor::read(sensor, point, faults, &view, &mut stuck, end) {
                emit(point, values);
            }
        }
        memory.stuck = stuck;
    }
}
