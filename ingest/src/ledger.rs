//! The ledger of each target: where it begins, and whether it balances, for the metrics.

use crate::{custody::Custody, target::Target};
use custody::ledger::{Account, Hop, Ledger};
use domain::{Clock, SystemClock, TargetName, ledger::hour_of};
use metrics::gauge;
use nats::{
    inspect::{self, NORMALIZE},
    model::{self, ModelFault},
    retention,
    retry::Pauses,
    streams::{RAW, TELEMETRY},
};
use std::{sync::Arc, time::Duration};
use store::ledger::{self, Since};
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

/// From where on everything is noted: behind what was delivered before there was a ledger.
async fn begin_once(target: &Target) -> Result<(), Fault> {
    let own = format!("ingest-{}-", target.name);
    let consumers = inspect::consumers(&target.wire, TELEMETRY).await?;
    let own = consumers.iter().filter(|(name, _)| name.starts_with(&own));
    let delivered = own.map(|(_, consumer)| consumer.delivered).max();
    let first = retention::held(&target.wire, TELEMETRY).await?.first;
    if ledger::since(&target.database).await?.is_some() {
        // Without a consumer, as after it was detached: it is given what the stream still has.
        if delivered.is_none() {
            ledger::begin_later(&target.database, first).await?;
        }
        return Ok(());
    }
    let delivered = delivered.unwrap_or(0);
    let telemetry = first.max(delivered + 1).max(1);
    let raw = if telemetry == 1 {
        1
    } else {
        let normalize = inspect::consumer(&target.wire, RAW, NORMALIZE).await?;
        normalize.map_or(0, |normalize| normalize.delivered) + 1
    };
    Ok(ledger::begin(&target.database, Since { telemetry, raw }).await?)
}

/// Looks again and again whether all targets' ledgers balance, until shutdown.
pub(crate) async fn watch(custody: Arc<Custody>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        match tokio::time::timeout(PATIENCE, look(&custody)).await {
            Ok(Ok(ledger)) => tell(&ledger),
            // What is away says so itself.
            Ok(Err(fault)) => tracing::debug!(%fault, "the ledger was not looked at"),
            Err(_) => tracing::debug!("the ledger was not looked at in time"),
        }
    }
}

async fn look(custody: &Custody) -> Result<Ledger, custody::Fault> {
    let now = hour_of(SystemClock.now());
    let directory = model::load(&custody.wire).await?;
    custody.ledger(&directory, (now, now), None).await
}

fn tell(ledger: &Ledger) {
    if let Some((primary, _)) = ledger.targets.first() {
        tell_hop("normalize", primary, &ledger.raw);
    }
    for (target, account) in &ledger.targets {
        tell_hop("ingest", target, &account.hop);
        let Account { off, rows, .. } = account;
        let readings: u64 = off.iter().map(|(.., off)| off.unsigned_abs()).sum();
        let rows = rows.iter().filter_map(|(_, rows)| Some(rows.found?.abs_diff(rows.counted)));
        let labels = [("target", target.to_string())];
        gauge!("haystack_ledger_unaccounted_readings", &labels).set(readings as f64);
        gauge!("haystack_ledger_unaccounted_rows", &labels).set(rows.sum::<u64>() as f64);
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
