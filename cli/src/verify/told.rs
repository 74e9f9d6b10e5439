//! What `verify` tells, for programs and for people.

use crate::table::Table;
use custody::{
    compare::{Compared, Difference, MOST_DELETIONS},
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
pub(super) struct Verdict {
    equal: bool,
    /// Rows accepted before this were compared.
    #[serde(with = "domain::time::rfc3339")]
    cutoff: Timestamp,
    /// Something that was accepted is still on its way.
    behind: bool,
    pub(super) compared: Vec<OrgInTarget>,
    /// Current values that are not the newest of their entity's.
    pub(super) stale: Vec<Stale>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) repaired: Vec<Repair>,
    /// Messages that a target had lost after it was done with them, and that were applied again.
    pub(super) applied_again: u64,
    /// Rows that had gone from a target, and from those it was compared with, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<Lost>,
}

/// Rows of an org that had gone from a target.
#[derive(Serialize)]
pub(super) struct Lost {
    pub(super) org: OrgKey,
    pub(super) target: TargetName,
    /// Those that the stream gave again.
    pub(super) back: u64,
    /// Those that it has not any more.
    pub(super) missing: i64,
}

/// One org in one target, held against the primary.
#[derive(Serialize)]
pub(super) struct OrgInTarget {
    org: OrgKey,
    target: TargetName,
    hours: usize,
    rows: i64,
    differing: Vec<DifferingHour>,
    /// Deletions that differ.
    deletions: usize,
    /// Rows that one has and the other refused: their letters are in `DEAD`.
    refused: u64,
}

/// An hour that differs from the primary.
#[derive(Serialize)]
struct DifferingHour {
    #[serde(with = "domain::time::rfc3339")]
    hour: Timestamp,
    /// Rows that only the primary has.
    missing: u64,
    /// Rows that only the target has.
    extra: u64,
    /// Rows that both have, with other columns.
    changed: u64,
    /// Keys of the first few, as `entity@time`.
    samples: Vec<String>,
}

/// Current values of an org in a target that are not their entities' newest.
#[derive(Serialize)]
pub(super) struct Stale {
    org: OrgKey,
    target: TargetName,
    entities: usize,
    /// The first few.
    first: Vec<EntityId>,
}

/// What a repair did.
#[derive(Serialize)]
pub(super) struct Repair {
    org: OrgKey,
    target: TargetName,
    /// Deletions that one of both lacked.
    deletions: u64,
    /// Rows put right, by target.
    rows: BTreeMap<TargetName, u64>,
    /// Current values put right, by target.
    current: BTreeMap<TargetName, u64>,
    /// One version, other values, and no message to tell which is right: the primary's counts.
    settled: Some,
    /// No accepted message explains them.
    unexplained: Some,
    /// Of those, taken away.
    pruned: u64,
    /// The database takes them not.
    refused: Some,
}

/// How many, and the first.
#[derive(Serialize)]
struct Some {
    count: u64,
    first: Vec<String>,
}

impl From<Named> for Some {
    fn from(Named { count, first }: Named) -> Self {
        Self { count, first }
    }
}

impl OrgInTarget {
    pub(super) fn new(target: &TargetName, compared: Compared) -> Self {
        let Compared { report, deletions } = compared;
        Self {
            org: report.org.key,
            target: target.clone(),
            hours: report.hours,
            rows: report.rows,
            differing: report.differing.iter().map(differing).collect(),
            deletions,
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
            rows: repaired.rows,
            current: repaired.current,
            settled: repaired.settled.into(),
            unexplained: repaired.unexplained.into(),
            pruned: repaired.pruned,
            refused: repaired.refused.into(),
        }
    }

