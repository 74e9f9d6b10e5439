//! Values by HTTP: `POST /bulk/value` of the real API with ingest and both databases, beside the Python
//! service of `bench/peers` that does the same with the same clusters.
//!
//! The clock runs from the first request until both databases have committed every value that was
//! answered with a yes. Ours says yes when the primary has it, so the wait for the other counts; the
//! peer says yes after both.

use crate::{
    bulk::{Bodies, Clients, Door, Load},
    databases,
    fastapi::FastApi,
    history,
    http::Connection,
    machine,
    meter::{Cost, Meter, Watched},
    options::Options,
    process::Service,
    report::{Report, Sample, bulk_name, fastapi_name},
    stack::Stack,
};
use anyhow::{Context, Result};
use nats::{
    inspect,
    registry::{self, Opens},
    streams::{DEAD, TELEMETRY},
};
use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

/// Values of a request.
const SIZES: [u64; 2] = [280, 5_000];
/// Clients at once.
const CLIENTS: [usize; 3] = [1, 8, 32];
/// How often consumers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a first yes, and for the last rows.
const LIMIT: Duration = Duration::from_mins(2);

/// Ours and the peer in turn, as often as asked; then a day of a point.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    let guest = Guest::invite(stack).await?;
    for round in 1..=options.rounds {
        ours(stack, options, report, round, &guest).await?;
        if let Some(libraries) = options.peers() {
            theirs(stack, options, report, round, &libraries).await?;
        }
    }
    history::rounds(stack, options, report, &guest).await
}

/// Who sends, and for what.
pub(crate) struct Guest {
    key: String,
    /// The first entity's number.
    pub(crate) first: u64,
}

impl Guest {
    /// Makes the entities and a key.
    async fn invite(stack: &Stack) -> Result<Self> {
        let token = registry::new_token();
        let (name, opens) = ("bench".to_owned(), Opens::Platform);
        registry::add_key_as(&stack.admin, &token, name, opens, None).await?;
        let first = stack.register_entities().await?;
        Ok(Self { key: token.reveal().clone(), first })
    }
}

/// Our two services while they are measured.
pub(crate) struct Services {
    api: Service,
    ingest: Service,
    /// Where the API answers.
    pub(crate) door: Door,
}

impl Services {
    /// Starts them on empty streams and tables, and waits until a first value is through.
    pub(crate) async fn start(stack: &Stack, guest: &Guest) -> Result<Self> {
        stack.forget_consumers().await?;
        for stream in [TELEMETRY, DEAD] {
            stack.purge(stream).await?;
        }
        for target in &stack.targets {
            target.empty(&stack.org).await?;
        }
        let ingest = stack.service("ingest", stack.targets.len())?;
        let (api, address) = stack.api()?;
        let key = Some(guest.key.clone());
        let door = Door { address, key, org: stack.org.id.0, first: guest.first };
        let mut services = Self { api, ingest, door };
        services.warm_up(stack).await?;
        Ok(services)
    }

    async fn warm_up(&mut self, stack: &Stack) -> Result<()> {
        let mut bodies = Bodies::new(&self.door, 1);
        bodies.build(0);
        let started = Instant::now();
        loop {
            self.check()?;
            let said = first(self.door.address, self.door.key.as_deref(), &bodies.body).await;
            if said.is_ok() {
                return self.until_stored(stack).await;
            }
            if started.elapsed() > LIMIT {
                let (api, ingest) = (self.api.tail(), self.ingest.tail());
                return said.with_context(|| format!("no yes\napi:\n{api}\ningest:\n{ingest}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Everything that costs something.
    pub(crate) fn watched(&self, stack: &Stack) -> Vec<Watched> {
        let mut watched = servers(stack);
        watched.push(("nats", stack.nats_pid()));
        watched.extend([("api", self.api.pid()), ("ingest", self.ingest.pid())]);
        watched
    }

    fn check(&mut self) -> Result<()> {
        self.api.check()?;
        self.ingest.check()
    }

    /// Waits until every target has all that the stream took.
    async fn until_stored(&mut self, stack: &Stack) -> Result<()> {
        let started = Instant::now();
        loop {
            self.check()?;
            let consumers = inspect::consumers(&stack.admin, TELEMETRY).await?;
            let all = consumers.len() == stack.targets.len();
            if all && consumers.values().all(|state| state.lag() == 0) {
                return Ok(());
            }
            let tail = || format!("not all is stored: {consumers:?}\n{}", self.ingest.tail());
            anyhow::ensure!(started.elapsed() < LIMIT, tail());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops them, as a service manager would.
    pub(crate) async fn stop(self) -> Result<()> {
        self.api.stop().await?;
        self.ingest.stop().await
    }
}

/// One value, if the API is ready for it.
async fn first(address: SocketAddr, key: Option<&str>, body: &[u8]) -> Result<()> {
    let mut connection = Connection::open(address, key).await?;
    connection.get("/readyz").await?.yes()?;
    connection.post("/bulk/value", body).await?.yes()
}

/// The databases, and ourselves as those who send.
fn servers(stack: &Stack) -> Vec<Watched> {
    let mut watched: Vec<Watched> = stack.targets.iter().map(|t| (t.name, t.pid())).collect();
    watched.push(("load", std::process::id()));
    watched
}

fn loads(options: &Options) -> impl Iterator<Item = Load> {
    let time = options.api_time();
    let each = move |values| CLIENTS.map(|clients| Load { values, clients, time });
    SIZES.into_iter().flat_map(each)
}

fn sample(measure: String, round: u32, count: u64, quiet: bool, cost: Cost) -> Sample {
    Sample { measure, round, unit: "values", count, readings_each: 1, quiet, cost }
}

async fn ours(
    stack: &Stack,
    options: &Options,
    report: &mut Report,
    round: u32,
    guest: &Guest,
) -> Result<()> {
    let mut services = Services::start(stack, guest).await?;
    for load in loads(options) {
        let quiet = databases::fresh(&stack.targets, &stack.org, options.quiet_wait()).await?;
        let clients = Clients::connect(&services.door, load).await?;
        let meter = Meter::start(&services.watched(stack));
        let sent = clients.run().await?;
        services.until_stored(stack).await?;
        let mut cost = meter.look();
        let values = sent.values;
        cost.requests = sent.requests();
        let refused = cost.requests.is_none_or(|requests| requests.refused > 0);
        anyhow::ensure!(!refused, "the API refused values\n{}", services.api.tail());
        let targets: Vec<_> = stack.targets.iter().collect();
        databases::check(&targets, &stack.org, values).await?;
        report.add(sample(bulk_name(load.values, load.clients), round, values, quiet, cost));
    }
    services.stop().await
}

async fn theirs(
    stack: &Stack,
    options: &Options,
    report: &mut Report,
    round: u32,
    libraries: &Path,
) -> Result<()> {
    let peer = FastApi::start(stack, libraries).await?;
    for load in loads(options) {
        peer.empty(stack).await?;
        let quiet = machine::quiet(options.quiet_wait()).await;
        let clients = Clients::connect(&peer.door, load).await?;
        let mut watched = servers(stack);
        watched.push(("api", peer.pid()));
        let meter = Meter::start(&watched);
        let sent = clients.run().await?;
        let mut cost = meter.look();
        let values = sent.values;
        cost.requests = sent.requests();
        peer.check(stack, values).await?;
        report.add(sample(fastapi_name(load.values, load.clients), round, values, quiet, cost));
    }
    peer.stop().await
}
