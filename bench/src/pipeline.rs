//! From MQTT into both databases, beside what Mosquitto alone carries in and out under the same
//! load.
//!
//! The clock runs from the first publish until the last row is committed in both databases: the
//! load has its last PUBACK, no consumer has anything left, and the rows are all there. (They are
//! counted after the clock was read.)

use crate::{
    databases, feed, machine,
    message::DEVICES,
    meter::{Cost, Meter, Watched},
    mqtt::{self, Client, Packet, Session},
    options::Options,
    process::{Helper, Service},
    report::{Report, Sample, bare_name, path_name},
    stack::Stack,
};
use anyhow::{Context, Result};
use nats::{
    inspect::{self, NORMALIZE},
    streams::{DEAD, RAW, TELEMETRY},
};
use std::time::{Duration, Instant};

/// Bytes of a device's message, at least.
const PAYLOAD: usize = 200;
/// How often consumers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the first message is sent until it arrives.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the first message, and for the last.
const LIMIT: Duration = Duration::from_mins(10);

/// Mosquitto alone and the whole path in turn, as often as asked.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    stack.register_devices().await?;
    for round in 1..=options.rounds {
        let sizes = [(options.messages, 1), (options.large_messages, 30)];
        for (count, readings_each) in sizes.into_iter().filter(|&(count, _)| count > 0) {
            let sample = |measure, quiet, cost| {
                let unit = "messages";
                Sample { measure, round, unit, count, readings_each, quiet, cost }
            };
            for clean in [true, false] {
                let (quiet, cost) = bare(stack, options, count, readings_each, clean).await?;
                report.add(sample(bare_name(readings_each, clean), quiet, cost));
            }
            let (quiet, cost) = path(stack, options, count, readings_each).await?;
            report.add(sample(path_name(readings_each), quiet, cost));
        }
    }
    Ok(())
}

async fn load(stack: &Stack, messages: u64, readings: u64) -> Result<Helper> {
    let args = [
        format!("n={messages}"),
        format!("per={readings}"),
        format!("size={PAYLOAD}"),
        "shape=device".to_owned(),
        "gate=1".to_owned(),
    ];
    let port = stack.mosquitto.port().to_string();
    Helper::start("load", &args, &[("MQTT_PORT", port)]).await
}

/// Mosquitto alone: the same load, and a subscriber that acknowledges at once. With a clean session
/// the broker keeps nothing on the disk; with a durable one it does, as it does for the bridge.
async fn bare(
    stack: &Stack,
    options: &Options,
    messages: u64,
    readings: u64,
    clean: bool,
) -> Result<(bool, Cost)> {
    stack.new_broker().await?;
    let environment = [
        ("MQTT_PORT", stack.mosquitto.port().to_string()),
        ("MQTT_PASSWORD", stack.mosquitto.password()),
    ];
    let args = [format!("n={messages}"), format!("clean={}", u8::from(clean))];
    let mut drain = Helper::start("drain", &args, &environment).await?;
    let mut load = load(stack, messages, readings).await?;
    let quiet = machine::quiet(options.quiet_wait()).await;
    let broker = stack.mosquitto.pid().context("the broker runs")?;
    let meter =
        Meter::start(&[("mosquitto", broker), ("load", load.pid()), ("drain", drain.pid())]);
    load.go().await?;
    drain.line().await?;
    let cost = meter.look();
    load.line().await?;
    load.end().await?;
    drain.end().await?;
    Ok((quiet, cost))
}

/// Our two services while they are measured.
struct Services {
    bridge: Service,
    ingest: Service,
}

impl Services {
    fn check(&mut self) -> Result<()> {
        self.bridge.check()?;
        self.ingest.check()
    }
}

