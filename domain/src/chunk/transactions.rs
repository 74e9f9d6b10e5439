//! Open transactions: what came of each, and what is to be done about it.
//!
//! A transaction's name may be used again, and parts may contradict each other: the parts of one
//! name are a queue of generations, the oldest first. Only the oldest can be ended, and only when
//! the end before it is done and gone, because an end is written where there is none.

mod generation;

use super::{
    end::{End, Outcome, PartAt, missing},
    part::Facts,
};
use crate::{DeviceId, OrgKey, Timestamp};
use generation::{Generation, Held};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// A gateway with so many times what may be open begins no more: it goes faster than its
/// transactions can be set aside.
const OVERRUN: usize = 4;

/// Transactions that give way in one pass: those of others must not wait for a flood.
const MAX_GIVE_WAY: usize = 256;

/// Bounds of what may be open. Past one, the oldest transaction is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a transaction may take, in time in which parts could come.
    pub age: Duration,
    /// How long the end of a transaction is remembered, to know its late parts.
    pub remembered: Duration,
    /// How long whoever wrote an end has to see to it, before others do.
    pub grace: Duration,
    /// Open transactions of one gateway.
    pub gateway_open: usize,
    /// Open transactions in all.
    pub open: usize,
    /// Bytes of parts of one gateway.
    pub gateway_bytes: usize,
    /// Bytes of parts in all.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            age: Duration::from_mins(1),
            remembered: Duration::from_mins(5),
            grace: Duration::from_secs(5),
            gateway_open: 64,
            open: 1_024,
            gateway_bytes: 64 << 20,
            bytes: 256 << 20,
        }
    }
}

/// Whose transaction, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Org.
    pub org: OrgKey,
    /// Gateway.
    pub gateway: DeviceId,
    /// What the gateway calls it.
    pub transaction: String,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Write the record of an end, where there is none; first remove the one before, which is done.
    End {
        /// Whose.
        name: Name,
        /// The record.
        end: End,
        /// Sequences of the end before.
        before: Vec<u64>,
    },
    /// Do what an end says, and mark it as done.
    Finish {
        /// Whose.
        name: Name,
        /// Where the record stands.
        sequence: u64,
        /// The record.
        end: End,
    },
    /// Remove messages that mean nothing any more.
    Remove(Vec<u64>),
}

/// An open transaction, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Whose.
    pub name: Name,
    /// Parts that came.
    pub seen: u32,
    /// Parts that there are to be.
    pub total: u32,
    /// What is missing, as ranges.
    pub missing: String,
    /// When the first part was received.
    pub began_at: Timestamp,
    /// It has ended, and its end is being seen to.
    pub ending: bool,
}

#[derive(Debug, Clone)]
struct Ended {
    sequence: u64,
    end: End,
    /// The sequence of the mark that it is done.
    done: Option<u64>,
    since: Duration,
    ours: bool,
    /// Somebody here sees to it.
    asked: bool,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    generations: VecDeque<Generation>,
    ended: Option<Ended>,
    /// An end was asked for and its record has not come back yet.
    ending: bool,
}

/// All that is open.
#[derive(Debug, Clone)]
pub struct Transactions {
    limits: Limits,
    slots: BTreeMap<Name, Slot>,
    strays: Vec<u64>,
    bytes: usize,
    open: usize,
}

impl Transactions {
    /// None.
    pub fn new(limits: Limits) -> Self {
        Self { limits, slots: BTreeMap::new(), strays: Vec::new(), bytes: 0, open: 0 }
    }

    /// A part stands in the stream. `clock` is time in which parts could come.
    pub fn part(
        &mut self,
        name: &Name,
        at: PartAt,
        facts: Facts,
        (bytes, received_at): (usize, Timestamp),
        clock: Duration,
    ) {
        let slot = self.slots.entry(name.clone()).or_default();
        // A late copy of what is complete, where the digest says so.
        if slot.ended.as_ref().is_some_and(|ended| ended.end.knows(at.index, &facts)) {
            self.strays.push(at.sequence);
            return;
        }
        let held = Held { sequence: at.sequence, content: facts.content, bytes };
        if let Some(newest) = slot.generations.back_mut() {
            if newest.agrees(at.index, &facts) {
                if newest.take(at.index, held) {
                    self.bytes += bytes;
                } else {
                    self.strays.push(at.sequence);
                }
                return;
            }
            newest.superseded = true;
        }
        slot.generations.push_back(Generation::new(at.index, held, facts, received_at, clock));
        self.bytes += bytes;
        self.open += 1;
    }

