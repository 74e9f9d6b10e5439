//! Making two targets equal, and equal to what the stream says.
//!
//! Deletions first, then the hours that differ, then each one's current values. Where the stream reaches, its
//! value counts, whatever stands in a table: a row that somebody changed kept its version. Where it does not,
//! the higher version counts, and of equal ones the primary's. What no message explains is named, and taken
//! away only where that was asked for.

mod beside;
mod decide;

use crate::{
    Fault,
    compare::{Pair, Target, stale},
    truth::{self, Truth},
};
use decide::{Decision, decide};
use domain::{DeletionRow, Row, RowVersion, TargetName, Timestamp, Work, failpoint};
use std::collections::BTreeMap;
use store::{
    Verdict, Writer,
    repair::{MOST, Mend, forget_deletions, mend, restore_current},
    verify::{Range, Refused, Sample, compare_hour, deletions, same},
};

/// Keys in memory at once; the stream is read once for so many.
const LOT: usize = 50_000;
/// Deletions that are written at once.
const DELETIONS: usize = 1_000;
/// Rows that a report names of each kind.
const NAMED: usize = 100;
/// Times that one hour is gone through, a lot each.
const ROUNDS: usize = 1_000;

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Repaired {
    /// Deletions that a target lacked, or had in an older version.
    pub deletions: u64,
    /// Presences of devices that differed, ...
    pub presences: u64,
    /// ... and ends of gateways' transactions.
    pub ends: u64,
    /// Rows that were put right, by target.
    pub rows: BTreeMap<TargetName, u64>,
    /// Current values that were put right, by target.
    pub current: BTreeMap<TargetName, u64>,
    /// Keys whose rows had one version and other values, where the stream could not tell: the primary's
    /// counted. The first of them by name.
    pub settled: Named,
    /// Rows and deletions that no accepted message explains.
    pub unexplained: Named,
    /// Of those, taken away.
    pub pruned: u64,
    /// Rows that a database refused.
    pub refused: Named,
}

/// How many there are, and the first of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// How many.
    pub count: u64,
    /// For people, e.g. `secondary 7@2026-01-01T00:00:00Z`.
    pub first: Vec<String>,
}

impl Named {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(name());
        }
    }
}

/// Repairs. `prune`: what nothing explains is taken away. `off`: how many rows more the org has in each of the two
/// than were counted. `progress` hears what is done, for people.
pub async fn repair(
    pair: &Pair<'_>,
    prune: bool,
    off: [i64; 2],
    progress: &mut (dyn FnMut(String) + Send),
) -> Result<Repaired, Fault> {
    let refused = pair.refused().await?;
    let mut job = Job { pair, refused, prune, off, done: Repaired::default() };
    progress(format!("org {}: deletions", pair.org.key));
    job.deletions().await?;
    progress(format!("org {}: presences and transactions", pair.org.key));
    job.done.presences = beside::mend_presences(pair).await?;
    job.done.ends = beside::mend_ends(pair).await?;
    let comparison = pair.comparison(&job.refused);
    let (hours, _, _) = comparison.hours().await.map_err(pair.other.fault())?;
    let all = hours.len();
    let mut lot = Vec::new();
    for (number, hour) in hours.into_iter().enumerate() {
        progress(format!("org {}: hour {} of {all}, {hour}", pair.org.key, number + 1));
        job.hour(hour, &mut lot).await?;
    }
    job.lot(&mut lot).await?;
    for target in [pair.primary, pair.other] {
        let entities = stale(target, pair.org).await?;
        for part in entities.chunks(MOST) {
            restore_current(target.database, pair.org, part).await.map_err(target.fault())?;
        }
        *job.done.current.entry(target.name.clone()).or_default() += entities.len() as u64;
    }
    Ok(job.done)
}

/// What is to be done in one target.
#[derive(Default)]
struct Mends {
    unexplained: Vec<Mend>,
    others: Vec<Mend>,
}

