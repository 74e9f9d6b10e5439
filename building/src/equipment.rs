//! The second half of a minute: air handlers, rooms, plants, each with what the one before gave.

use crate::{
    ahu::{self, AhuNow, Leaks, Water},
    balance::Balance,
    boiler,
    calendar::Local,
    chiller,
    design::Design,
    fault::{Leak, Valve},
    memory::{AhuMemory, Memory},
    minute::Now,
    vav,
    zone::{self, Around},
};
use domain::Timestamp;

/// Water at the coils.
fn water(memory: &Memory) -> Water {
    Water {
        chilled: (memory.chillers.stage > 0).then_some(memory.chillers.supply),
        hot: memory.boiler.on.then_some(memory.boiler.supply),
    }
}

fn leak(leaks: &[Leak], at: Timestamp, valve: Valve) -> f64 {
    let there = leaks.iter().filter(|leak| leak.valve == valve && leak.period.holds(at));
    there.fold(0.0, |most, leak| leak.part.max(most))
}

/// Whether a valve asks for water.
fn calls(valve: f64) -> bool {
    valve > 0.1
}

impl Now {
    /// Mixing, coils and fans.
    pub(crate) fn air_handlers(
        &mut self,
        design: &Design,
        memory: &mut Memory,
        leaks: &[Leak],
        at: Timestamp,
    ) {
        let water = water(memory);
        for (index, ahu) in design.ahus.iter().enumerate() {
            let leaking = Leaks {
                cooling: leak(leaks, at, Valve::AhuCooling(index)),
                heating: leak(leaks, at, Valve::AhuHeating(index)),
            };
            let (state, back) = (&mut memory.ahus[index], &self.returns[index]);
            self.ahus[index] =
                ahu::advance(ahu, state, &design.climate, &self.weather, back, water, leaking);
        }
    }

    /// Dirty filters are changed at ten in the morning of a working day.
    pub(crate) fn filters(design: &Design, memory: &mut Memory, minute: i64, clock: Local) {
        let due = |state: &AhuMemory| clock.minute == 600 && state.dust >= 1.0;
        for (ahu, state) in design.ahus.iter().zip(&mut memory.ahus) {
            let schedule = ahu.zones.first().map(|zone| design.zones[*zone].schedule);
            let works = schedule.is_some_and(|index| design.schedules[index].works_on(clock.day));
            if due(state) && works {
                (state.dust, state.filter_changed) = (0.0, minute);
            }
        }
    }

    /// Reheat and rooms.
    pub(crate) fn rooms(
        &mut self,
        design: &Design,
        memory: &mut Memory,
        leaks: &[Leak],
        at: Timestamp,
        balance: &mut impl FnMut(usize, Balance),
    ) {
        let hot = water(memory).hot;
        for (index, zone) in design.zones.iter().enumerate() {
            let (state, now) = (&mut memory.zones[index], &mut self.zones[index]);
            let (ahu, air) = (&self.ahus[zone.ahu], &memory.ahus[zone.ahu]);
            if !ahu.on {
                now.supply.flow = 0.0;
            }
            let part = leak(leaks, at, Valve::Reheat(index));
            now.supply.temp = vav::reheat(state, air.discharge, hot, part);
            (now.supply.co2, now.supply.moisture) = (ahu.co2, ahu.moisture);
            let heat = now.supply.flow * design.climate.heat_capacity;
            now.reheat = heat * (now.supply.temp - air.discharge);
            let around = Around {
                weather: &self.weather,
                floor: self.floors[zone.floor],
                air_heat: design.climate.heat_capacity,
                density: design.climate.density,
            };
            balance(index, zone::advance(zone, state, &now.loads, &now.supply, &around));
        }
    }

    /// The plants, with what coils took from them.
    pub(crate) fn water(&mut self, design: &Design, memory: &mut Memory, minute: i64) {
        let on =
            |(now, state): (&AhuNow, &AhuMemory)| (now.on && calls(state.cooling), now.cooling);
        let units = self.ahus.iter().zip(&memory.ahus).map(on);
        let (called, load) = units.fold((false, 0.0), |(c, l), (call, w)| (c | call, l + w));
        let (weather, plant) = (&self.weather, &mut memory.chillers);
        self.chillers = chiller::advance(&design.chillers, plant, minute, weather, called, load);

        let mut called = self.ahus.iter().zip(&memory.ahus).any(|(n, a)| n.on && calls(a.heating));
        called |= memory.zones.iter().any(|zone| calls(zone.reheat));
        let load = self.ahus.iter().map(|ahu| ahu.heating).sum::<f64>()
            + self.zones.iter().map(|zone| zone.reheat).sum::<f64>();
        let (weather, plant) = (&self.weather, &mut memory.boiler);
        self.boiler = boiler::advance(&design.boiler, plant, minute, weather, called, load);
    }
}
