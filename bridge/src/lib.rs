//! From MQTT to `RAW`, and from `RAW` to `TELEMETRY`.
//!
//! [`mqtt`] brings device messages; the door packs them into `RAW` and says yes to the broker;
//! normalize reads `RAW` and turns payloads into readings by the device type's rules.

mod assemble;
mod commands;
mod counters;
mod door;
mod letters;
pub mod mqtt;
mod normalize;
pub mod replay;

use anyhow::Context;
use counters::Counters;
use domain::{
    DeviceId, Holds,
    chunk::{self, Digest},
};
use mqtt::{Broker, Tls};
use nats::{
    CancellationToken, Wire,
    model::{self, Followed},
    publish::Patience,
    report::{self, Report},
};
use service::{Config, Lifecycle, lifecycle::DRAIN_LIMIT, secrets};
use std::{
    collections::BTreeSet,
    sync::{Arc, RwLock},
    time::Duration,
};
use tokio::sync::oneshot;

/// The bridge's user at the broker.
const MQTT_USER: &str = "haystack.bridge";
/// The name of its secret.
const MQTT_SECRET: &str = "mqtt-bridge";

/// Hexadecimal digits of a shared group's name that nobody can guess.
const SHARE_SECRET: usize = 32;
/// The name of the secret part of its client id.
const SESSION_SECRET: &str = "mqtt-session";

/// What every part of the bridge needs. Clones share it.
#[derive(Clone)]
struct Shared {
    wire: Wire,
    directory: Followed,
    counters: Arc<Counters>,
    holds: Holds,
    shutdown: CancellationToken,
    /// The way out to devices.
    link: mqtt::Link,
    /// Gateways that have begun more reports than can be set aside: the door takes no part of them.
    overrun: Arc<RwLock<BTreeSet<DeviceId>>>,
    /// How long `RAW` waits for an acknowledgement.
    ack_wait: Duration,
    /// How many letters of its own a sender may have.
    quota: Arc<nats::letters::Quota>,
}

impl Shared {
    /// Retries without end; `what` is the name in the holds.
    fn patience(&self, what: impl Into<String>) -> Patience {
        Patience { holds: self.holds.clone(), what: what.into(), shutdown: self.shutdown.clone() }
    }
}

/// Runs the bridge until shutdown, and returns when what was taken is stored and confirmed, or
/// will come again.
pub async fn run(
    config: &Config,
    wire: Wire,
    lifecycle: &Lifecycle,
    holds: Holds,
) -> anyhow::Result<()> {
    serve(config, broker(config)?, wire, lifecycle, holds).await
}

/// Gives this instance's place at the broker up for good: unsubscribes, stores what the broker still
/// holds for it, ends the session, and returns.
pub async fn leave(
    config: &Config,
    wire: Wire,
    lifecycle: &Lifecycle,
    holds: Holds,
) -> anyhow::Result<()> {
    serve(config, broker(config)?.leaving(), wire, lifecycle, holds).await
}

