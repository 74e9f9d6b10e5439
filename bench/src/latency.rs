//! How long a message takes from its publishing until both databases have committed it, at a rate that
//! leaves the machine idle most of the time.
//!
//! Each message bears the moment at which it was published. Ingest announces what it committed; the
//! announcement comes after the commit, so what is measured is an upper bound.

use crate::{
    feed, machine,
    message::DEVICES,
    meter::Meter,
    mqtt::{self, Client, Packet, Session},
    options::Options,
    pipeline::{Services, no_letters},
    report::{LATENCY, Report, Sample, progress},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::{Batch, Clock, SystemClock, Timestamp};
use futures_util::StreamExt;
use nats::{
    envelope,
    outcome::{self, Outcome},
    streams::TELEMETRY,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

const PER_SECOND: u64 = 1_000;
const SECONDS: u64 = 20;
const MESSAGES: u64 = PER_SECOND * SECONDS;
/// The same while history is processed again.
pub(crate) const BESIDE_REPLAY: &str = "latency at 1,000 messages a second beside a replay";
/// Longest wait for an announcement.
const SILENCE: Duration = Duration::from_secs(10);

/// Measures as often as asked.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    stack.register_devices().await?;
    for round in 1..=options.rounds {
        let services = Services::start(stack, false).await?;
        let quiet = machine::quiet(options.quiet_wait()).await;
        let meter = Meter::start(&services.watched(stack)?);
        let mut millis = one(stack).await?;
        let mut cost = meter.look();
        services.stop().await?;
        no_letters(stack).await?;
        millis.sort_by(f64::total_cmp);
        let at = |share: f64| millis[((millis.len() - 1) as f64 * share) as usize];
        let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
        progress(&format!(
            "{LATENCY}: median {p50:.1} ms, 99th percentile {p99:.1} ms, most {most:.1} ms"
        ));
        cost.seconds = p99 / 1e3;
        let measure = LATENCY.to_owned();
        let (unit, count, readings_each) = ("messages", 1, 1);
        report.add(Sample { measure, round, unit, count, readings_each, quiet, cost });
    }
    Ok(())
}

/// Milliseconds of each message until the later of both databases had it.
pub(crate) async fn one(stack: &Stack) -> Result<Vec<f64>> {
    let mut news = stack.admin.client.subscribe("outcome.>").await?;
    let port = stack.mosquitto.port();
    let publishing = tokio::task::spawn_blocking(move || publish(port));
    // When each message of TELEMETRY was in each target.
    let mut committed: BTreeMap<u64, Vec<Timestamp>> = BTreeMap::new();
    let mut told = BTreeSet::new();
    let mut millis = Vec::new();
    while (millis.len() as u64) < MESSAGES {
        let heard = tokio::time::timeout(SILENCE, news.next()).await;
        let heard = heard.context("ingest announces nothing more")?.context("NATS is gone")?;
        let now = SystemClock.now();
        let Outcome { committed: sequences, .. } = outcome::read(&heard.payload)?;
        for sequence in sequences {
            let times = committed.entry(sequence).or_default();
            times.push(now);
            if times.len() == stack.targets.len() && told.insert(sequence) {
                millis.extend(latencies(stack, sequence, now).await?);
            }
        }
    }
    publishing.await.context("the publisher panicked")??;
    Ok(millis)
}

/// Of the readings in one message that both databases have.
async fn latencies(stack: &Stack, sequence: u64, now: Timestamp) -> Result<Vec<f64>> {
    let body = nats::consume::read_again(&stack.admin, TELEMETRY, sequence).await?;
    let batch: Batch = envelope::decode(&body.context("the message is in the stream")?)?;
    let samples = batch.groups.iter().flat_map(|group| &group.samples);
    // The first message, by which the services were warmed up, is of another year.
    let age = |ts: Timestamp| (now.micros() - ts.micros()) as f64 / 1e3;
    let recent = Duration::from_mins(5).as_millis() as f64;
    Ok(samples.map(|sample| age(sample.ts)).filter(|age| *age < recent).collect())
}

fn publish(port: u16) -> Result<()> {
    let session = Session { port, id: "latency", clean: true, login: None, tls: None };
    let mut client = Client::connect(&session)?;
    let started = Instant::now();
    let (mut packets, mut acked) = (Vec::new(), 0);
    for number in 0..MESSAGES {
        let due = started + Duration::from_micros(number * 1_000_000 / PER_SECOND);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = SystemClock.now();
        let payload = format!("{{\"ts\":\"{now}\",\"m05\":{}}}", number % 100);
        let topic = format!("devices/{}/telemetry", feed::device_name(number % DEVICES));
        packets.clear();
        mqtt::publish(&mut packets, &topic, (number % 65_535) as u16 + 1, payload.as_bytes());
        client.send(&packets)?;
    }
    while acked < MESSAGES {
        client.receive(|packet| {
            acked += u64::from(matches!(packet, Packet::PubAck(_)));
            Ok(())
        })?;
    }
    Ok(())
}
