//! A building made from its description, ready to run.

use crate::{
    calendar::day_number,
    design::Design,
    entity::{Entity, Point},
    fault::{Faulty, Leak},
    mistake::Mistake,
    sensor::Sensor,
    step::Counter,
    summary::Summary,
};
use domain::Timestamp;

/// A building made from its description, ready to run. Immutable: what changes is its
/// [`crate::Memory`].
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) seed: u64,
    pub(crate) interval: u32,
    pub(crate) design: Design,
    pub(crate) entities: Vec<Entity>,
    pub(crate) points: Vec<Point>,
    /// One for each point.
    pub(crate) sensors: Vec<Sensor>,
    /// One for each totalizer.
    pub(crate) counters: Vec<Counter>,
    pub(crate) faulty: Vec<Faulty>,
    pub(crate) leaks: Vec<Leak>,
}

impl Plan {
    /// Reads a description (YAML; `docs/building.md` lists its keys).
    pub fn read(text: &str) -> Result<Self, Mistake> {
        crate::read::plan(text)
    }

    /// The seed that the description names; 1 where it names none. [`Plan::begin`] takes any.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Minutes from one report to the next; they divide a day.
    pub fn interval_minutes(&self) -> u32 {
        self.interval
    }

    /// Site, floors, zones, equipment, points; parents before children.
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }

    /// The points in the order in which [`Plan::step`] gives their readings.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Counts of entities and points.
    pub fn summary(&self) -> Summary {
        Summary::of(&self.entities, &self.points)
    }

    /// The interval in microseconds.
    pub(crate) fn interval_micros(&self) -> i64 {
        i64::from(self.interval) * 60_000_000
    }

    /// The last boundary at or before a moment.
    pub(crate) fn boundary(&self, at: Timestamp) -> Timestamp {
        at.plus_micros(-at.micros().rem_euclid(self.interval_micros()))
    }
}

/// Days since 1970-01-01 of a date written `2026-12-24`.
pub(crate) fn date(text: &str) -> Option<i32> {
    chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(day_number)
}
