//! Making a ledger balance again: what was not applied is applied, what was lost is read from the stream again,
//! what can't be mended is settled. And making it smaller.

use super::{Account, FOLDED_AFTER, Hop, Ledger, now};
use crate::{Fault, compare::Target};
use domain::{
    Batch, Work, failpoint,
    merge::tidy,
    subject::{Subject, telemetry_of},
};
use nats::{
    Wire,
    consume::{read_placed, subject_of},
    envelope,
    history::{self, Range},
    inspect::{self, NORMALIZE},
    streams::{RAW, TELEMETRY},
};
use std::{collections::BTreeSet, ops::ControlFlow};
use store::{
    OrgRef, Verdict, Writer,
    ledger::{self, Noted, Rows, Span, Why},
};

/// Rows that are read from the stream before they are written.
const PIECE: usize = 20_000;

/// Where an org's table has fewer rows than were written, reads what the stream has of the org and writes it again,
/// by the merge rule: what is there, or was deleted since, stays as it is. How many rows came back, and how many
/// are missing still.
pub async fn restore(
    wire: &Wire,
    target: Target<'_>,
    org: &OrgRef,
    progress: &mut (dyn FnMut(String) + Send),
) -> Result<(u64, i64), Fault> {
    let fault = target.fault();
    let missing = |rows: Rows| rows.counted - rows.found.unwrap_or(rows.counted);
    let gone = missing(ledger::rows(target.database, org).await.map_err(&fault)?);
    if gone <= 0 {
        return Ok((0, 0));
    }
    let filter = telemetry_of(&org.key);
    let beginning = history::beginning(wire, TELEMETRY, &filter).await?;
    let writer = Writer::new(target.database.clone());
    let (mut next, last) = (beginning.first.map(|first| first.sequence), beginning.last);
    let mut back = 0;
    while let Some(first) = next.take().filter(|first| *first <= last) {
        let mut work = Work::default();
        let range = Range { stream: TELEMETRY, filter: &filter, first, last, headers_only: false };
        history::read(wire, &range, |message| {
            // What can't be read is in a letter.
            if let Ok(batch) = envelope::decode::<Batch>(&message.body) {
                let _ = work.add(batch, message.position);
            }
            next = Some(message.position.sequence + 1);
            if work.rows.len() < PIECE { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        let Work { mut rows, .. } = work;
        tidy(&mut rows);
        // Those that are missing were counted when they were written first.
        let missing = gone.unsigned_abs().saturating_sub(back);
        let more = write(&writer, org, rows, missing).await.map_err(&fault)?;
        back += more;
        failpoint::hit(failpoint::AFTER_MENDED);
        if more == 0 {
            continue;
        }
        progress(format!("{}: {back} of {gone} lost rows read again", target.name));
        if next.is_none() {
            break;
        }
    }
    let left = missing(ledger::rows(target.database, org).await.map_err(&fault)?);
    Ok((back, left.max(0)))
}

/// Writes rows; those that the database refuses alone are left out: their letters tell. How many were not there.
async fn write(
    writer: &Writer,
    org: &OrgRef,
    rows: Vec<domain::Row>,
    missing: u64,
) -> Result<u64, store::Fault> {
    let (mut todo, mut inserted) = (vec![rows], 0);
    while let Some(rows) = todo.pop() {
        if rows.is_empty() {
            continue;
        }
        let mut work = Work { rows, ..Work::default() };
        work.page.recovered = missing.saturating_sub(inserted);
        match writer.write(org, &work).await {
            Ok(committed) => inserted += committed.counts().inserted,
            Err(fault) if fault.verdict != Verdict::Data => return Err(fault),
            Err(_) if work.rows.len() > 1 => {
                let second = work.rows.split_off(work.rows.len() / 2);
                todo.extend([second, work.rows]);
            }
            Err(_) => {}
        }
    }
    Ok(inserted)
}

/// Makes the ledgers of targets smaller: what is old, and can't be delivered again.
pub async fn fold(wire: &Wire, targets: &[Target<'_>], ledger: &Ledger) -> Result<(), Fault> {
    let raw = inspect::consumer(wire, RAW, NORMALIZE).await?.map_or(0, |normalize| normalize.done);
    let before = now().plus_micros(-FOLDED_AFTER);
    for (name, account) in &ledger.targets {
        let Some(target) = targets.iter().find(|target| target.name == name) else { continue };
        let below = (account.done, raw);
        while ledger::fold(target.database, below, before).await.map_err(target.fault())? {}
    }
    Ok(())
}

/// Applies messages again that a target has not noted, where the stream still has them: by the merge rule, like
/// everything. How many, and those that are left.
pub async fn apply_again(
    wire: &Wire,
    target: Target<'_>,
    orgs: &[OrgRef],
    hop: &Hop,
) -> Result<(u64, Vec<u64>), Fault> {
    let writer = Writer::new(target.database.clone());
    let (mut applied, mut left) = (0, Vec::new());
    for (sequence, _) in &hop.unaccounted {
        let subject = subject_of(wire, TELEMETRY, *sequence).await?;
        let org = match subject.as_deref().and_then(Subject::parse) {
            Some(Subject::Telemetry { org, .. }) => {
                orgs.iter().find(|known| known.key.as_str() == org)
            }
            _ => None,
        };
        let message = read_placed(wire, TELEMETRY, *sequence).await?;
        let (Some(org), Some((position, body))) = (org, message) else {
            left.push(*sequence);
            continue;
        };
        let mut work = Work::default();
        let added = envelope::decode::<Batch>(&body).is_ok_and(|it| work.add(it, position).is_ok());
        if !added {
            left.push(*sequence);
            continue;
        }
        let offered = work.rows.len();
        tidy(&mut work.rows);
        work.page.before.superseded = (offered - work.rows.len()) as u64;
        match writer.write(org, &work).await {
            Ok(_) => applied += 1,
            // A row that the database refuses: nobody knows which, and no letter is written here.
            Err(fault) if fault.verdict == Verdict::Data => left.push(*sequence),
            Err(fault) => return Err(target.fault()(fault)),
        }
    }
    Ok((applied, left))
}

/// Takes what is there as right: what is unaccounted for is written down as settled, and rows count as many as
/// there are.
pub(super) async fn settle(
    wire: &Wire,
    target: Target<'_>,
    raw: Option<&BTreeSet<u64>>,
    account: &Account,
) -> Result<(), Fault> {
    let fault = target.fault();
    let telemetry = account.hop.unaccounted.iter().map(|(sequence, _)| *sequence).collect();
    let hops = [(Noted::Raw, RAW, raw), (Noted::Telemetry, TELEMETRY, Some(&telemetry))];
    for (stream, name, missing) in hops {
        let Some(missing) = missing.filter(|missing| !missing.is_empty()) else { continue };
        let made = history::made(wire, name).await?;
        let sequences: Vec<u64> = missing.iter().copied().collect();
        let span = Span { stream, first: 0, last: u64::MAX, made };
        span.settle(target.database, &sequences, Why::Settled, now()).await.map_err(&fault)?;
    }
    for (org, rows) in &account.rows {
        if rows.found.is_some_and(|found| found != rows.counted) {
            ledger::settle_rows(target.database, org).await.map_err(&fault)?;
        }
    }
    if !account.off.is_empty() {
        ledger::settle_fates(target.database).await.map_err(&fault)?;
    }
    Ok(())
}
