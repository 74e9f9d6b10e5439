//! One minute of the whole building: weather, loads, modes and boxes; [`crate::equipment`] does the
//! rest.

use crate::{
    ahu::{AhuNow, Return},
    balance::Balance,
    boiler::BoilerNow,
    calendar::{Local, local},
    chiller::ChillerNow,
    design::Design,
    fault::Leak,
    loads::Loads,
    memory::{AhuMode, Memory},
    mode::{self, Call},
    vav::{self, Demand, Need, VavMode},
    weather::Weather,
    zone::SupplyAir,
};
use domain::Timestamp;

/// What happens during a minute, as the sensors see it at its end. Nothing in here is needed for
/// the next minute: that is in [`Memory`].
#[derive(Debug, Default)]
pub(crate) struct Now {
    pub(crate) weather: Weather,
    pub(crate) local: Option<Local>,
    pub(crate) zones: Vec<ZoneNow>,
    pub(crate) ahus: Vec<AhuNow>,
    pub(crate) returns: Vec<Return>,
    /// Mean temperature of each floor, °C.
    pub(crate) floors: Vec<f64>,
    pub(crate) chillers: ChillerNow,
    pub(crate) boiler: BoilerNow,
}

/// What happens in a zone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ZoneNow {
    pub(crate) loads: Loads,
    pub(crate) demand: Demand,
    pub(crate) mode: VavMode,
    pub(crate) supply: SupplyAir,
    /// Heat of the reheat coil, W.
    pub(crate) reheat: f64,
}

impl Now {
    pub(crate) fn new(design: &Design) -> Self {
        Self {
            zones: vec![ZoneNow::default(); design.zones.len()],
            ahus: vec![AhuNow::default(); design.ahus.len()],
            returns: vec![Return::default(); design.ahus.len()],
            floors: vec![0.0; design.floors],
            ..Self::default()
        }
    }

    /// Moves the building on by the minute that starts `minute` minutes after 1970 UTC.
    pub(crate) fn advance(
        &mut self,
        design: &Design,
        leaks: &[Leak],
        memory: &mut Memory,
        minute: i64,
        balance: &mut impl FnMut(usize, Balance),
    ) {
        let at = Timestamp::EPOCH.plus_micros(minute.saturating_mul(60_000_000));
        let leaks: &[Leak] = if leaks.iter().any(|l| l.period.holds(at)) { leaks } else { &[] };
        let clock = local(design.climate.time_zone, minute);
        self.weather = Weather::at(&design.climate, memory.seed, minute);
        self.local = Some(clock);
        self.loads(design, memory, minute, clock);
        Self::modes(design, memory, clock);
        self.floors(design, memory);
        self.boxes(design, memory, clock);
        self.air_handlers(design, memory, leaks, at);
        Self::filters(design, memory, minute, clock);
        self.rooms(design, memory, leaks, at, balance);
        self.water(design, memory, minute);
    }

    fn loads(&mut self, design: &Design, memory: &Memory, minute: i64, clock: Local) {
        for (zone, now) in design.zones.iter().zip(&mut self.zones) {
            let schedule = &design.schedules[zone.schedule];
            let sun = &self.weather.sun;
            now.loads = Loads::at(zone, schedule, memory.seed, minute, clock, sun);
        }
    }

    fn modes(design: &Design, memory: &mut Memory, clock: Local) {
        for (ahu, state) in design.ahus.iter().zip(&mut memory.ahus) {
            let mut call = Call { cold: -99.0, hot: -99.0, ..Call::default() };
            for &index in &ahu.zones {
                let schedule = &design.schedules[design.zones[index].schedule];
                let (temp, goal) = (memory.zones[index].temp, &design.setpoints);
                call.occupied |= schedule.is_occupied(clock);
                // Half an hour of lead for each degree that is missing.
                let missing = (goal.heating - temp).max(temp - goal.cooling).max(0.5);
                let lead = f64::from(schedule.warmup).min(30.0 * missing) as i32;
                call.make_ready |= schedule.until_occupied(clock).is_some_and(|left| left <= lead);
                call.cold = call.cold.max(goal.setback - temp);
                call.hot = call.hot.max(temp - goal.setup);
            }
            // Once begun, making ready goes on until working hours.
            let soon = |zone: &usize| {
                let schedule = &design.schedules[design.zones[*zone].schedule];
                schedule.until_occupied(clock).is_some_and(|left| left <= schedule.warmup)
            };
            call.make_ready |= state.mode == AhuMode::WarmUp && ahu.zones.iter().any(soon);
            state.mode = mode::next_mode(state.mode, &call);
        }
    }

    /// Mean temperature of each floor, weighted by how well its zones are coupled to it.
    fn floors(&mut self, design: &Design, memory: &Memory) {
        self.floors.fill(0.0);
        let mut weights = 0.0;
        for (index, zone) in design.zones.iter().enumerate() {
            weights += zone.coupling;
            self.floors[zone.floor] += zone.coupling * memory.zones[index].temp;
            // A floor's zones stand together.
            if design.zones.get(index + 1).is_none_or(|next| next.floor != zone.floor) {
                self.floors[zone.floor] /= weights;
                weights = 0.0;
            }
        }
    }

    fn boxes(&mut self, design: &Design, memory: &mut Memory, clock: Local) {
        self.returns.fill(Return::default());
        for (index, zone) in design.zones.iter().enumerate() {
            let (state, now) = (&mut memory.zones[index], &mut self.zones[index]);
            let mode = memory.ahus[zone.ahu].mode;
            let need = match mode {
                AhuMode::WarmUp => Need::Comfort,
                _ if design.schedules[zone.schedule].is_occupied(clock) => Need::Comfort,
                AhuMode::NightHeating => Need::Lift,
                _ => Need::Rest,
            };
            now.demand = Demand::of(zone, &design.setpoints, memory.seed, need, state.temp);
            now.mode = vav::control(zone, state, &now.demand, mode != AhuMode::Off);
            now.supply.flow = state.damper * zone.flow_max;
            let back = &mut self.returns[zone.ahu];
            // Off, there is no flow to weigh with; the smallest flow stands in.
            let weight = if mode == AhuMode::Off { zone.flow_min } else { now.supply.flow };
            back.flow += weight;
            back.temp += weight * state.temp;
            back.co2 += weight * state.co2;
            back.moisture += weight * state.moisture;
            back.ventilation += zone.ventilation;
            back.most_cooling = back.most_cooling.max(now.demand.cooling);
            back.mean_heating += now.demand.heating / design.ahus[zone.ahu].zones.len() as f64;
        }
        for (back, state) in self.returns.iter_mut().zip(&memory.ahus) {
            let flow = back.flow.max(1e-9);
            (back.temp, back.co2, back.moisture) =
                (back.temp / flow, back.co2 / flow, back.moisture / flow);
            if state.mode == AhuMode::Off {
                back.flow = 0.0;
            }
        }
    }
}
