//! Simulators: each runs in exactly one service, makes its readings interval by interval, and
//! publishes them to `TELEMETRY` like everybody.
//!
//! ```text
//! MODEL ─ pollers ─▶ owner (a simulator): lease ─▶ session: requests, time ─▶ produce ─▶ publish ─▶ save
//! ```
//!
//! What is made is a function of the building's memory before it. A message is published with the
//! expected sequence of the one before, and saved under the epoch of the lease: an owner that was
//! frozen and wakes up can write neither.

mod activity;
mod chain;
mod commands;
mod live;
mod owner;
mod session;
mod simulated;
mod tenure;
mod timing;

use anyhow::Context;
use domain::{
    Clock, Holds, SimulatorId, SystemClock,
    model::{ACTIVE, Poller, SIMULATOR},
};
use nats::{
    CancellationToken, Wire,
    model::{self, Followed},
    publish::Patience,
    report::{self, Report},
};
use service::{Config, Lifecycle};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use store::{Database, Limits, Login};

/// What every simulator of a service needs. Clones share it.
#[derive(Clone)]
struct Shared {
    wire: Wire,
    directory: Followed,
    database: Database,
    holds: Holds,
    shutdown: CancellationToken,
    clock: Arc<dyn Clock>,
    instance: String,
    /// How long a lease lasts that is not renewed.
    lease: Duration,
    counters: Arc<Counters>,
}

/// Since the service's start.
#[derive(Default)]
struct Counters {
    readings: AtomicU64,
    messages: AtomicU64,
}

impl Counters {
    fn list(&self) -> BTreeMap<String, u64> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BTreeMap::from([
            ("readings".to_owned(), of(&self.readings)),
            ("messages".to_owned(), of(&self.messages)),
        ])
    }
}

impl Shared {
    fn poller(&self, id: SimulatorId) -> Option<Arc<Poller>> {
        let poller = self.directory.read().poller(id).cloned()?;
        (poller.poller_type == SIMULATOR && poller.status == ACTIVE).then_some(poller)
    }

    fn pollers(&self) -> Vec<Arc<Poller>> {
        let mut pollers = self.directory.read().pollers();
        pollers.retain(|poller| poller.poller_type == SIMULATOR && poller.status == ACTIVE);
        pollers
    }
}

/// Runs until shutdown. It starts though the state database is away; an error is a mistake in the
/// configuration.
pub async fn run(
    config: &Config,
    wire: Wire,
    lifecycle: &Lifecycle,
    holds: Holds,
) -> anyhow::Result<()> {
    let url = config.state.url.clone().context(
        "state.url is not set: simulators keep what they remember in a database of its own",
    )?;
    let login = Login { url, pgpass: Some(config.pgpass()) };
    let database =
        Database::open(&login, "haystack-simulator", Limits::default()).context("state.url")?;
    let shutdown = lifecycle.shutdown.clone();
    let counters = Arc::new(Counters::default());
    let account = account(config.simulator.instance.clone(), holds.clone(), counters.clone());
    lifecycle.spawn(report::serve(wire.clone(), account, shutdown.clone()));
    let patience =
        Patience { holds: holds.clone(), what: "model".to_owned(), shutdown: shutdown.clone() };
    let Some(directory) = model::follow(wire.clone(), patience).await else { return Ok(()) };
    holds.release("model");
    let shared = Shared {
        wire,
        directory,
        database,
        holds,
        shutdown,
        clock: Arc::new(SystemClock),
        instance: config.simulator.instance.clone(),
        lease: Duration::from_secs(config.simulator.lease_seconds.into()),
        counters,
    };
    supervise(shared, lifecycle).await;
    Ok(())
}

/// Starts an owner for each simulator that there is or will be.
async fn supervise(mut shared: Shared, lifecycle: &Lifecycle) {
    let mut known = BTreeSet::new();
    loop {
        for poller in shared.pollers() {
            if known.insert(poller.id) {
                lifecycle.spawn(owner::run(shared.clone(), poller.id));
            }
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            changed = shared.directory.changed() => if !changed { return },
        }
    }
}

/// What the service says of itself when `status` asks.
fn account(instance: String, holds: Holds, counters: Arc<Counters>) -> impl Fn() -> Report {
    move || Report {
        service: "simulator".to_owned(),
        instance: instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holds: holds.list(),
        counters: counters.list(),
        details: BTreeMap::new(),
    }
}
