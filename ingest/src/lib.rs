//! `TELEMETRY` to every target: the model first, then readings, an org and a target at a time.
//!
//! ```text
//!                     ┌ model: MODEL -> tables ─ orgs ┐
//! target (each alone) ┤                               ▼
//!                     ├ worker (an org): gather -> write -> settle -> acknowledge
//!                     └ archive: RAW -> core.telemetry_raw, where it is on
//! trim: what every registered target has applied leaves RAW and TELEMETRY, when it is old
//! ```

mod archive;
mod attend;
mod batching;
mod bisect;
mod counters;
mod custody;
mod every;
mod gather;
mod gathered;
mod jobs;
mod keep;
mod ledger;
mod letter;
mod model;
mod settle;
mod target;
mod trim;
mod worker;
mod write;

use anyhow::Context;
use counters::Counters;
use domain::{Holds, TargetName};
use nats::{
    Wire,
    publish::Patience,
    report::{self, Report},
    retry::Pauses,
};
use service::{Config, Lifecycle};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};
use store::{Database, Login, OrgRef};
use target::Target;

/// Connections to each target for those who ask where readings are, and for jobs.
const READERS: u32 = 4;

/// Runs until shutdown. It starts though every database is away; an error is a mistake in the
/// configuration.
pub async fn run(
    config: &Config,
    wire: Wire,
    lifecycle: &Lifecycle,
    holds: Holds,
) -> anyhow::Result<()> {
    let counters = Arc::new(Counters::new(config.targets.keys()));
    for (name, settings) in &config.targets {
        let login = Login { url: settings.url.clone(), pgpass: Some(config.pgpass()) };
        let (config, wire, name) = (config.clone(), wire.clone(), name.clone());
        let (holds, counters) = (holds.clone(), counters.clone());
        let opened = name.clone();
        let open = move |part: &Lifecycle| {
            let (wire, holds, counters) = (wire.clone(), holds.clone(), counters.clone());
            let shutdown = part.shutdown.clone();
            Target::open(&config, &name, &login, wire, holds, shutdown, counters)
        };
        let target = open(lifecycle).with_context(|| format!("targets.{opened}"))?;
        let part = lifecycle.clone();
        let archives = settings.archives();
        lifecycle.spawn(attend::run(part, target, open, archives));
    }
    let patience = |what: &str| Patience {
        holds: holds.clone(),
        what: what.to_owned(),
        shutdown: lifecycle.shutdown.clone(),
    };
    let names = config.targets.keys().cloned().collect();
    let settings = config.retention.into();
    lifecycle.spawn(trim::run(wire.clone(), settings, names, patience("trim")));
    let custody = custody::Custody { wire: wire.clone(), targets: readers(config)? };
    let custody = Arc::new(custody);
    let seen = ledger::Seen::default();
    lifecycle.spawn(ledger::watch(custody.clone(), seen.clone(), lifecycle.shutdown.clone()));
    let instance = config.ingest.instance.clone();
    let worker = format!("{instance}/{:016x}", nats::pack::random());
    let limits = config.time_limits();
    let jobs = Arc::new(jobs::Jobs { custody: custody.clone(), limits, worker });
    for _ in 0..jobs::AT_ONCE {
        lifecycle.spawn(jobs::run(jobs.clone(), lifecycle.shutdown.clone()));
    }
    lifecycle.spawn(custody::run(custody, patience("custody")));
    let report = move || Report {
        service: "ingest".to_owned(),
        instance: instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holds: holds.list(),
        counters: counters.list(),
        details: ledger::told(&seen),
    };
    lifecycle.spawn(report::serve(wire, report, lifecycle.shutdown.clone()));
    lifecycle.shutdown.cancelled().await;
    Ok(())
}

/// Connections to every target for those who ask where readings are, the primary first.
fn readers(config: &Config) -> anyhow::Result<Vec<(TargetName, Database)>> {
    let open = |(name, settings): (&TargetName, &service::config::Target)| {
        let login = Login { url: settings.url.clone(), pgpass: Some(config.pgpass()) };
        let limits = store::Limits { connections: READERS, ..store::Limits::default() };
        let database = Database::open(&login, "haystack-custody", limits);
        Ok((name.clone(), database.with_context(|| format!("targets.{name}"))?))
    };
    let mut targets: Vec<_> = config.targets.iter().map(open).collect::<anyhow::Result<_>>()?;
    targets.sort_by_key(|(name, _)| name != config.primary().0);
    Ok(targets)
}

/// Begins everything that a target does.
fn begin(target: &Arc<Target>, archives: bool, lifecycle: &Lifecycle) {
    if archives {
        let what = "archive".to_owned();
        for_ever(lifecycle, target.clone(), what, archive::run);
    }
    lifecycle.spawn(archive::expire(target.clone()));
    lifecycle.spawn(archive::history(target.clone()));
    supervise(target.clone(), lifecycle);
}

/// Projects the model, and starts a worker for each org that it has made tables for.
fn supervise(target: Arc<Target>, lifecycle: &Lifecycle) {
    let started = Arc::new(Mutex::new(BTreeSet::new()));
    let own = lifecycle.clone();
    let job = move |target: Arc<Target>| {
        let (started, lifecycle) = (started.clone(), own.clone());
        async move {
            let start = |orgs| start_workers(&target, &lifecycle, &started, orgs);
            if ledger::begin(&target).await {
                model::follow(&target, start).await;
            }
        }
    };
    for_ever(lifecycle, target, "MODEL".to_owned(), job);
}

fn start_workers(
    target: &Arc<Target>,
    lifecycle: &Lifecycle,
    started: &Mutex<BTreeSet<OrgRef>>,
    orgs: Vec<OrgRef>,
) {
    for org in orgs {
        // A panic while it was locked left the set whole: every change is one call.
        let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
        if started.insert(org.clone()) {
            target.orgs_changed.notify_one();
            let what = org.key.to_string();
            let job = move |target| worker::run(target, org.clone());
            for_ever(lifecycle, target.clone(), what, job);
        }
    }
}

/// Runs a job until it ends by itself. A panic is a hold, and the job starts again: nothing that
/// one message does may stop an org for good.
fn for_ever<F>(
    lifecycle: &Lifecycle,
    target: Arc<Target>,
    what: String,
    job: impl Fn(Arc<Target>) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    lifecycle.spawn(async move {
        let patience = target.patience(&what);
        let mut pauses = Pauses::default();
        while let Err(error) = tokio::spawn(job(target.clone())).await {
            let why = format!("a fault of this program, please report it: {error}");
            if !patience.pause(&mut pauses, &why).await {
                return;
            }
        }
    });
}
