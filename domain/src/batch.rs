//! Normalized readings on their way to the targets.

use crate::{
    DeviceId, EntityId, Origin, OriginStream, Revision, Timestamp, chunk::Ended,
    deletion::Deletion, presence::Presence,
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

/// Longest text value, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// The value columns of a row. Usually one is set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Values {
    /// Column `value_n`.
    pub n: Option<f64>,
    /// Column `value_b`.
    pub b: Option<bool>,
    /// Column `value_s`.
    pub s: Option<Box<str>>,
    /// Column `value_ts`.
    pub ts: Option<Timestamp>,
}

impl Values {
    /// A number.
    pub fn number(n: f64) -> Self {
        Self { n: Some(n), ..Self::default() }
    }
    /// A boolean.
    pub fn boolean(b: bool) -> Self {
        Self { b: Some(b), ..Self::default() }
    }
    /// A text.
    pub fn text(s: impl Into<Box<str>>) -> Self {
        Self { s: Some(s.into()), ..Self::default() }
    }
    /// A moment.
    pub fn time(ts: Timestamp) -> Self {
        Self { ts: Some(ts), ..Self::default() }
    }
}

/// One value of one entity at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Whose value.
    pub entity: EntityId,
    /// When it was so.
    pub ts: Timestamp,
    /// What it was.
    pub values: Values,
}

/// Readings that came in one device message (or one batch of a simulator or API client) and so
/// share a version. Within a group the last value for a key counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Where it first entered the platform; absent means "this stream message, index 0".
    pub origin: Option<Origin>,
    /// 0 live, else a replay's number.
    pub revision: Revision,
    /// The device that sent it, where one did.
    pub device: Option<DeviceId>,
    /// The version of the device type that normalized it; 0 where none did.
    pub profile_version: u32,
    /// The readings.
    pub samples: Vec<Sample>,
}

/// The body of a message in `TELEMETRY`: readings and deletions of one org.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Batch {
    /// Readings.
    pub groups: Vec<Group>,
    /// Tombstones and removals.
    pub deletions: Vec<Deletion>,
    /// Gateways' transactions that have ended.
    #[serde(default)]
    pub transactions: Vec<Ended>,
    /// Which devices are there.
    #[serde(default)]
    pub presences: Vec<Presence>,
}

impl Serialize for Batch {
    /// Fields stand by their place, and the last ones are left out while they are empty: most batches
    /// are as they were before there were such fields.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { groups, deletions, transactions, presences } = self;
        let fields = match (transactions.is_empty(), presences.is_empty()) {
            (_, false) => 4,
            (false, true) => 3,
            (true, true) => 2,
        };
        let mut batch = serializer.serialize_struct("Batch", fields)?;
        batch.serialize_field("groups", groups)?;
        batch.serialize_field("deletions", deletions)?;
        if fields > 2 {
            batch.serialize_field("transactions", transactions)?;
        }
        if fields > 3 {
            batch.serialize_field("presences", presences)?;
        }
        batch.end()
    }
}

/// Where a message stands in its stream: what gives its groups their origin where they have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its sequence.
    pub sequence: u64,
    /// When the stream stored it, cut to microseconds.
    pub stored_at: Timestamp,
}

impl Position {
    /// The origin of what first entered the platform here, in `TELEMETRY`.
    pub fn as_origin(self) -> Origin {
        Origin {
            stream: OriginStream::Telemetry,
            sequence: self.sequence,
            index: 0,
            accepted_at: self.stored_at,
        }
    }
}

impl Batch {
    /// The oldest acceptance among what the batch carries; `None` where all of it enters here.
    pub fn oldest_accepted(&self) -> Option<Timestamp> {
        let groups = self.groups.iter().map(|group| group.origin);
        let deletions = self.deletions.iter().map(|deletion| deletion.origin);
        let presences = self.presences.iter().map(|presence| Some(presence.origin));
        groups.chain(deletions).chain(presences).flatten().map(|origin| origin.accepted_at).min()
    }

    /// Readings in the batch.
    pub fn samples(&self) -> usize {
        self.groups.iter().map(|group| group.samples.len()).sum()
    }
}
