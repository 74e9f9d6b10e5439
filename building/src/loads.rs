//! What people, lights, plugs and the sun give to a zone.

use crate::{
    calendar::{Local, Schedule},
    design::Zone,
    noise::{branch, drift, stream, uniform},
    sun::Irradiance,
};

/// Sensible heat of a person at office work, W (ASHRAE Fundamentals).
const PERSON: f64 = 75.0;
/// Part of the lights that is always on: exits and stairs.
const EMERGENCY: f64 = 0.05;
/// Part of the lights that cleaners put on.
const CLEANING: f64 = 0.5;
/// Part of the plug loads that is never off.
const STANDBY: f64 = 0.3;
/// On a side with more sun than this (W/m²) the blinds come down by and by.
const GLARE: f64 = 250.0;

/// Gains of a zone during a minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Loads {
    /// People there.
    pub(crate) people: f64,
    /// W
    pub(crate) lighting: f64,
    /// W
    pub(crate) plugs: f64,
    /// W
    pub(crate) solar: f64,
}

impl Loads {
    /// Sensible heat of the people, W.
    pub(crate) fn sensible(&self) -> f64 {
        self.people * PERSON
    }

    /// All heat, W.
    pub(crate) fn heat(&self) -> f64 {
        self.sensible() + self.lighting + self.plugs + self.solar
    }

    /// The gains of a zone at a minute.
    pub(crate) fn at(
        zone: &Zone,
        schedule: &Schedule,
        seed: u64,
        minute: i64,
        local: Local,
        sun: &Irradiance,
    ) -> Self {
        let people = people(zone, schedule, seed, minute, local);
        let busy = if zone.people > 0.0 { people / zone.people } else { 0.0 };
        let facing = zone.side.map_or(0.0, |side| sun.sides[side]);
        let turn = uniform(seed, branch(zone.stream, stream("cleaning")), 0);
        // The first to come switches on most of the lights.
        let mut lit = (busy * 4.0).min(1.0) * 0.85 + busy * 0.1;
        lit *= 1.0 - zone.daylight * (facing / GLARE).min(1.0);
        if schedule.is_cleaned(local, turn) {
            lit = lit.max(CLEANING);
        }
        let blinds = 1.0 - 0.4 * ((facing - GLARE) / GLARE).clamp(0.0, 1.0);
        let wobble = 0.03 * drift(seed, branch(zone.stream, stream("plugs")), minute, 23);
        let used = STANDBY + (0.95 - STANDBY) * busy;
        Self {
            people,
            lighting: zone.lighting * (EMERGENCY + (1.0 - EMERGENCY) * lit),
            plugs: zone.plugs * (used * (1.0 + wobble)).clamp(0.0, 1.0),
            solar: facing * (zone.sun_glass * blinds + zone.sun_wall)
                + sun.horizontal * zone.sun_roof,
        }
    }
}

/// People in a zone. Each zone keeps its own hours, each day is a bit different, and people move.
fn people(zone: &Zone, schedule: &Schedule, seed: u64, minute: i64, local: Local) -> f64 {
    let own = |name| branch(zone.stream, stream(name));
    let day = i64::from(local.day);
    let shift = 40.0 * uniform(seed, own("hours"), 0) + 20.0 * uniform(seed, own("late"), day);
    let present = schedule.presence(local, shift as i32 - 30);
    if present <= 0.0 {
        return 0.0;
    }
    let share = 0.6 + 0.3 * uniform(seed, own("share"), day);
    let move_about = 1.0 + 0.12 * drift(seed, own("moves"), minute, 31);
    (zone.people * (present * share * move_about).clamp(0.0, 1.0) + 0.5).floor()
}
