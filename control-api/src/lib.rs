//! The control API: HTTP for people and programs. Thin: it knows who calls, checks what comes, and hands
//! it to whoever does it; it keeps nothing of its own.
//!
//! ```text
//! caller ─ shell (id, limits) ─ caller (key, token) ─ route ┬─ values ──▶ TELEMETRY ─▶ primary ─▶ 200
//!                                                           ├─ model ───▶ MODEL ─────▶ primary ─▶ 200
//!                                                           ├─ simulators: asked over NATS
//!                                                           └─ reads: the primary, by org
//! ```

#![allow(clippy::struct_field_names, reason = "names of fields are those that clients know")]

mod auth;
mod caller;
mod door;
mod extract;
mod idempotency;
mod model;
mod openapi;
mod outcomes;
mod page;
mod problem;
mod routes;
mod serve;
mod shape;
mod share;
mod shell;
pub mod sign_in;
pub mod starting;

pub use openapi::document;

use anyhow::Context;
use auth::Tokens;
use caller::Caller;
use domain::{Clock, Holds, SystemClock, TargetName};
use nats::{
    CancellationToken, Wire,
    model::{Followed, follow},
    publish::Patience,
    report::{self, Report},
};
use outcomes::Outcomes;
use problem::Problem;
use service::{Config, Lifecycle, config};
use share::Most;
use std::{collections::BTreeMap, ops::Deref, sync::Arc, time::Duration};
use store::{Database, Limits as DatabaseLimits, Login};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// How long a caller's statement may take.
const STATEMENT: Duration = Duration::from_secs(15);
/// How long a caller waits for a free connection to the database: an exhausted pool is told at once.
const CONNECTION: Duration = Duration::from_secs(1);

/// How often it is looked at whether the primary answers.
const WATCH: Duration = Duration::from_secs(5);

/// What every route needs. Clones share it.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

impl Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

pub(crate) struct Shared {
    pub(crate) wire: Wire,
    pub(crate) directory: Followed,
    pub(crate) primary: TargetName,
    pub(crate) targets: Vec<TargetName>,
    /// The primary, as callers may read it: by [`Api::reading`].
    database: Database,
    /// The same by connections of its own: how far it is must be told however many read.
    pub(crate) pulse: Database,
    /// What simulators did; none where there are no simulators.
    pub(crate) state: Option<Database>,
    pub(crate) tokens: Tokens,
    pub(crate) outcomes: Outcomes,
    pub(crate) telemetry: door::Door,
    pub(crate) gate: Gate,
    pub(crate) limits: Limits,
    pub(crate) holds: Holds,
    pub(crate) metrics: service::health::PrometheusHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shutdown: CancellationToken,
}

impl Api {
    /// The primary for a caller's query, when it is the caller's turn: whoever asks for much waits for
    /// itself.
    pub(crate) async fn reading(&self, caller: &Caller) -> Result<Reading<'_>, Problem> {
        let busy = || Problem::away("too many queries of yours at once; try again soon");
        let turn = self.gate.queries.enter(caller, CONNECTION).await.ok_or_else(busy)?;
        Ok(Reading { database: &self.database, _turn: turn })
    }
}

/// The primary, for one query.
pub(crate) struct Reading<'a> {
    database: &'a Database,
    _turn: OwnedSemaphorePermit,
}

impl Deref for Reading<'_> {
    type Target = Database;
    fn deref(&self) -> &Database {
        self.database
    }
}

/// How much goes on at once.
pub(crate) struct Gate {
    pub(crate) requests: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) streams_of: share::Shares,
    pub(crate) requests_of: share::Shares,
    /// Queries at once.
    pub(crate) queries: share::Lanes,
    /// Room for what callers send and what they are sent, in KiB.
    pub(crate) bodies: Arc<Semaphore>,
    pub(crate) answers: Arc<Semaphore>,
    pub(crate) answers_of: share::Shares,
}

/// Memory for bodies that callers send, of all requests together, in KiB.
const BODIES: usize = 64 << 10;
/// The same of large answers that are on their way.
const ANSWERS: usize = 64 << 10;
/// Most streams that one caller follows at once.
const STREAMS_EACH: usize = 32;
/// Connections for what must be told however many read.
const PULSE: u32 = 4;
/// One org's queries have this part of the connections.
const QUERIES_PART: usize = 4;

/// Limits of what callers may ask.
pub(crate) struct Limits {
    pub(crate) request: Duration,
    pub(crate) commit: Duration,
    pub(crate) values: usize,
    pub(crate) values_bytes: usize,
    /// How far ahead of ours a clock may be that a value bears.
    pub(crate) time: domain::normalize::TimeLimits,
}

