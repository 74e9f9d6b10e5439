//! A building with the entities that hold its readings: from memory to a batch, without I/O.

use building::{Memory, Plan};
use domain::{
    Batch, EntityId, Group, Revision, Sample, Timestamp,
    simulator::{EntityKeys, SimulatorConfig},
};

/// Readings of one message: behind one fsync, and few enough for one small message.
pub const MAX_READINGS: usize = 4_096;
/// Most points of one building: the readings of one interval fit a message of the stream.
pub const MAX_POINTS: usize = 100_000;

/// Why a configuration can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The description has a mistake.
    #[error("the building's description: {0}")]
    Description(String),
    /// More than one simulator carries.
    #[error("{0} points; one simulator carries {MAX_POINTS}: split the building")]
    TooLarge(usize),
    /// A point has no entity.
    #[error("point {0} has no entity; configure the simulator again")]
    NoEntity(String),
}

/// Reads the description of a configuration.
pub fn plan(config: &SimulatorConfig) -> Result<Plan, Unusable> {
    let plan =
        Plan::read(&config.building).map_err(|error| Unusable::Description(error.to_string()))?;
    match plan.points().len() {
        points if points > MAX_POINTS => Err(Unusable::TooLarge(points)),
        _ => Ok(plan),
    }
}

/// A building that can be run.
pub struct Simulated {
    plan: Plan,
    /// The entity of each point.
    entities: Vec<EntityId>,
}

/// Readings of one or more intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Produced {
    /// They themselves.
    pub batch: Batch,
    /// How many.
    pub readings: usize,
    /// Of how many intervals.
    pub intervals: u32,
}

impl Simulated {
    /// Gives each point its entity.
    pub fn new(plan: Plan, keys: &EntityKeys) -> Result<Self, Unusable> {
        let entity = |point: &building::Point| {
            let key = &plan.entities()[point.entity].key;
            keys.get(key).copied().ok_or_else(|| Unusable::NoEntity(key.clone()))
        };
        let entities = plan.points().iter().map(entity).collect::<Result<_, _>>()?;
        Ok(Self { plan, entities })
    }

    /// The building.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The time between two reports, in microseconds.
    pub fn interval(&self) -> i64 {
        i64::from(self.plan.interval_minutes()) * 60_000_000
    }

    /// The last boundary that is not after `at`.
    pub fn floor(&self, at: Timestamp) -> Timestamp {
        at.plus_micros(-at.micros().rem_euclid(self.interval()))
    }

    /// The next intervals that are over by `until`, as many as a message holds; none: `None`.
    pub fn produce(&self, memory: &mut Memory, until: Timestamp) -> Option<Produced> {
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
    pub fn skip(&self, memory: &mut Memory, to: Timestamp) {
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
