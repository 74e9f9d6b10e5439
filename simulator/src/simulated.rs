//! A building with the entities that hold its readings: from memory to a batch, without I/O.

use building::{Memory, Plan};
use domain::{Batch, EntityId, Group, Revision, Sample, Timestamp, simulator::EntityKeys};

/// Readings of one message: behind one fsync, and few enough for one small message.
const MAX_READINGS: usize = 4_096;

/// A point has no entity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("point {0} has no entity; configure the simulator again")]
pub(crate) struct NoEntity(String);

/// A building that can be run.
pub(crate) struct Simulated {
    plan: Plan,
    /// The entity of each point.
    entities: Vec<EntityId>,
}

/// Readings of one or more intervals.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Produced {
    /// They themselves.
    pub(crate) batch: Batch,
    /// How many.
    pub(crate) readings: usize,
    /// Of how many intervals.
    pub(crate) intervals: u32,
}

impl Simulated {
    /// Gives each point its entity.
    pub(crate) fn new(plan: Plan, keys: &EntityKeys) -> Result<Self, NoEntity> {
        let entity = |point: &building::Point| {
            let key = &plan.entities()[point.entity].key;
            keys.get(key).copied().ok_or_else(|| NoEntity(key.clone()))
        };
        let entities = plan.points().iter().map(entity).collect::<Result<_, _>>()?;
        Ok(Self { plan, entities })
    }

    /// The building.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The time between two reports, in microseconds.
    pub(crate) fn interval(&self) -> i64 {
        i64::from(self.plan.interval_minutes()) * 60_000_000
    }

    /// The last boundary that is not after `at`.
    pub(crate) fn floor(&self, at: Timestamp) -> Timestamp {
        at.plus_micros(-at.micros().rem_euclid(self.interval()))
    }

    /// The next intervals that are over by `until`, as many as a message holds; none: `None`.
    pub(crate) fn produce(&self, memory: &mut Memory, until: Timestamp) -> Option<Produced> {
        let mut samples = Vec::new();
        let mut intervals = 0;
        while memory.at.plus_micros(self.interval()) <= until
            && (intervals == 0 || samples.len() + self.entities.len() <= MAX_READINGS)
        {
            self.step(memory, &mut samples);
            intervals += 1;
        }
        if intervals == 0 {
            return None;
        }
        let readings = samples.len();
        let group = Group {
            origin: None,
            revision: Revision(0),
            device: None,
            profile_version: 0,
            samples,
        };
        let batch = Batch { groups: vec![group], ..Batch::default() };
        Some(Produced { batch, readings, intervals })
    }

    /// Goes on to `to` without a word: what was made there is stored already.
    pub(crate) fn skip(&self, memory: &mut Memory, to: Timestamp) {
        while memory.at < to {
            self.plan.step(memory, |_, _| {});
        }
    }

    fn step(&self, memory: &mut Memory, samples: &mut Vec<Sample>) {
        let ts = memory.at.plus_micros(self.interval());
        self.plan.step(memory, |point, values| {
            samples.push(Sample { entity: self.entities[point], ts, values });
        });
    }
}