/// Runs until shutdown. It starts though every database is away; an error is a mistake in the
/// configuration.
pub async fn run(
    config: &Config,
    wire: Wire,
    listener: TcpListener,
    lifecycle: &Lifecycle,
    holds: Holds,
    metrics: service::health::PrometheusHandle,
    opened: CancellationToken,
) -> anyhow::Result<()> {
    // Whoever made a choice before us has made the same.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let settings = &config.api;
    let shutdown = lifecycle.shutdown.clone();
    let tls = serve::tls(settings)?;
    let connections = config.api.connections;
    let database = open(config, &config.api_url(), connections).context("api.url")?;
    let pulse = open(config, &config.api_url(), PULSE).context("api.url")?;
    let state = config.api_state_url().map(|url| open(config, &url, connections)).transpose();
    let state = state.context("api.state_url")?;
    lifecycle.spawn(report::serve(wire.clone(), account(config, &holds), shutdown.clone()));
    let patience =
        Patience { holds: holds.clone(), what: "model".to_owned(), shutdown: shutdown.clone() };
    let Some(directory) = follow(wire.clone(), patience).await else { return Ok(()) };
    holds.release("model");
    let primary = config.primary().0.clone();
    let outcomes = Outcomes::new(wire.clone(), primary.clone());
    lifecycle.spawn(outcomes.clone().listen(shutdown.clone()));
    let telemetry = door::Door::new(wire.clone(), settings);
    lifecycle.spawn(watch(pulse.clone(), config.api_url(), holds.clone(), shutdown.clone()));
    if tls.is_none() && listener.local_addr().is_ok_and(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            "keys and tokens travel unencrypted off this machine: set api.tls_cert and api.tls_key, or \
             let something that speaks TLS stand before this"
        );
    }
    let api = Api(Arc::new(Shared {
        wire: wire.knowing(directory.clone()),
        directory,
        primary,
        targets: config.targets.keys().cloned().collect(),
        database,
        pulse,
        state,
        tokens: Tokens::new(&config.auth).context("auth.issuers")?,
        outcomes,
        telemetry,
        gate: Gate {
            requests: Semaphore::new(settings.max_requests),
            streams: Arc::new(Semaphore::new(settings.max_streams)),
            streams_of: share::Shares::new(Most {
                caller: STREAMS_EACH.min(settings.max_streams),
                ..Most::of(settings.max_streams)
            }),
            requests_of: share::Shares::new(Most::of(settings.max_requests)),
            queries: share::Lanes::new(settings.connections as usize / QUERIES_PART),
            bodies: Arc::new(Semaphore::new(BODIES)),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            answers_of: share::Shares::new(Most::of(ANSWERS)),
        },
        limits: limits(config),
        holds,
        metrics,
        clock: Arc::new(SystemClock),
        shutdown: shutdown.clone(),
    }));
    let routes = routes::all(api, &settings.cors_origins);
    // From now on what comes is answered here.
    opened.cancel();
    serve::serve(listener, routes, settings, tls, shutdown).await;
    Ok(())
}

/// Says while callers can't be answered from the primary, and by which address it is looked for.
async fn watch(database: Database, url: String, holds: Holds, shutdown: CancellationToken) {
    loop {
        if let Err(fault) = database.ping().await {
            // Whoever may ask for health need not know where it is.
            let why = "the primary does not answer the API; its log says by which address it is looked for";
            if holds.hold("api.url", why, SystemClock.now()) {
                tracing::warn!(url, %fault, "the primary does not answer the API");
            }
        } else if holds.release("api.url") {
            tracing::info!("the primary answers the API again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(WATCH) => {}
        }
    }
}

fn open(config: &Config, url: &str, connections: u32) -> anyhow::Result<Database> {
    let login = Login { url: url.to_owned(), pgpass: Some(config.pgpass()) };
    let limits = DatabaseLimits {
        connections,
        connect: CONNECTION,
        statement: STATEMENT,
        ..DatabaseLimits::default()
    };
    Ok(Database::open(&login, "haystack-api", limits)?)
}

fn limits(config: &Config) -> Limits {
    let config::Api { request_seconds, commit_seconds, .. } = config.api;
    Limits {
        request: Duration::from_secs(request_seconds.into()),
        commit: Duration::from_secs(commit_seconds.into()),
        values: config.api.max_values,
        values_bytes: config.api.max_values_bytes,
        time: domain::normalize::TimeLimits {
            ahead_micros: i64::from(config.bridge.future_limit_seconds) * 1_000_000,
            ..domain::normalize::TimeLimits::default()
        },
    }
}

/// What the service says of itself when `status` asks.
fn account(config: &Config, holds: &Holds) -> impl Fn() -> Report + use<> {
    let (instance, holds) = (config.api.instance.clone(), holds.clone());
    move || Report {
        service: "control-api".to_owned(),
        instance: instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holds: holds.list(),
        counters: BTreeMap::new(),
        details: BTreeMap::new(),
    }
}
