//! The ledger of each target: where it begins, and whether it balances, for the metrics.

use crate::{custody::Custody, target::Target};
use custody::ledger::{Account, Hop, Ledger};
use domain::{Clock, OrgKey, SystemClock, TargetName, ledger::hour_of};
use metrics::gauge;
use nats::{
    history,
    inspect::{self, NORMALIZE},
    model::{self, ModelFault},
    retention,
    retry::Pauses,
    streams::{RAW, TELEMETRY},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use store::ledger::{self, Noted, Since, Span, Why};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the ledger balances.
const EVERY: Duration = Duration::from_mins(1);
/// Longest look.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Stream(#[from] ModelFault),
    #[error(transparent)]
    Database(#[from] store::Fault),
}

/// Begins a target's ledger before anything is applied; waits for its database. `false`: stopping.
pub(crate) async fn begin(target: &Target) -> bool {
    let patience = target.patience("ledger");
    let mut pauses = Pauses::default();
    loop {
        let why = match begin_once(target).await {
            Ok(()) => {
                patience.moving();
                return true;
            }
            Err(why) => why.to_string(),
        };
        if !patience.pause(&mut pauses, &why).await {
            return false;
        }
    }
}

/// From where on everything is noted: behind what was delivered before there was a ledger. A target that has no
/// consumer, as after it was detached, is given what the stream still has.
async fn begin_once(target: &Target) -> Result<(), Fault> {
    let consumers = inspect::consumers(&target.wire, TELEMETRY).await?;
    let prefix = format!("ingest-{}-", target.name);
    // Names of targets may hold what parts them from orgs' keys; those may not.
    let own = |name: &str| name.strip_prefix(&prefix).is_some_and(|key| OrgKey::parse(key).is_ok());
    let own = consumers.iter().filter(|(name, _)| own(name));
    let delivered = own.map(|(_, consumer)| consumer.delivered).max();
    let known = ledger::since(&target.database).await?.is_some();
    if known && delivered.is_some() {
        return Ok(());
    }
    let held = retention::held(&target.wire, TELEMETRY).await?;
    let telemetry = held.first.max(delivered.unwrap_or(0) + 1).max(1);
    let raw = if telemetry == 1 {
        1
    } else {
        let normalize = inspect::consumer(&target.wire, RAW, NORMALIZE).await?;
        normalize.map_or(0, |normalize| normalize.delivered) + 1
    };
    let since = Since { telemetry, raw };
    if known {
        ledger::begin_later(&target.database, since).await?;
    } else {
        ledger::begin(&target.database, since).await?;
    }
    // What was taken out of the middle, as of an org that was ahead of others, is not given to it either.
    let mut gone = retention::taken_out(&target.wire, TELEMETRY).await?;
    gone.retain(|sequence| (telemetry..=held.last).contains(sequence));
    let made = history::made(&target.wire, TELEMETRY).await?;
    let span = Span { stream: Noted::Telemetry, first: telemetry, last: held.last, made };
    Ok(span.settle(&target.database, &gone, Why::Explained, SystemClock.now()).await?)
}

/// What was seen last, for people; empty: nothing yet.
pub(crate) type Seen = Arc<Mutex<String>>;

/// Looks again and again whether all targets' ledgers balance, until shutdown.
pub(crate) async fn watch(custody: Arc<Custody>, seen: Seen, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let round = async {
            let ledger = look(&custody).await?;
            tell(&ledger);
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = summary(&ledger);
            custody::ledger::fold(&custody.wire, &custody.all(), &ledger).await
        };
        match tokio::time::timeout(PATIENCE, round).await {
            Ok(Ok(())) => {}
            // What is away says so itself.
            Ok(Err(fault)) => tracing::debug!(%fault, "the ledger was not looked at"),
            Err(_) => tracing::warn!("the ledger was not looked at within {PATIENCE:?}"),
        }
    }
}

async fn look(custody: &Custody) -> Result<Ledger, custody::Fault> {
    let now = hour_of(SystemClock.now());
    let directory = model::load(&custody.wire).await?;
    custody.ledger(&directory, (now, now), (None, Some(false))).await
}

/// The same for a report.
pub(crate) fn told(seen: &Seen) -> BTreeMap<String, String> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let seen = Some(seen).filter(|seen| !seen.is_empty());
    seen.into_iter().map(|seen| ("ledger".to_owned(), seen)).collect()
}

fn summary(ledger: &Ledger) -> String {
    let at = SystemClock.now();
    if !ledger.is_balanced() {
        return format!("NOT balanced at {at}: `haystack ledger` says where");
    }
    let away = ledger.away.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if away.is_empty() {
        format!("balanced at {at}")
    } else {
        format!("{away} did not answer at {at}")
    }
}

fn tell(ledger: &Ledger) {
    if let Some((primary, _)) = ledger.targets.first() {
        tell_hop("normalize", primary, &ledger.raw);
        if !ledger.raw.is_balanced() {
            tracing::error!("messages of RAW are unaccounted for: `haystack ledger` names them");
        }
    }
    for (target, account) in &ledger.targets {
        tell_hop("ingest", target, &account.hop);
        let Account { off, rows, .. } = account;
        let readings: u64 = off.iter().map(|(.., off)| off.unsigned_abs()).sum();
        let rows = rows.iter().filter_map(|(_, rows)| Some(rows.found?.abs_diff(rows.counted)));
        let labels = [("target", target.to_string())];
        gauge!("haystack_ledger_unaccounted_readings", &labels).set(readings as f64);
        gauge!("haystack_ledger_unaccounted_rows", &labels).set(rows.sum::<u64>() as f64);
        let now = SystemClock.now().micros() as f64 / 1e6;
        gauge!("haystack_ledger_looked_at_seconds", &labels).set(now);
        if !account.is_balanced() {
            tracing::error!(%target, "the ledger does not balance: `haystack ledger` says where");
        }
    }
}

fn tell_hop(hop: &'static str, target: &TargetName, of: &Hop) {
    let labels = [("hop", hop.to_owned()), ("target", target.to_string())];
    gauge!("haystack_ledger_unaccounted_messages", &labels).set(of.unaccounted.len() as f64);
    gauge!("haystack_ledger_in_flight_messages", &labels).set(of.in_flight as f64);
}