    /// The record of an end stands in the stream; `ours`: this process wrote it.
    pub fn end(&mut self, name: &Name, sequence: u64, end: End, ours: bool, clock: Duration) {
        let slot = self.slots.entry(name.clone()).or_default();
        slot.ending = false;
        if slot.ended.as_ref().is_some_and(|known| known.sequence >= sequence) {
            return;
        }
        let named: BTreeSet<u64> = end.sequences().collect();
        let (bytes, open, strays) = (&mut self.bytes, &mut self.open, &mut self.strays);
        slot.generations.retain_mut(|generation| {
            // Copies that came while the end was being written.
            let known = generation.known_by(&end);
            let gone = named.iter().chain(&known).copied().collect();
            strays.extend(known.difference(&named));
            let before = generation.bytes();
            let left = generation.without(&gone);
            *bytes -= before - generation.bytes();
            *open -= usize::from(!left);
            left
        });
        let asked = false;
        slot.ended = Some(Ended { sequence, end, done: None, since: clock, ours, asked });
    }

    /// The mark that an end is done stands in the stream.
    pub fn done(&mut self, name: &Name, sequence: u64, clock: Duration) {
        match self.slots.get_mut(name).and_then(|slot| slot.ended.as_mut()) {
            Some(ended) if ended.sequence < sequence => {
                ended.done = Some(sequence);
                ended.since = clock;
            }
            Some(_) => {}
            // Its end was removed and it was not: no other end could be written beside it.
            None => self.strays.push(sequence),
        }
    }

    /// The messages of the last end of that name are gone.
    pub fn forgotten(&mut self, name: &Name) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.ended = None;
        }
    }

    /// What is to be done now. Each wish is given once, until it is answered.
    pub fn wishes(&mut self, now: Timestamp, clock: Duration) -> Vec<Wish> {
        let mut wishes = Vec::new();
        if !self.strays.is_empty() {
            wishes.push(Wish::Remove(std::mem::take(&mut self.strays)));
        }
        let crowded = self.crowded();
        let limits = self.limits;
        for (name, slot) in &mut self.slots {
            wishes.extend(slot.finish(name, &limits, clock));
            wishes.extend(slot.end(name, &limits, crowded.contains(name), now, clock));
        }
        self.slots.retain(|_, slot| {
            let idle = slot.ended.as_ref().is_some_and(|ended| {
                // Without a digest no late part can be known as one. Whoever reads along has a while.
                let knows = ended.end.outcome == Outcome::Complete && ended.end.digest.is_some();
                let keep = if knows { limits.remembered } else { limits.grace };
                ended.done.is_some() && clock.saturating_sub(ended.since) >= keep
            });
            if slot.generations.is_empty() && idle && !slot.ending {
                let ended = slot.ended.as_ref();
                wishes.push(Wish::Remove(ended.map(Ended::messages).unwrap_or_default()));
                return false;
            }
            !(slot.generations.is_empty() && slot.ended.is_none())
        });
        wishes
    }

    /// Names whose oldest generation must give way: as many as are too many, the oldest first, of a
    /// gateway and of all.
    fn crowded(&self) -> BTreeSet<Name> {
        let limits = &self.limits;
        let mut crowded = Vec::new();
        let mut by_gateway: BTreeMap<(&OrgKey, &DeviceId), Vec<Waiting<'_>>> = BTreeMap::new();
        for waiting in self.slots.iter().filter_map(Waiting::of) {
            by_gateway.entry((&waiting.name.org, &waiting.name.gateway)).or_default().push(waiting);
        }
        let mut all: Vec<Waiting<'_>> = Vec::new();
        for (_, mut waiting) in by_gateway {
            crowded.extend(give_way(&mut waiting, limits.gateway_open, limits.gateway_bytes));
            all.extend(waiting);
        }
        crowded.extend(give_way(&mut all, limits.open, limits.bytes));
        crowded.into_iter().take(MAX_GIVE_WAY).collect()
    }

    /// Gateways with so many open transactions that no more are to be begun.
    pub fn overrun(&self) -> BTreeSet<DeviceId> {
        let mut open: BTreeMap<&DeviceId, usize> = BTreeMap::new();
        for (name, slot) in &self.slots {
            *open.entry(&name.gateway).or_default() += slot.generations.len();
        }
        let most = self.limits.gateway_open * OVERRUN;
        open.into_iter().filter(|(_, open)| *open > most).map(|(name, _)| name.clone()).collect()
    }

    /// What is open, oldest first.
    pub fn list(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> = Vec::new();
        for (name, slot) in &self.slots {
            all.extend(slot.generations.iter().map(|generation| Listed {
                name: name.clone(),
                seen: generation.parts.len() as u32,
                total: generation.facts.total,
                missing: missing(generation.facts.total, generation.parts.keys().copied()),
                began_at: generation.began_at,
                ending: slot.ending || generation.superseded,
            }));
        }
        all.sort_by_key(|listed| listed.began_at);
        all
    }

    /// Open transactions and their bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.open, self.bytes)
    }
}

