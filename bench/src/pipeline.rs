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
    python,
    report::{Report, Sample, archive_name, bare_name, path_name, python_name},
    stack::Stack,
    traffic::Traffic,
};
use anyhow::{Context, Result};
use nats::{
    inspect::{self, NORMALIZE},
    streams::{DEAD, RAW, TELEMETRY},
};
use std::time::{Duration, Instant};

/// How often consumers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the first message is sent until it arrives.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the first message, and for the last.
const LIMIT: Duration = Duration::from_mins(10);

/// Mosquitto alone and the whole path in turn, as often as asked; beside the path with readings of one
/// in a message the same with the archive.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    stack.register_devices().await?;
    let sizes = [(options.messages, 1), (options.large_messages, 30)];
    let all: Vec<Traffic> = sizes
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, readings)| Traffic::shared(count, readings))
        .collect();
    for round in 1..=options.rounds {
        for &traffic in &all {
            beside(stack, options, report, round, traffic, &[true, false]).await?;
            let (quiet, cost) = path(stack, options, traffic, true).await?;
            report.add(sample(archive_name(&traffic.name()), round, traffic, quiet, cost));
            if let Some(libraries) = options.peers() {
                let (quiet, cost) = python::pipeline(stack, options, &libraries, traffic).await?;
                report.add(sample(python_name(&traffic.name()), round, traffic, quiet, cost));
            }
        }
    }
    Ok(())
}

/// One device and fifty, without and with certificates, beside Mosquitto alone.
pub(crate) async fn devices(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    stack.register_devices().await?;
    for round in 1..=options.rounds {
        for (devices, tls) in [(1, false), (50, false), (1, true), (50, true)] {
            let traffic = Traffic::each(options.messages, devices, tls);
            beside(stack, options, report, round, traffic, &[true]).await?;
        }
    }
    Ok(())
}

fn sample(measure: String, round: u32, traffic: Traffic, quiet: bool, cost: Cost) -> Sample {
    let Traffic { messages: count, readings: readings_each, .. } = traffic;
    Sample { measure, round, unit: "messages", count, readings_each, quiet, cost }
}

/// Mosquitto alone, then the path.
async fn beside(
    stack: &Stack,
    options: &Options,
    report: &mut Report,
    round: u32,
    traffic: Traffic,
    clean: &[bool],
) -> Result<()> {
    let name = traffic.name();
    for &clean in clean {
        let (quiet, cost) = bare(stack, options, traffic, clean).await?;
        report.add(sample(bare_name(&name, clean), round, traffic, quiet, cost));
    }
    let (quiet, cost) = path(stack, options, traffic, false).await?;
    report.add(sample(path_name(&name), round, traffic, quiet, cost));
    Ok(())
}

/// Mosquitto alone: the same load, and a subscriber that acknowledges at once. With a clean session
/// the broker keeps nothing on the disk; with a durable one it does, as it does for the bridge.
async fn bare(
    stack: &Stack,
    options: &Options,
    traffic: Traffic,
    clean: bool,
) -> Result<(bool, Cost)> {
    stack.new_broker().await?;
    let environment = [
        ("MQTT_PORT", stack.mosquitto.port().to_string()),
        ("MQTT_PASSWORD", stack.mosquitto.password()),
    ];
    let args = [format!("n={}", traffic.messages), format!("clean={}", u8::from(clean))];
    let mut drain = Helper::start("drain", &args, &environment).await?;
    let mut load = traffic.start(stack).await?;
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
pub(crate) struct Services {
    bridge: Service,
    ingest: Service,
}

impl Services {
    /// Starts them on empty streams and tables, and waits until a first message is through.
    pub(crate) async fn start(stack: &Stack, archive: bool) -> Result<Self> {
        stack.new_broker().await?;
        stack.forget_consumers().await?;
        for stream in [RAW, TELEMETRY, DEAD] {
            stack.purge(stream).await?;
        }
        for target in &stack.targets {
            target.empty(&stack.org).await?;
        }
        let ingest = stack.service_with("ingest", stack.targets.len(), archive)?;
        let bridge = stack.service("bridge", stack.targets.len())?;
        let mut services = Self { bridge, ingest };
        warm_up(stack, &mut services).await?;
        Ok(services)
    }

    /// Everything that is measured beside the load.
    pub(crate) fn watched(&self, stack: &Stack) -> Result<Vec<Watched>> {
        let mut watched: Vec<Watched> = stack.targets.iter().map(|t| (t.name, t.pid())).collect();
        let broker = stack.mosquitto.pid().context("the broker runs")?;
        watched.extend([("mosquitto", broker), ("nats", stack.nats_pid())]);
        watched.extend([("bridge", self.bridge.pid()), ("ingest", self.ingest.pid())]);
        Ok(watched)
    }

    /// Stops them, as a service manager would.
    pub(crate) async fn stop(self) -> Result<()> {
        self.bridge.stop().await?;
        self.ingest.stop().await
    }

    fn check(&mut self) -> Result<()> {
        self.bridge.check()?;
        self.ingest.check()
    }
}

/// The whole path.
async fn path(
    stack: &Stack,
    options: &Options,
    traffic: Traffic,
    archive: bool,
) -> Result<(bool, Cost)> {
    let mut services = Services::start(stack, archive).await?;
    let mut load = traffic.start(stack).await?;
    let quiet = machine::quiet(options.quiet_wait()).await;
    let mut watched = services.watched(stack)?;
    watched.push(("load", load.pid()));
    let meter = Meter::start(&watched);
    load.go().await?;
    load.line().await?;
    // One row more: the first message.
    let rows = traffic.messages * traffic.readings + 1;
    let cost = until_stored(stack, &mut services, &meter, rows).await?;
    load.end().await?;
    services.stop().await?;
    let targets: Vec<_> = stack.targets.iter().collect();
    databases::check(&targets, &stack.org, rows).await?;
    no_letters(stack).await?;
    Ok((quiet, cost))
}

/// A measure in which something was set aside is none.
pub(crate) async fn no_letters(stack: &Stack) -> Result<()> {
    let letters = inspect::letters(&stack.admin).await?;
    anyhow::ensure!(letters.is_empty(), "there are dead letters: {letters:?}");
    Ok(())
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
    let session = Session { port, id: &id, clean: true, login: None, tls: None };
    let mut client = Client::connect(&session)?;
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

/// Waits until so many rows are in both databases and nothing is left anywhere.
pub(crate) async fn until_stored(
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
    let Some(normalize) = raw.get(NORMALIZE).filter(|_| raw.values().all(|it| it.lag() == 0))
    else {
        return Ok(None);
    };
    let telemetry = inspect::consumers(&stack.admin, TELEMETRY).await?;
    let idle = telemetry.values().filter(|state| state.lag() == 0);
    Ok((idle.count() == stack.targets.len()).then_some(normalize.done))
}