    fn print(&self) {
        let all = |by: &BTreeMap<TargetName, u64>| {
            let some = by.iter().filter(|(_, count)| **count > 0);
            let some: Vec<_> = some.map(|(name, count)| format!("{count} in {name}")).collect();
            if some.is_empty() { "none".to_owned() } else { some.join(", ") }
        };
        println!(
            "repaired org {}, primary and {}: deletions {}; rows: {}; current values: {}",
            self.org,
            self.target,
            self.deletions,
            all(&self.rows),
            all(&self.current)
        );
        let named = |what: &str, some: &Some| {
            if some.count > 0 {
                println!("  {} {what}:", some.count);
                some.first.iter().take(SHOWN).for_each(|name| println!("    {name}"));
            }
        };
        named("keys had one version and other values; the primary's count", &self.settled);
        let fate = if self.pruned > 0 { "taken away" } else { "left (--prune takes them away)" };
        named(&format!("that no accepted message explains, {fate}"), &self.unexplained);
        named("refused by the database", &self.refused);
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
        }
    }

    pub(super) fn judge(&mut self) {
        let equal = |it: &OrgInTarget| it.differing.is_empty() && it.deletions == 0;
        self.equal = self.compared.iter().all(equal) && self.stale.is_empty();
    }

    pub(super) fn is_equal(&self) -> bool {
        self.equal
    }

    /// Whether a target holds what the primary holds.
    pub(super) fn equal_in(&self, target: &TargetName) -> bool {
        let mut of = self.compared.iter().filter(|compared| &compared.target == target);
        of.all(|compared| compared.differing.is_empty() && compared.deletions == 0)
            && self.stale.iter().all(|stale| &stale.target != target)
    }

    pub(super) fn print(&self) {
        self.repaired.iter().for_each(Repair::print);
        if self.applied_again > 0 {
            println!(
                "{} messages that a target had not noted were applied again\n",
                self.applied_again
            );
        }
        for Lost { org, target, back, missing } in &self.lost {
            println!(
                "{target}, org {org}: {back} rows that had gone were read from the stream again; {missing} are \
                 missing still (haystack ledger)\n"
            );
        }
        let heads = ["org", "target", "rows", "hours", "differing hours", "deletions", "refused"];
        let mut table = Table::new(heads);
        for compared in &self.compared {
            let most = if compared.deletions == MOST_DELETIONS { " or more" } else { "" };
            table.row([
                compared.org.to_string(),
                compared.target.to_string(),
                compared.rows.to_string(),
                compared.hours.to_string(),
                compared.differing.len().to_string(),
                format!("{}{most}", compared.deletions),
                compared.refused.to_string(),
            ]);
        }
        table.print();
        self.print_hours();
        for Stale { org, target, entities, first } in &self.stale {
            let first: Vec<String> = first.iter().map(ToString::to_string).collect();
            println!(
                "\n{target}, org {org}: the current value of {entities} entities is not their newest \
                 ({})",
                first.join(", ")
            );
        }
        if self.compared.iter().any(|compared| compared.refused > 0) {
            println!(
                "\nrefused: one target has them, the other set them aside (haystack dead-letters)"
            );
        }
        let late = if self.behind { " (older than what is still on its way)" } else { "" };
        println!("\ncompared: what was accepted before {}{late}", self.cutoff);
        println!("{}", if self.equal { "equal" } else { "NOT equal" });
        if !self.equal && self.repaired.is_empty() {
            println!("(haystack verify --repair makes them equal)");
        }
    }

    fn print_hours(&self) {
        let mut hours =
            Table::new(["org", "target", "hour (UTC)", "missing", "extra", "changed", "e.g."]);
        for compared in &self.compared {
            for hour in &compared.differing {
                hours.row([
                    compared.org.to_string(),
                    compared.target.to_string(),
                    hour.hour.to_string(),
                    hour.missing.to_string(),
                    hour.extra.to_string(),
                    hour.changed.to_string(),
                    hour.samples.first().cloned().unwrap_or_default(),
                ]);
            }
        }
        if !hours.is_empty() {
            println!();
            hours.print();
        }
    }
}