/// An open transaction that nothing ends yet.
struct Waiting<'s> {
    name: &'s Name,
    first: u64,
    bytes: usize,
}

impl<'s> Waiting<'s> {
    fn of((name, slot): (&'s Name, &'s Slot)) -> Option<Self> {
        let oldest = slot.generations.front().filter(|_| !slot.ending)?;
        // What is complete, or over anyhow, makes room by itself.
        let waits = !oldest.superseded && !oldest.complete();
        waits.then(|| Self { name, first: oldest.first(), bytes: oldest.bytes() })
    }
}

/// Takes out the oldest until the rest keeps to the limits.
fn give_way(waiting: &mut Vec<Waiting<'_>>, open: usize, bytes: usize) -> Vec<Name> {
    waiting.sort_by_key(|one| std::cmp::Reverse(one.first));
    let mut sum: usize = waiting.iter().map(|one| one.bytes).sum();
    let mut names = Vec::new();
    while (waiting.len() > open || sum > bytes)
        && let Some(oldest) = waiting.pop()
    {
        sum -= oldest.bytes;
        names.push(oldest.name.clone());
    }
    names
}

impl Ended {
    /// Its messages in the stream, in the order in which they go.
    fn messages(&self) -> Vec<u64> {
        [self.done, Some(self.sequence)].into_iter().flatten().collect()
    }
}

impl Slot {
    /// An end that nobody has seen to.
    fn finish(&mut self, name: &Name, limits: &Limits, clock: Duration) -> Option<Wish> {
        let ended = self.ended.as_mut().filter(|ended| ended.done.is_none() && !ended.asked)?;
        let waited = clock.saturating_sub(ended.since);
        if !ended.ours && waited < limits.grace {
            return None;
        }
        ended.asked = true;
        let (sequence, end) = (ended.sequence, ended.end.clone());
        Some(Wish::Finish { name: name.clone(), sequence, end })
    }

    /// The oldest generation, where it is over and nothing is in the way.
    fn end(
        &mut self,
        name: &Name,
        limits: &Limits,
        crowded: bool,
        now: Timestamp,
        clock: Duration,
    ) -> Option<Wish> {
        if self.ending || self.ended.as_ref().is_some_and(|ended| ended.done.is_none()) {
            return None;
        }
        let oldest = self.generations.front()?;
        let waited = clock.saturating_sub(oldest.since);
        let (outcome, why) = if oldest.complete() {
            (Outcome::Complete, "all parts came".to_owned())
        } else if oldest.superseded {
            let why = "a later part of the same name contradicts it";
            (Outcome::Superseded, why.to_owned())
        } else if waited >= limits.age {
            (Outcome::Expired, format!("not complete after {} s", limits.age.as_secs()))
        } else if crowded {
            (Outcome::Expired, "too much is open, and it is the oldest".to_owned())
        } else {
            return None;
        };
        self.ending = true;
        let before = self.ended.as_ref().map(Ended::messages).unwrap_or_default();
        Some(Wish::End { name: name.clone(), end: oldest.end(outcome, why, now), before })
    }
}

#[cfg(test)]
mod tests;
