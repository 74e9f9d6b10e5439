//! What is asked of a long history, and history processed again beside live readings.

use crate::{
    databases, feed, ingest, latency, machine,
    message::DEVICES,
    meter::{Cost, Meter, Requests},
    options::Options,
    pipeline::{Services, no_letters},
    report::{FILTER, REPLAY, Report, Sample, VERIFY, asked_name, progress},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::{
    Batch, Clock, DeviceId, SystemClock, Timestamp,
    raw::{MAX_PACK_ENTRIES, Pack, ProfileRef, RawMessage, Sender},
    replay::{Counts, Replay, Rules, Spec, State},
};
use futures_util::{StreamExt, TryStreamExt, future::OptionFuture, stream};
use nats::{
    envelope, inspect,
    publish::{Outgoing, publish},
    records,
    streams::{RAW, TELEMETRY},
};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};

/// How often each question is asked.
const TIMES: usize = 10;
/// Packs on their way to the stream at once.
const IN_FLIGHT: usize = 16;
/// How often it is looked how far a replay is.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for anything.
const LIMIT: Duration = Duration::from_mins(20);
/// Readings of a device message: its metrics.
const READINGS_EACH: u64 = 4;

/// Nothing that runs beside a replay.
type Nothing = std::future::Ready<Result<()>>;

/// Asks, compares, filters and replays, as often as asked.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    stack.register_devices().await?;
    ask(stack, options, report).await?;
    for round in 1..=options.rounds {
        Box::pin(replay(stack, options, report, round)).await?;
    }
    Ok(())
}

/// `ledger`, `trace` and `verify` by the command line, of a history in both databases.
async fn ask(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    let readings = options.history;
    // Accepted when they are published, as it is with devices: what is asked finds them by that.
    let now = |mut batch: Batch| {
        let accepted_at = SystemClock.now();
        for origin in batch.groups.iter_mut().filter_map(|group| group.origin.as_mut()) {
            origin.accepted_at = accepted_at;
        }
        batch
    };
    ingest::fill_with(stack, readings, 1, now).await?;
    databases::fresh(&stack.targets, &stack.org, options.quiet_wait()).await?;
    ingest::run(stack, stack.targets.len(), readings).await?;
    let at = feed::moment(readings / feed::ENTITIES / 2).to_string();
    let trace = ["trace", "--entity", "7", "--at", &at];
    for (name, arguments, times) in [
        ("ledger", &["ledger", "--json"][..], TIMES),
        ("trace", &trace, TIMES),
        ("ledger --rows", &["ledger", "--rows"], 1),
        (VERIFY, &["verify"], 1),
    ] {
        let quiet = machine::quiet(options.quiet_wait()).await;
        let watched: Vec<_> = stack.targets.iter().map(|it| (it.name, it.pid())).collect();
        let meter = Meter::start(&watched);
        let mut millis = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            command(stack, arguments).await?;
            millis.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let requests = Requests::of(millis, 0);
        let cost = Cost { requests, ..meter.look() };
        let measure = if name == VERIFY { VERIFY.to_owned() } else { asked_name(name) };
        let sets = if name == VERIFY { stack.targets.len() as u64 } else { 1 };
        let count = readings * sets * times as u64;
        report.add(Sample {
            measure,
            round: 1,
            unit: "rows",
            count,
            readings_each: 1,
            quiet,
            cost,
        });
    }
    stack.purge(TELEMETRY).await
}