/// The whole path.
async fn path(
    stack: &Stack,
    options: &Options,
    messages: u64,
    readings: u64,
) -> Result<(bool, Cost)> {
    stack.new_broker().await?;
    stack.forget_consumers().await?;
    for stream in [RAW, TELEMETRY, DEAD] {
        stack.purge(stream).await?;
    }
    for target in &stack.targets {
        target.empty(&stack.org).await?;
    }
    let ingest = stack.service("ingest", stack.targets.len())?;
    let bridge = stack.service("bridge", stack.targets.len())?;
    let mut services = Services { bridge, ingest };
    warm_up(stack, &mut services).await?;
    let mut load = load(stack, messages, readings).await?;
    let quiet = machine::quiet(options.quiet_wait()).await;
    let mut watched: Vec<Watched> = stack.targets.iter().map(|t| (t.name, t.pid())).collect();
    let broker = stack.mosquitto.pid().context("the broker runs")?;
    watched.extend([("mosquitto", broker), ("nats", stack.nats_pid())]);
    watched.extend([("bridge", services.bridge.pid()), ("ingest", services.ingest.pid())]);
    watched.push(("load", load.pid()));
    let meter = Meter::start(&watched);
    load.go().await?;
    load.line().await?;
    // One row more: the first message.
    let rows = messages * readings + 1;
    let cost = until_stored(stack, &mut services, &meter, rows).await?;
    load.end().await?;
    services.bridge.stop().await?;
    services.ingest.stop().await?;
    let targets: Vec<_> = stack.targets.iter().collect();
    databases::check(&targets, &stack.org, rows).await?;
    let letters = inspect::letters(&stack.admin).await?;
    anyhow::ensure!(letters.is_empty(), "there are dead letters: {letters:?}");
    Ok((quiet, cost))
}

/// Sends one message until it is in both databases: then all are connected.
async fn warm_up(stack: &Stack, services: &mut Services) -> Result<()> {
    let started = Instant::now();
    loop {
        services.check()?;
        let port = stack.mosquitto.port();
        tokio::task::spawn_blocking(move || probe(port)).await.context("the probe panicked")??;
        let asked = Instant::now();
        while asked.elapsed() < PROBE_EVERY {
            if counts(stack).await?.iter().all(|&count| count == 1) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::ensure!(
            started.elapsed() < LIMIT,
            "no message gets through\nbridge:\n{}\ningest:\n{}",
            services.bridge.tail(),
            services.ingest.tail()
        );
    }
}

/// One reading of a device that `load` does not speak for.
fn probe(port: u16) -> Result<()> {
    let id = format!("probe-{}", std::process::id());
    let mut client = Client::connect(&Session { port, id: &id, clean: true, login: None })?;
    let topic = format!("devices/{}/telemetry", feed::device_name(DEVICES));
    let payload = br#"{"ts":"2026-01-01T00:00:00Z","m05":20.5}"#;
    let mut packet = Vec::new();
    mqtt::publish(&mut packet, &topic, 1, payload);
    client.send(&packet)?;
    let mut acked = false;
    while !acked {
        client.receive(|packet| {
            acked |= matches!(packet, Packet::PubAck(1));
            Ok(())
        })?;
    }
    Ok(())
}

async fn counts(stack: &Stack) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for target in &stack.targets {
        counts.push(target.count(&stack.org).await?);
    }
    Ok(counts)
}

async fn until_stored(
    stack: &Stack,
    services: &mut Services,
    meter: &Meter,
    rows: u64,
) -> Result<Cost> {
    let started = Instant::now();
    let mut counted_at = None;
    loop {
        services.check()?;
        if let Some(done) = nothing_left(stack).await?
            && counted_at != Some(done)
        {
            let cost = meter.look();
            counted_at = Some(done);
            if counts(stack).await?.iter().all(|&count| count == rows) {
                return Ok(cost);
            }
        }
        if started.elapsed() > LIMIT {
            let counts = counts(stack).await?;
            anyhow::bail!(
                "{rows} rows are expected, there are {counts:?}\nbridge:\n{}\ningest:\n{}",
                services.bridge.tail(),
                services.ingest.tail()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where everything that was stored is done, how far that is.
async fn nothing_left(stack: &Stack) -> Result<Option<u64>> {
    let raw = inspect::consumers(&stack.admin, RAW).await?;
    let Some(normalize) = raw.get(NORMALIZE).filter(|state| state.lag() == 0) else {
        return Ok(None);
    };
    let telemetry = inspect::consumers(&stack.admin, TELEMETRY).await?;
    let idle = telemetry.values().filter(|state| state.lag() == 0);
    Ok((idle.count() == stack.targets.len()).then_some(normalize.done))
}
