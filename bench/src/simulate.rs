//! The simulator: readings that a core makes, readings that the stream has durably, and a year of
//! the default building in both databases.

use crate::{
    databases, machine,
    meter::{Cost, Meter, Watched},
    options::Options,
    process::Service,
    report::{GENERATED, PUBLISHED, Report, Sample, YEAR, progress},
    stack::Stack,
};
use anyhow::{Context, Result};
use building::Plan;
use domain::{
    SimulatorId, Timestamp,
    model::SIMULATOR,
    simulator::{Ask, Pace, SimulatorConfig, State, Status},
};
use nats::{inspect, micro, registry::add_poller, streams::TELEMETRY};
use std::time::{Duration, Instant};

/// How long readings are made.
const DURATION: Duration = Duration::from_secs(3);
/// How often the simulator and the consumers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for all readings.
const LIMIT: Duration = Duration::from_mins(10);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// 2025-01-01T00:00:00Z, in microseconds since 1970: the year lies in the past.
const BEGINS: i64 = 1_735_689_600_000_000;
const DAY: i64 = 86_400_000_000;

/// All three; the year once, it is long enough.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    let plan = Plan::read(building::DEFAULT).context("the default building")?;
    for round in 1..=options.rounds {
        let quiet = machine::quiet(options.quiet_wait()).await;
        let (count, cost) = generate(&plan);
        report.add(sample(GENERATED, round, count, quiet, cost));
        stack.purge(TELEMETRY).await?;
        let quiet = machine::quiet(options.quiet_wait()).await;
        let (count, cost) = backfill(stack, &plan, options.days.min(90), 0).await?;
        report.add(sample(PUBLISHED, round, count, quiet, cost));
    }
    stack.purge(TELEMETRY).await?;
    stack.forget_consumers().await?;
    progress(&format!("simulating {} days", options.days));
    let quiet = databases::fresh(&stack.targets, &stack.org, options.quiet_wait()).await?;
    let (count, cost) = backfill(stack, &plan, options.days, 2).await?;
    report.add(sample(YEAR, 1, count, quiet, cost));
    stack.purge(TELEMETRY).await
}

fn sample(measure: &str, round: u32, count: u64, quiet: bool, cost: Cost) -> Sample {
    let measure = measure.to_owned();
    Sample { measure, round, unit: "readings", count, readings_each: 1, quiet, cost }
}

/// Readings of one building on one core, thrown away.
fn generate(plan: &Plan) -> (u64, Cost) {
    let mut memory = plan.begin(1, moment(BEGINS));
    let meter = Meter::start(&[("client", std::process::id())]);
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < DURATION {
        plan.step(&mut memory, |_, _| count += 1);
    }
    (count, meter.look())
}

fn moment(micros: i64) -> Timestamp {
    Timestamp::EPOCH.plus_micros(micros)
}

/// A simulator that fills so many days, until the stream has them, and so many databases.
async fn backfill(stack: &Stack, plan: &Plan, days: u32, databases: usize) -> Result<(u64, Cost)> {
    let config = SimulatorConfig {
        building: building::DEFAULT.to_owned(),
        seed: 1,
        history_hours: 0,
        begins: Some(moment(BEGINS)),
        autostart: false,
        database_config: None,
    };
    let text = serde_json::to_string(&config)?;
    let (wire, org) = (&stack.admin, &stack.org.key);
    let wanted = building::simulate::wanted(plan);
    let poller = add_poller(wire, org, SIMULATOR, "bench".to_owned(), text, &wanted).await?;
    let mut simulator = stack.service("simulator", 2)?;
    let ingest = (databases > 0).then(|| stack.service("ingest", databases)).transpose()?;
    asked(stack, &mut simulator, poller.id, &Ask::State, "state").await?;
    let mut watched: Vec<Watched> =
        vec![("simulator", simulator.pid()), ("nats", stack.nats_pid())];
    if let Some(ingest) = &ingest {
        watched.push(("ingest", ingest.pid()));
        watched.extend(stack.targets.iter().map(|target| (target.name, target.pid())));
    }
    let meter = Meter::start(&watched);
    let until = moment(BEGINS + i64::from(days) * DAY);
    let pace = Some(Pace { until: Some(until), ..Pace::REAL_TIME });
    asked(stack, &mut simulator, poller.id, &Ask::Start { pace }, "start").await?;
    let state = loop {
        let state = asked(stack, &mut simulator, poller.id, &Ask::State, "state").await?;
        if state.status == Status::Stopped && stored(stack, databases).await? {
            break state;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let cost = meter.look();
    anyhow::ensure!(state.last_run_timestamp == Some(until), "it stopped early: {state:?}");
    simulator.stop().await?;
    let made = state.counters.get("readings").copied().unwrap_or(0);
    if let Some(ingest) = ingest {
        ingest.stop().await?;
        let targets: Vec<_> = stack.targets.iter().take(databases).collect();
        databases::check(&targets, &stack.org, made).await?;
    }
    Ok((made, cost))
}

/// Whether that many databases have all of it.
async fn stored(stack: &Stack, databases: usize) -> Result<bool> {
    if databases == 0 {
        return Ok(true);
    }
    let consumers = inspect::consumers(&stack.admin, TELEMETRY).await?;
    let done = consumers.values().filter(|consumer| consumer.lag() == 0 && consumer.done > 0);
    Ok(done.count() == databases)
}

/// Asks until it answers.
async fn asked(
    stack: &Stack,
    service: &mut Service,
    id: SimulatorId,
    ask: &Ask,
    verb: &str,
) -> Result<State> {
    let started = Instant::now();
    loop {
        service.check()?;
        let subject = format!("simulator.{id}.{verb}");
        match micro::ask(&stack.admin, subject, ask, ANSWER).await {
            Ok(state) => return Ok(state),
            Err(refusal) => anyhow::ensure!(started.elapsed() < LIMIT, "{refusal}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
