//! Deletions are data too: tombstones and removals.

use crate::{EntityId, Origin, Revision, RowVersion, Timestamp, version::VersionOverflow};
use serde::{Deserialize, Serialize};

/// Deletes what is older than its version in a range of time.
///
/// A *tombstone* is what a user deletes; a *removal* is one key that a replay no longer gives.
/// They differ only in their range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Where it first entered the platform; absent means "this stream message".
    pub origin: Option<Origin>,
    /// 0 live, else a replay's number.
    pub revision: Revision,
    /// Whose rows.
    pub entities: Vec<EntityId>,
    /// First moment deleted.
    pub from: Timestamp,
    /// First moment no longer deleted.
    pub to: Timestamp,
}

impl Deletion {
    /// A removal: one key.
    pub fn removal(origin: Origin, revision: Revision, entity: EntityId, ts: Timestamp) -> Self {
        Self {
            origin: Some(origin),
            revision,
            entities: vec![entity],
            from: ts,
            to: ts.plus_micros(1),
        }
    }

    /// One row an entity, as `core.deletions` keeps it. `here` stands in for an absent origin.
    pub fn rows(&self, here: Origin) -> Result<Vec<DeletionRow>, VersionOverflow> {
        let version = RowVersion::new(&self.origin.unwrap_or(here), self.revision)?;
        let row = |&entity| DeletionRow { entity, from: self.from, to: self.to, version };
        Ok(self.entities.iter().map(row).collect())
    }
}

/// A deletion of one entity's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeletionRow {
    /// Whose rows.
    pub entity: EntityId,
    /// First moment deleted.
    pub from: Timestamp,
    /// First moment no longer deleted.
    pub to: Timestamp,
    /// Rows with a lower version go.
    pub version: RowVersion,
}

impl DeletionRow {
    /// Whether it takes this row away.
    pub fn covers(&self, entity: EntityId, ts: Timestamp, version: RowVersion) -> bool {
        self.entity == entity && self.from <= ts && ts < self.to && version < self.version
    }
}
