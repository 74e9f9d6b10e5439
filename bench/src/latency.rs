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
use futures_util::{Stream, StreamExt, stream};
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
use tokio::{sync::mpsc, task::JoinSet};

const PER_SECOND: u64 = 1_000;
const SECONDS: u64 = 20;
const MESSAGES: u64 = PER_SECOND * SECONDS;
/// The same while history is processed again.
pub(crate) const BESIDE_REPLAY: &str = "latency at 1,000 messages a second beside a replay";
/// Messages that are read again at once.
const READ_AT_ONCE: usize = 32;
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
    let news = stack.admin.client.subscribe("outcome.>").await?.map(|news| news.payload);
    let port = stack.mosquitto.port();
    let publishing = tokio::task::spawn_blocking(move || publish(port));
    let (heard, committed) = mpsc::unbounded_channel();
    // Looks at the clock and does nothing else: what is read again must not make it late.
    let mut listening = JoinSet::new();
    listening.spawn(listen(news, stack.targets.len(), heard));
    let committed = stream::unfold(committed, async |mut committed| {
        let next = tokio::time::timeout(SILENCE, committed.recv()).await;
        Some((next.ok().flatten().context("ingest announces nothing more"), committed))
    });
    let read = |next: Result<(u64, Timestamp)>| async move {
        let (sequence, now) = next?;
        latencies(stack, sequence, now).await
    };
    let mut read = std::pin::pin!(committed.map(read).buffered(READ_AT_ONCE));
    let mut millis = Vec::new();
    while (millis.len() as u64) < MESSAGES {
        millis.extend(read.next().await.context("it never ends")??);
    }
    drop(listening);
    publishing.await.context("the publisher panicked")??;
    Ok(millis)
}

/// Tells when each message of `TELEMETRY` was in all targets.
async fn listen(
    mut news: impl Stream<Item = bytes::Bytes> + Unpin,
    targets: usize,
    heard: mpsc::UnboundedSender<(u64, Timestamp)>,
) -> Result<()> {
    let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
    let mut told = BTreeSet::new();
    while let Some(message) = news.next().await {
        let now = SystemClock.now();
        let Outcome { committed: sequences, .. } = outcome::read(&message)?;
        for sequence in sequences {
            let times = seen.entry(sequence).or_default();
            *times += 1;
            if *times == targets && told.insert(sequence) {
                heard.send((sequence, now))?;
            }
        }
    }
    Ok(())
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