async fn serve(
    config: &Config,
    broker: Broker,
    wire: Wire,
    lifecycle: &Lifecycle,
    holds: Holds,
) -> anyhow::Result<()> {
    let instance = config.bridge.instance.clone();
    let counters = Arc::new(Counters::new());
    let shutdown = lifecycle.shutdown.clone();
    let leaving = broker.is_leaving();
    let (link, outflow) = mqtt::Link::new();
    let account = {
        let (instance, holds, counters) = (instance.clone(), holds.clone(), counters.clone());
        account(instance, holds, counters, broker.clone(), link.clone())
    };
    lifecycle.spawn(report::serve(wire.clone(), account, shutdown.clone()));

    let patience =
        Patience { holds: holds.clone(), what: "model".to_owned(), shutdown: shutdown.clone() };
    // Nothing is taken before it is known who the senders are.
    let Some(directory) = model::follow(wire.clone(), patience).await else { return Ok(()) };
    let wire = wire.knowing(directory.clone());
    let ack_wait = config.ack_wait();
    let overrun = Arc::default();
    let quota = Arc::new(nats::letters::Quota::new(config.retention.letters_per_device.into()));
    let shared =
        Shared { wire, directory, counters, holds, shutdown, link, overrun, ack_wait, quota };
    let limits = config.time_limits();
    let open = chunk::Limits {
        age: Duration::from_secs(config.bridge.transaction_seconds.into()),
        ..chunk::Limits::default()
    };
    let (looked, may_go) = oneshot::channel();
    if !leaving {
        lifecycle.spawn(commands::run(shared.clone()));
        lifecycle.spawn(letters::run(shared.clone(), limits));
        let settings = replay::Settings {
            limits,
            targets: config.targets.keys().cloned().collect(),
            lag: Duration::from_millis(config.replay.lag_ms),
            owner: format!("{instance}/{:016x}", nats::pack::random()),
        };
        lifecycle.spawn(replay::run(shared.clone(), settings));
    }
    let assemble = tokio::spawn(assemble::run(shared.clone(), open, may_go));
    let door_closed = CancellationToken::new();
    let closing = door_closed.clone().drop_guard();
    let door = door::run(shared.clone(), broker, instance, outflow, looked, closing);
    let stop = shared.shutdown.clone();
    let door = tokio::spawn(async move {
        let listened = door.await;
        // Whoever left the broker has nothing more to do.
        stop.cancel();
        listened
    });
    let normalize = tokio::spawn(normalize::run(shared.clone(), limits, door_closed));
    tokio::select! {
        done = async { tokio::try_join!(door, normalize, assemble) } => {
            let (listened, (), ()) = done.context("a part of the bridge failed")?;
            listened?;
        }
        () = out_of_time(&shared.shutdown) => {
            tracing::warn!("stopping before all was confirmed; what was not comes again");
        }
    }
    Ok(())
}

/// Draining has a limit: what waits for a server that is away is nobody's yet, and comes again.
async fn out_of_time(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN_LIMIT).await;
}

fn broker(config: &Config) -> anyhow::Result<Broker> {
    let password = secrets::read(&config.secrets.dir, MQTT_SECRET)?;
    // Whoever connects under a client id takes its session over, or ends it. Where devices sign in
    // without a name, the id must not be guessed.
    let session = secrets::read(&config.secrets.dir, SESSION_SECRET)?;
    let client_id = format!("{}-{}", config.bridge.instance, session.reveal());
    let mqtt = &config.mqtt;
    let identity = match (&mqtt.cert, &mqtt.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => anyhow::bail!("mqtt.cert and mqtt.key belong together: set both or none"),
    };
    let tls = mqtt.ca.clone().map(|ca| Tls { ca, identity });
    let broker = Broker::new(&mqtt.url, tls, &client_id, MQTT_USER, password.reveal())?;
    Ok(match &mqtt.share {
        Some(group) => {
            let broker = broker.shared(group)?;
            // A broker may deal messages to whoever names the group, and keep them from us although
            // the stranger may not read them: the name must not be guessed.
            let secret = Digest::of(format!("{group}/{}", password.reveal()).as_bytes());
            broker.shared(&format!("{group}-{}", &secret.to_string()[..SHARE_SECRET]))?
        }
        None => broker,
    })
}

/// What the bridge says of itself when `status` asks.
fn account(
    instance: String,
    holds: Holds,
    counters: Arc<Counters>,
    broker: Broker,
    link: mqtt::Link,
) -> impl Fn() -> Report {
    move || Report {
        service: "bridge".to_owned(),
        instance: instance.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        holds: holds.list(),
        counters: counters.list(),
        details: [
            ("mqtt".to_owned(), session(&broker, link.connected().as_ref())),
            ("broker".to_owned(), link.heard().to_string()),
        ]
        .into(),
    }
}

/// The session at the broker, for people.
fn session(broker: &Broker, connected: Option<&mqtt::Connected>) -> String {
    match connected {
        None => format!("no connection to {broker}"),
        Some(mqtt::Connected { since, session_kept }) => {
            let session = if *session_kept { "its session was kept" } else { "a new session" };
            format!("connected to {broker} since {since}, {session}")
        }
    }
}
