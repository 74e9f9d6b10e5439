//! What a comparison tells, and a repair.

use crate::{
    compare::{Compared, Difference},
    repair::{Named, Repaired},
};
use domain::{EntityId, OrgKey, TargetName, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use store::OrgRef;

/// Entities and rows that are named.
const SHOWN: usize = 10;

/// All of it.
#[derive(Serialize)]
pub struct Verdict {
    /// All hold the same.
    pub equal: bool,
    /// Rows accepted before this were compared.
    #[serde(with = "domain::time::rfc3339")]
    pub cutoff: Timestamp,
    /// Something that was accepted is still on its way.
    pub behind: bool,
    /// Each org in each other target.
    pub compared: Vec<OrgInTarget>,
    /// Orgs that a target has no tables for yet: it was not compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
    /// Current values that are not the newest of their entity's.
    pub stale: Vec<Stale>,
    /// Which.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Repair>,
    /// Messages that a target had lost after it was done with them, and that were applied again.
    pub applied_again: u64,
    /// Rows that had gone from a target, and from those it was compared with, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
}

/// An org that a target has no tables for yet.
#[derive(Serialize)]
pub struct Unknown {
    /// Which.
    pub org: OrgKey,
    /// Where.
    pub target: TargetName,
}

/// Rows of an org that had gone from a target.
#[derive(Serialize)]
pub struct Lost {
    /// Whose.
    pub org: OrgKey,
    /// Where.
    pub target: TargetName,
    /// Those that the stream gave again.
    pub back: u64,
    /// Those that it has not any more.
    pub missing: i64,
}

/// One org in one target, held against the primary.
#[derive(Serialize)]
pub struct OrgInTarget {
    /// Whose.
    pub org: OrgKey,
    /// Where.
    pub target: TargetName,
    /// Hours that were compared.
    pub hours: usize,
    /// Rows that were compared.
    pub rows: i64,
    /// Those that differ.
    pub differing: Vec<DifferingHour>,
    /// Deletions that differ.
    pub deletions: usize,
    /// Devices' presences that differ.
    pub presences: usize,
    /// Ends of gateways' transactions that differ.
    pub transactions: usize,
    /// Rows that one has and the other refused: their letters are in `DEAD`.
    pub refused: u64,
}

/// An hour that differs from the primary.
#[derive(Serialize)]
pub struct DifferingHour {
    /// Which.
    #[serde(with = "domain::time::rfc3339")]
    pub hour: Timestamp,
    /// Rows that only the primary has.
    pub missing: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows that both have, with other columns.
    pub changed: u64,
    /// Keys of the first few, as `entity@time`.
    pub samples: Vec<String>,
}

/// Current values of an org in a target that are not their entities' newest.
#[derive(Serialize)]
pub struct Stale {
    /// Whose.
    pub org: OrgKey,
    /// Where.
    pub target: TargetName,
    /// How many.
    pub entities: usize,
    /// The first few.
    pub first: Vec<EntityId>,
}

/// What a repair did.
#[derive(Serialize)]
pub struct Repair {
    /// Whose.
    pub org: OrgKey,
    /// Where.
    pub target: TargetName,
    /// Deletions that one of both lacked.
    pub deletions: u64,
    /// Devices' presences that differed.
    pub presences: u64,
    /// Ends of gateways' transactions that differed.
    pub transactions: u64,
    /// Rows put right, by target.
    pub rows: BTreeMap<TargetName, u64>,
    /// Current values put right, by target.
    pub current: BTreeMap<TargetName, u64>,
    /// One version, other values, and no message to tell which is right: the primary's counts.
    pub settled: Some,
    /// No accepted message explains them.
    pub unexplained: Some,
    /// Of those, taken away.
    pub pruned: u64,
    /// The database takes them not.
    pub refused: Some,
}

/// How many, and the first.
#[derive(Serialize)]
pub struct Some {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl From<Named> for Some {
    fn from(Named { count, first }: Named) -> Self {
        Self { count, first }
    }
}

impl OrgInTarget {
    fn is_equal(&self) -> bool {
        self.differing.is_empty() && self.deletions + self.presences + self.transactions == 0
    }

    pub(super) fn new(target: &TargetName, compared: Compared) -> Self {
        let Compared { report, deletions, presences, ends } = compared;
        Self {
            org: report.org.key,
            target: target.clone(),
            hours: report.hours,
            rows: report.rows,
            differing: report.differing.iter().map(differing).collect(),
            deletions,
            presences,
            transactions: ends,
            refused: report.explained,
        }
    }
}

impl Stale {
    pub(super) fn new(org: &OrgRef, target: &TargetName, entities: &[EntityId]) -> Self {
        Self {
            org: org.key.clone(),
            target: target.clone(),
            entities: entities.len(),
            first: entities.iter().take(SHOWN).copied().collect(),
        }
    }
}

impl Repair {
    pub(super) fn new(org: &OrgRef, target: &TargetName, repaired: Repaired) -> Self {
        Self {
            org: org.key.clone(),
            target: target.clone(),
            deletions: repaired.deletions,
            presences: repaired.presences,
            transactions: repaired.ends,
            rows: repaired.rows,
            current: repaired.current,
            settled: repaired.settled.into(),
            unexplained: repaired.unexplained.into(),
            pruned: repaired.pruned,
            refused: repaired.refused.into(),
        }
    }
}

fn differing(difference: &Difference) -> DifferingHour {
    let keys = difference.samples.iter().filter_map(|sample| {
        let row = sample.reference.as_ref().or(sample.other.as_ref())?;
        Some(format!("{}@{}", row.entity, row.ts))
    });
    DifferingHour {
        hour: difference.hour,
        missing: difference.missing,
        extra: difference.extra,
        changed: difference.changed,
        samples: keys.collect(),
    }
}

impl Verdict {
    pub(super) fn new(cutoff: Timestamp, behind: bool) -> Self {
        let (compared, stale, repaired) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            equal: false,
            cutoff,
            behind,
            compared,
            stale,
            repaired,
            applied_again: 0,
            lost: Vec::new(),
            unknown: Vec::new(),
        }
    }

    pub(super) fn judge(&mut self) {
        self.equal = self.compared.iter().all(OrgInTarget::is_equal)
            && self.stale.is_empty()
            && self.unknown.is_empty();
    }

    /// Whether all hold the same.
    pub fn is_equal(&self) -> bool {
        self.equal
    }

    /// Whether a target holds what the primary holds.
    pub(super) fn equal_in(&self, target: &TargetName) -> bool {
        let mut of = self.compared.iter().filter(|compared| &compared.target == target);
        of.all(OrgInTarget::is_equal)
            && self.stale.iter().all(|stale| &stale.target != target)
            && self.unknown.is_empty()
    }
}
