//! Parts of one name that agree with each other.

use crate::{
    Timestamp,
    chunk::{
        end::{End, Outcome, PartAt},
        part::{Digest, Facts},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

/// Copies of one transaction's parts that its end names; the record of an end must fit a message.
/// What comes beyond goes at once.
pub(super) const MAX_COPIES: usize = 10_000;
/// Parts of one name that agree with each other.
#[derive(Debug, Clone)]
pub(super) struct Generation {
    pub(super) facts: Facts,
    pub(super) parts: BTreeMap<u32, Held>,
    pub(super) copies: Vec<Copied>,
    pub(super) began_at: Timestamp,
    /// By the clock of time in which parts could come.
    pub(super) since: Duration,
    /// A later part contradicts it.
    pub(super) superseded: bool,
}

/// A part that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) sequence: u64,
    pub(super) content: Digest,
    pub(super) bytes: usize,
}

/// A copy of a part that came before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    pub(super) sequence: u64,
    pub(super) bytes: usize,
}

impl Generation {
    /// Begins with a part.
    pub(super) fn new(
        index: u32,
        held: Held,
        facts: Facts,
        began_at: Timestamp,
        since: Duration,
    ) -> Self {
        let parts = BTreeMap::from([(index, held)]);
        Self { facts, parts, copies: Vec::new(), began_at, since, superseded: false }
    }

    /// Whether a part belongs to it.
    pub(super) fn agrees(&self, index: u32, facts: &Facts) -> bool {
        let same = self.facts.total == facts.total && self.facts.digest == facts.digest;
        let there = self.parts.get(&index);
        same && !self.superseded && there.is_none_or(|held| held.content == facts.content)
    }

    /// Takes a part that agrees; `false`: a copy more than are kept.
    pub(super) fn take(&mut self, index: u32, held: Held) -> bool {
        match self.parts.entry(index) {
            Entry::Vacant(place) => drop(place.insert(held)),
            Entry::Occupied(_) if self.copies.len() >= MAX_COPIES => return false,
            Entry::Occupied(_) => {
                self.copies.push(Copied { sequence: held.sequence, bytes: held.bytes });
            }
        }
        true
    }

    /// Bytes of the parts, without their copies.
    pub(super) fn parts_bytes(&self) -> usize {
        self.parts.values().map(|held| held.bytes).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts_bytes() + self.copies.iter().map(|copy| copy.bytes).sum::<usize>()
    }

    pub(super) fn complete(&self) -> bool {
        self.parts.len() as u32 == self.facts.total
    }

    /// Sequences of the parts that are copies of an end's, with their copies.
    pub(super) fn known_by(&self, end: &End) -> BTreeSet<u64> {
        let known = self.parts.iter().filter(|(index, held)| {
            end.knows(**index, &Facts { content: held.content, ..self.facts })
        });
        let mut known: BTreeSet<u64> = known.map(|(_, held)| held.sequence).collect();
        if known.len() == self.parts.len() {
            known.extend(self.copies.iter().map(|copy| copy.sequence));
        }
        known
    }

    /// The sequence of its oldest part.
    pub(super) fn first(&self) -> u64 {
        self.parts.values().map(|held| held.sequence).min().unwrap_or_default()
    }

    /// Takes out what an end names; whether anything is left.
    pub(super) fn without(&mut self, named: &BTreeSet<u64>) -> bool {
        self.parts.retain(|_, held| !named.contains(&held.sequence));
        self.copies.retain(|copy| !named.contains(&copy.sequence));
        if self.parts.is_empty() && !self.copies.is_empty() {
            // A copy of a part that went: it is a part itself now, of nothing.
            self.superseded = true;
        }
        !(self.parts.is_empty() && self.copies.is_empty())
    }

    pub(super) fn end(&self, outcome: Outcome, why: String, now: Timestamp) -> End {
        let parts = self.parts.iter();
        End {
            outcome,
            why,
            total: self.facts.total,
            parts: parts.map(|(index, held)| PartAt::new(*index, held.sequence)).collect(),
            contents: self.parts.values().map(|held| held.content).collect(),
            bytes: self.parts_bytes() as u64,
            copies: self.copies.iter().map(|copy| copy.sequence).collect(),
            digest: self.facts.digest.map(|digest| digest.to_string()),
            began_at: self.began_at,
            ended_at: now,
        }
    }
}