struct Job<'a> {
    pair: &'a Pair<'a>,
    refused: Refused,
    prune: bool,
    off: [i64; 2],
    done: Repaired,
}

impl Job<'_> {
    async fn deletions(&mut self) -> Result<(), Fault> {
        let Pair { wire, org, primary, other, recent } = *self.pair;
        let (a, b) = (primary.database, other.database);
        let mut behind = None;
        loop {
            let found = deletions((a, b), org, recent, behind, LOT).await.map_err(other.fault())?;
            let range = |row: &DeletionRow| (row.entity, row.from, row.to);
            let ranges: Vec<Range> =
                found.iter().filter_map(|(a, b)| a.or(*b).as_ref().map(range)).collect();
            let Some(last) = ranges.last().copied() else { return Ok(()) };
            let truth = truth::ask(wire, org, [], ranges, recent).await?;
            for (target, missing, wrong) in sort(self.pair, &truth, &found) {
                let writer = Writer::new(target.database.clone());
                for part in missing.chunks(DELETIONS) {
                    let work = Work { deletions: part.to_vec(), ..Work::default() };
                    let _ = writer.write(org, &work).await.map_err(target.fault())?;
                    self.done.deletions += part.len() as u64;
                }
                for row in &wrong {
                    let name =
                        || format!("{} deletion of {} {}", target.name, row.entity, row.from);
                    self.done.unexplained.add(name);
                }
                if self.prune {
                    let gone = forget_deletions(target.database, org, &wrong).await;
                    gone.map_err(target.fault())?;
                    self.done.pruned += wrong.len() as u64;
                }
            }
            if found.len() < LOT {
                return Ok(());
            }
            behind = Some(last);
        }
    }

    /// Gathers what differs in an hour, and works on it where that is a lot.
    async fn hour(&mut self, hour: Timestamp, lot: &mut Vec<Sample>) -> Result<(), Fault> {
        if lot.len() > LOT / 2 {
            self.lot(lot).await?;
        }
        for _ in 0..ROUNDS {
            let comparison = self.pair.comparison(&self.refused);
            let room = LOT - lot.len();
            let found = compare_hour(&comparison, hour, room).await;
            let found = found.map_err(self.pair.other.fault())?;
            let all = found.missing + found.extra + found.changed;
            let whole = all <= found.samples.len() as u64;
            lot.extend(found.samples);
            if whole {
                return Ok(());
            }
            if self.lot(lot).await? == 0 {
                // Nothing of it can be mended: the next look would see the same.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Works on what was gathered; how many keys were changed.
    async fn lot(&mut self, lot: &mut Vec<Sample>) -> Result<u64, Fault> {
        let samples = std::mem::take(lot);
        if samples.is_empty() {
            return Ok(0);
        }
        let Pair { wire, org, primary, other, recent } = *self.pair;
        let truth = truth::ask(wire, org, samples.iter().map(key), [], recent).await?;
        let (mut ours, mut theirs) = (Mends::default(), Mends::default());
        for sample in &samples {
            self.mends(sample, &truth, &mut ours, &mut theirs);
        }
        let mut changed = 0;
        for (side, (target, mends)) in [(primary, ours), (other, theirs)].into_iter().enumerate() {
            let mut put_right = 0;
            // What was never counted goes first: then it is known how many are missing.
            for (unexplained, mends) in [(true, mends.unexplained), (false, mends.others)] {
                for part in mends.chunks(MOST) {
                    put_right += self.mend(side, target, part, unexplained).await?;
                    failpoint::hit(failpoint::AFTER_MENDED);
                }
            }
            *self.done.rows.entry(target.name.clone()).or_default() += put_right;
            changed += put_right;
        }
        Ok(changed)
    }

    fn mends(&mut self, sample: &Sample, truth: &Truth, ours: &mut Mends, theirs: &mut Mends) {
        let (entity, ts) = key(sample);
        let told = truth.keys.get(&(entity, ts));
        let (reference, other) = (sample.reference.as_ref(), sample.other.as_ref());
        let sides = [
            (self.pair.primary, reference, &self.refused.by_reference, ours),
            (self.pair.other, other, &self.refused.by_other, theirs),
        ];
        let decision = decide(reference, other, told, truth.reach);
        if decision == Decision::Settled {
            self.done.settled.add(|| format!("{entity}@{ts}"));
        }
        for (target, row, refused, mends) in sides {
            let expected = row.map(|row| row.version);
            let right: Option<&Row> = match &decision {
                Decision::Row(right) => Some(right),
                Decision::Settled => reference,
                Decision::Nothing => None,
                Decision::Unexplained => {
                    if row.is_none() {
                        continue;
                    }
                    self.done.unexplained.add(|| format!("{} {entity}@{ts}", target.name));
                    if !self.prune {
                        continue;
                    }
                    self.done.pruned += 1;
                    None
                }
            };
            let is_refused = right.is_some_and(|row| refused.contains(&(entity, ts, row.version)));
            let wrong = match (right, row) {
                (Some(right), Some(row)) => !same(right, row),
                (right, row) => right.is_some() != row.is_some(),
            };
            if !is_refused && wrong {
                let mend = Mend { entity, ts, expected, row: right.cloned() };
                let unexplained = decision == Decision::Unexplained;
                if unexplained { &mut mends.unexplained } else { &mut mends.others }.push(mend);
            }
        }
    }

    /// Mends; a row that the database refuses alone is named. How many were put right.
    async fn mend(
        &mut self,
        side: usize,
        target: Target<'_>,
        mends: &[Mend],
        unexplained: bool,
    ) -> Result<u64, Fault> {
        let mut todo = vec![mends];
        let mut put_right = 0;
        while let Some(part) = todo.pop() {
            let (org, off) = (self.pair.org, self.off[side]);
            match mend(target.database, org, part, unexplained, off).await {
                Ok((changed, off)) => {
                    put_right += changed.min(part.len() as u64);
                    self.off[side] = off;
                }
                Err(fault) if fault.verdict == Verdict::Data && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    todo.extend([second, first]);
                }
                Err(fault) if fault.verdict == Verdict::Data => {
                    for Mend { entity, ts, .. } in part {
                        self.done.refused.add(|| format!("{} {entity}@{ts}: {fault}", target.name));
                    }
                }
                Err(fault) => return Err(target.fault()(fault)),
            }
        }
        Ok(put_right)
    }
}

/// What each target lacks, and what it has that nothing explains.
fn sort<'a>(
    pair: &Pair<'a>,
    truth: &Truth,
    found: &[(Option<DeletionRow>, Option<DeletionRow>)],
) -> [(Target<'a>, Vec<DeletionRow>, Vec<DeletionRow>); 2] {
    let mut sides = [(pair.primary, Vec::new(), Vec::new()), (pair.other, Vec::new(), Vec::new())];
    for (ours, theirs) in found {
        let Some(any) = ours.or(*theirs) else { continue };
        let told = truth.ranges.get(&(any.entity, any.from, any.to)).copied().flatten();
        let has = [*ours, *theirs].map(|row| row.map(|row| row.version));
        let possible = |version: &RowVersion| !truth.reach.covers(*version);
        let best = has.into_iter().flatten().filter(possible).chain(told).max();
        for (side, has) in sides.iter_mut().zip(has) {
            match best {
                Some(version) if has < Some(version) => {
                    side.1.push(DeletionRow { version, ..any });
                }
                Some(version) if has == Some(version) => {}
                _ => side.2.extend(has.map(|version| DeletionRow { version, ..any })),
            }
        }
    }
    sides
}

fn key(sample: &Sample) -> truth::Key {
    let row = sample.reference.as_ref().or(sample.other.as_ref());
    let row = row.expect("a difference is of some row");
    (row.entity, row.ts)
}
