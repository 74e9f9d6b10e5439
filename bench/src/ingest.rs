//! Our ingest, from messages that wait in `TELEMETRY` to rows that are committed.
//!
//! The clock runs from the last look at which no consumer had been given a message until each
//! target's consumer has nothing left: every message is acknowledged, which ingest does after
//! COMMIT. So the start of the process is not counted, and the rows are, all of them.

use crate::{
    copy, databases, feed, machine,
    meter::{Cost, Meter, Watched},
    options::{Family, Options},
    process::Service,
    report::{Report, Sample, WAITING, again_name, copy_name, fresh_name, progress},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::{Batch, subject::Subject};
use futures_util::{StreamExt, TryStreamExt, stream};
use nats::{
    Fsynced, PublishFault, envelope,
    inspect::{self, ConsumerState},
    publish::{Outgoing, publish},
    streams::TELEMETRY,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How often consumers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for all rows.
const LIMIT: Duration = Duration::from_mins(10);
/// Messages on their way to the stream at once.
const IN_FLIGHT: usize = 64;

/// COPY and ingest in turn, into one database and into two, as often as asked.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    let readings = options.readings;
    let batches = Arc::new(feed::row_batches(readings));
    let ours = options.asks_for(Family::Ingest);
    if ours {
        fill(stack, readings, options.group).await?;
    }
    for round in 1..=options.rounds {
        let sample = |measure, quiet, cost| Sample {
            measure,
            round,
            unit: "rows",
            count: readings,
            readings_each: 1,
            quiet,
            cost,
        };
        for databases in [1, 2] {
            let wait = options.quiet_wait();
            let quiet = databases::fresh(&stack.targets, &stack.org, wait).await?;
            let cost = copy::run(stack, databases, &batches).await?;
            report.add(sample(copy_name(databases), quiet, cost));
            if !ours {
                continue;
            }
            let quiet = databases::fresh(&stack.targets, &stack.org, wait).await?;
            let cost = run(stack, databases, readings).await?;
            report.add(sample(fresh_name(databases), quiet, cost));
            for target in &stack.targets {
                target.checkpoint().await?;
            }
            let quiet = machine::quiet(wait).await;
            let cost = run(stack, databases, readings).await?;
            report.add(sample(again_name(databases), quiet, cost));
        }
    }
    stack.purge(TELEMETRY).await
}

/// Ingest with much waiting: how much memory does it take?
pub(crate) async fn waiting(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    let readings = options.waiting;
    fill(stack, readings, options.group).await?;
    let quiet = databases::fresh(&stack.targets, &stack.org, options.quiet_wait()).await?;
    let cost = run(stack, 2, readings).await?;
    let measure = WAITING.to_owned();
    let count = readings;
    report.add(Sample { measure, round: 1, unit: "rows", count, readings_each: 1, quiet, cost });
    stack.purge(TELEMETRY).await
}

/// Publishes readings to `TELEMETRY`, as the bridge does.
async fn fill(stack: &Stack, readings: u64, group: u64) -> Result<()> {
    fill_with(stack, readings, group, |batch| batch).await
}

/// The same with each message changed.
pub(crate) async fn fill_with(
    stack: &Stack,
    readings: u64,
    group: u64,
    change: impl Fn(Batch) -> Batch,
) -> Result<()> {
    progress(&format!("publishing {readings} readings"));
    stack.purge(TELEMETRY).await?;
    let org = stack.org.key.to_string();
    let subject = Subject::Telemetry { org, source: "bench".to_owned() }.to_string();
    let publish = |(number, batch): (usize, Batch)| {
        let id = format!("bench-{:016x}-{number}", nats::pack::random());
        let oldest = batch.oldest_accepted();
        let message =
            Outgoing::new(&subject, &id, envelope::encode(&batch)).oldest_accepted(oldest);
        async move { publish(&stack.bridge, message).await }
    };
    let messages = feed::messages(0, readings, group).map(change).enumerate();
    let stored = stream::iter(messages).map(publish).buffer_unordered(IN_FLIGHT);
    let stored: Result<Vec<Fsynced>, PublishFault> = stored.try_collect().await;
    stored.context("publishing readings").map(drop)
}

/// Runs ingest over the whole stream, as if it had never run, and checks what it wrote.
pub(crate) async fn run(stack: &Stack, databases: usize, readings: u64) -> Result<Cost> {
    stack.forget_consumers().await?;
    let total = inspect::stream(&stack.admin, TELEMETRY).await?.messages;
    let mut service = stack.service("ingest", databases)?;
    let targets: Vec<_> = stack.targets.iter().take(databases).collect();
    let mut watched: Vec<Watched> = targets.iter().map(|t| (t.name, t.pid())).collect();
    watched.extend([("ingest", service.pid()), ("nats", stack.nats_pid())]);
    let mut meter = Meter::start(&watched);
    let started = Instant::now();
    let mut begun = false;
    loop {
        let consumers = consumers(stack, &mut service, started).await?;
        let given = |state: &ConsumerState| state.pending < total || state.unacknowledged > 0;
        begun = begun || consumers.iter().any(given);
        if !begun {
            meter.restart();
        }
        let done = |state: &ConsumerState| state.lag() == 0 && state.done > 0;
        if consumers.len() == databases && consumers.iter().all(done) {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let cost = meter.look();
    service.stop().await?;
    databases::check(&targets, &stack.org, readings).await?;
    Ok(cost)
}

async fn consumers(
    stack: &Stack,
    service: &mut Service,
    started: Instant,
) -> Result<Vec<ConsumerState>> {
    service.check()?;
    let consumers = inspect::consumers(&stack.admin, TELEMETRY).await?;
    anyhow::ensure!(
        started.elapsed() < LIMIT,
        "ingest is not through after {LIMIT:?}: {consumers:?}\n{}",
        service.tail()
    );
    Ok(consumers.into_values().collect())
}