/// Runs a command to its end; what it says goes nowhere.
async fn command(stack: &Stack, arguments: &[&str]) -> Result<()> {
    let mut command = stack.command("ingest");
    let done = command.args(arguments).stdin(Stdio::null()).output().await?;
    anyhow::ensure!(
        done.status.success(),
        "haystack {arguments:?}: {}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}

/// A replay that is about nothing in `RAW`, and one about all of it beside live readings.
async fn replay(stack: &Stack, options: &Options, report: &mut Report, round: u32) -> Result<()> {
    let messages = (options.replayed / READINGS_EACH).max(1);
    let services = Services::start(stack, false).await?;
    publish_packs(stack, messages).await?;
    drained(stack).await?;
    no_letters(stack).await?;

    let quiet = machine::quiet(options.quiet_wait()).await;
    let nobody = DeviceId::parse(&feed::device_name(DEVICES))?;
    let (counts, cost) = run(stack, &services, Some(nobody), None::<Nothing>).await?.0;
    let sample = |measure: String, unit, count, cost| Sample {
        measure,
        round,
        unit,
        count,
        readings_each: 1,
        quiet,
        cost,
    };
    report.add(sample(FILTER.to_owned(), "messages", counts.looked_at, cost));

    let ((counts, cost), live) = run(stack, &services, None, Some(latency::one(stack))).await?;
    let live = live.unwrap_or_default();
    report.add(sample(REPLAY.to_owned(), "readings", counts.readings, cost.clone()));
    let requests = Requests::of(live, 0);
    let count = requests.map_or(0, |it| it.count);
    let cost = Cost { requests, ..cost };
    report.add(sample(latency::BESIDE_REPLAY.to_owned(), "messages", count, cost));
    drained(stack).await?;
    services.stop().await?;
    no_letters(stack).await
}

/// A replay and something beside it; what the replay did from when it was seen to have begun until it was done
/// or the other ended, whichever was first.
async fn run<T>(
    stack: &Stack,
    services: &Services,
    device: Option<DeviceId>,
    beside: Option<impl Future<Output = Result<T>>>,
) -> Result<((Counts, Cost), Option<T>)> {
    let spec = Spec {
        from: Timestamp::EPOCH,
        to: SystemClock.now().plus_micros(1),
        org: None,
        device_type: None,
        device,
        rules: Rules::InForce,
    };
    let draft = Replay::new(spec, None, "bench".to_owned(), SystemClock.now());
    let id = records::begin(&stack.admin, draft).await?.record.id;
    let watched = services.watched(stack)?;
    let alone = beside.is_none();
    let mut beside = std::pin::pin!(OptionFuture::from(beside));
    let (mut ended, mut begun, begun_waiting) = (None, None, Instant::now());
    let measured = loop {
        anyhow::ensure!(begun_waiting.elapsed() < LIMIT, "replay {id} is not done in {LIMIT:?}");
        let kept = records::get::<Replay>(&stack.admin, id.into()).await?;
        let kept = kept.context("it was made")?.record;
        anyhow::ensure!(!matches!(kept.state, State::Failed(_)), "{:?}", kept.state);
        let (meter, first): &mut (Meter, Counts) = match &mut begun {
            Some(begun) => begun,
            None if kept.counts.looked_at > 0 => {
                begun.insert((Meter::start(&watched), kept.counts))
            }
            None => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        if kept.state == State::Done || ended.is_some() {
            let counts = Counts {
                looked_at: kept.counts.looked_at - first.looked_at,
                readings: kept.counts.readings - first.readings,
                ..kept.counts
            };
            break (counts, meter.look());
        }
        if ended.is_none() {
            tokio::select! {
                done = &mut beside, if !alone => ended = Some(done.transpose()?),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    };
    let other = match ended {
        Some(ended) => ended,
        None if alone => None,
        None => {
            progress("the replay was done before what ran beside it");
            beside.await.transpose()?
        }
    };
    Ok((measured, other))
}

/// Packs as a door writes them under load, of devices that are registered.
async fn publish_packs(stack: &Stack, messages: u64) -> Result<()> {
    progress(&format!("publishing {messages} device messages"));
    let instance = nats::pack::random();
    let packs = (0..messages).step_by(MAX_PACK_ENTRIES).map(|first| {
        let last = (first + MAX_PACK_ENTRIES as u64).min(messages);
        let entries = (first..last).map(|number| entry(stack, number)).collect::<Result<Vec<_>>>();
        (first, entries)
    });
    let publish = |(first, entries): (u64, Result<Vec<RawMessage<'static>>>)| async move {
        let payload = envelope::encode(&Pack { entries: entries? });
        let id = format!("bench-{instance:016x}-{first}");
        publish(&stack.bridge, Outgoing::new("raw.mqtt.bench", &id, payload)).await?;
        anyhow::Ok(())
    };
    stream::iter(packs).map(publish).buffer_unordered(IN_FLIGHT).try_collect().await
}

fn entry(stack: &Stack, number: u64) -> Result<RawMessage<'static>> {
    let name = feed::device_name(number % DEVICES);
    let ts = feed::moment(number / DEVICES);
    let value = number % 1_000;
    let payload = format!(
        "{{\"ts\":\"{ts}\",\"m05\":{value},\"m06\":{value}.5,\"m07\":-{value},\"m08\":{value}}}"
    );
    let profile = ProfileRef { id: domain::TypeId::parse("bench-device")?, version: 1 };
    let device = DeviceId::parse(&name)?;
    Ok(RawMessage {
        name: name.into(),
        sender: Some(Sender { org: stack.org.key.clone(), device, profile }),
        content_type: "application/json".into(),
        received_at: SystemClock.now(),
        session: 1,
        packet_id: 1,
        number,
        payload: payload.into_bytes().into(),
    })
}

/// Waits until everything is normalized and applied.
async fn drained(stack: &Stack) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut lag = 0;
        for name in [RAW, TELEMETRY] {
            let consumers = inspect::consumers(&stack.admin, name).await?;
            lag += consumers.values().map(inspect::ConsumerState::lag).sum::<u64>();
        }
        if lag == 0 {
            return Ok(());
        }
        anyhow::ensure!(begun.elapsed() < LIMIT, "{lag} messages are not through");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
