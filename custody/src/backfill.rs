//! Filling one target from another, while live readings flow into both: what it writes obeys the merge rule
//! like everything, so what was deleted, or came later, stays as it is.

use crate::{Fault, compare::Target};
use domain::{OrgKey, Row, Timestamp, Work};
use store::{
    OrgRef, Verdict, Writer,
    read::{self, Key},
    verify::{self, Recent, deletions, ends, presences},
};

/// Rows of one piece.
const PIECE: usize = 20_000;
/// Deletions of one, and presences, and ends of transactions.
const LOT: usize = 1_000;
/// All are looked at, also what is on its way: brought twice, it is there once.
const ALL: Recent = Recent { from: Timestamp::MAX, to: Timestamp::MAX };

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows that were looked at.
    pub looked_at: u64,
    /// All there are, as far as the database knows.
    pub all: u64,
    /// Rows that were new to the target, or newer.
    pub written: u64,
    /// Deletions that were new to it.
    pub deletions: u64,
    /// Presences of devices that were new to it, or newer.
    pub presences: u64,
    /// Ends of gateways' transactions that were new to it.
    pub ends: u64,
    /// Rows that the target's database refuses for what is in them.
    pub refused: u64,
}

/// Fills orgs of a target, all or one, that both know. `progress` hears how far each is.
pub async fn fill_all(
    from: Target<'_>,
    to: Target<'_>,
    only: Option<&OrgKey>,
    progress: &mut (dyn FnMut(&OrgRef, Progress) + Send),
) -> Result<Vec<(OrgRef, Progress)>, Fault> {
    if from.name == to.name {
        return Err(Fault::Refused("a target can't be filled from itself".to_owned()));
    }
    let mut orgs = read::orgs(from.database).await.map_err(from.fault())?;
    let there = read::orgs(to.database).await.map_err(to.fault())?;
    orgs.retain(|org| only.is_none_or(|only| only == &org.key));
    if orgs.is_empty() {
        return Err(Fault::Refused(format!("{} knows no such org", from.name)));
    }
    if let Some(missing) = orgs.iter().find(|org| !there.contains(org)) {
        return Err(Fault::Refused(format!(
            "{} has no tables of org {} yet: ingest must run with it first, which makes them",
            to.name, missing.key
        )));
    }
    let mut filled = Vec::with_capacity(orgs.len());
    for org in orgs {
        let done = fill(&org, from, to, &mut |done| progress(&org, done)).await?;
        filled.push((org, done));
    }
    Ok(filled)
}

/// Fills an org of a target. Pieces that both have alike are not written: begun anew, it goes on where it
/// was. `progress` is told after each piece.
async fn fill(
    org: &OrgRef,
    from: Target<'_>,
    to: Target<'_>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Progress, Fault> {
    let writer = Writer::new(to.database.clone());
    let mut done = Progress {
        all: read::estimate(from.database, org).await.map_err(from.fault())?,
        ..Progress::default()
    };
    // Before the rows, so that none comes back.
    let mut behind = None;
    loop {
        let (a, b) = (from.database, to.database);
        let found = deletions((a, b), org, ALL, behind, LOT).await;
        let found = found.map_err(to.fault())?;
        let newer = found.iter().filter_map(|(ours, theirs)| {
            let ours = (*ours)?;
            theirs.is_none_or(|theirs| theirs.version < ours.version).then_some(ours)
        });
        let work = Work { deletions: newer.collect(), ..Work::default() };
        if !work.deletions.is_empty() {
            let _ = writer.write(org, &work).await.map_err(to.fault())?;
            done.deletions += work.deletions.len() as u64;
        }
        let last = found.last().and_then(|(ours, theirs)| ours.or(*theirs));
        behind = last.map(|last| (last.entity, last.from, last.to));
        if found.len() < LOT {
            break;
        }
    }
    done.presences = bring_presences(org, from, to, &writer).await?;
    done.ends = bring_ends(org, from, to, &writer).await?;
    let mut after: Option<Key> = None;
    loop {
        let rows = read::page(from.database, org, after, PIECE).await.map_err(from.fault())?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(done) };
        let span = ((first.entity, first.ts), (last.entity, last.ts));
        after = Some(span.1);
        done.looked_at += rows.len() as u64;
        let theirs = verify::span(to.database, org, span).await.map_err(to.fault())?;
        let ours = verify::span(from.database, org, span).await.map_err(from.fault())?;
        if ours != theirs {
            let (written, refused) = write(&writer, org, rows).await.map_err(to.fault())?;
            done.written += written;
            done.refused += refused;
        }
        progress(done);
    }
}

/// Brings presences of devices that are new to it, or newer; how many.
async fn bring_presences(
    org: &OrgRef,
    from: Target<'_>,
    to: Target<'_>,
    writer: &Writer,
) -> Result<u64, Fault> {
    let (of, mut behind, mut written) = ((from.database, to.database), None, 0);
    loop {
        let found = presences(of, org, ALL, behind, LOT).await.map_err(to.fault())?;
        let newer = found.iter().filter_map(|(ours, theirs)| {
            let ours = ours.as_ref()?;
            theirs.as_ref().is_none_or(|theirs| theirs.version < ours.version).then_some(ours)
        });
        let work = Work { presences: newer.cloned().collect(), ..Work::default() };
        written += work.presences.len() as u64;
        let _ = writer.write(org, &work).await.map_err(to.fault())?;
        let last = found.last().and_then(|(ours, theirs)| ours.as_ref().or(theirs.as_ref()));
        behind = last.map(|last| last.device.clone());
        if found.len() < LOT {
            return Ok(written);
        }
    }
}

/// The same of ends of gateways' transactions.
async fn bring_ends(
    org: &OrgRef,
    from: Target<'_>,
    to: Target<'_>,
    writer: &Writer,
) -> Result<u64, Fault> {
    let (of, mut behind, mut written) = ((from.database, to.database), None, 0);
    loop {
        let found = ends(of, org, ALL, behind, LOT).await.map_err(to.fault())?;
        let new = found.iter().filter(|(_, theirs)| theirs.is_none());
        let new = new.filter_map(|(ours, _)| ours.clone());
        let work = Work { transactions: new.collect(), ..Work::default() };
        written += work.transactions.len() as u64;
        let _ = writer.write(org, &work).await.map_err(to.fault())?;
        let last = found.last().and_then(|(ours, theirs)| ours.as_ref().or(theirs.as_ref()));
        behind = last.map(|it| (it.gateway.clone(), it.transaction.clone(), it.sequence));
        if found.len() < LOT {
            return Ok(written);
        }
    }
}

/// Writes rows; those that the database refuses alone are left out. How many were written, and refused.
async fn write(writer: &Writer, org: &OrgRef, rows: Vec<Row>) -> Result<(u64, u64), store::Fault> {
    let (mut todo, mut written, mut refused) = (vec![rows], 0, 0);
    while let Some(rows) = todo.pop() {
        let mut work = Work { rows, ..Work::default() };
        match writer.write(org, &work).await {
            Ok(committed) => written += committed.counts().changed,
            Err(fault) if fault.verdict == Verdict::Data && work.rows.len() > 1 => {
                let second = work.rows.split_off(work.rows.len() / 2);
                todo.extend([second, work.rows]);
            }
            Err(fault) if fault.verdict == Verdict::Data => {
                let row = &work.rows[0];
                tracing::warn!(entity = %row.entity, ts = %row.ts, %fault, "refused");
                refused += 1;
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok((written, refused))
}
