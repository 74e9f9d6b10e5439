//! A day of one point, asked for at a rate that leaves the machine idle most of the time.
//!
//! The loop is open: a request is due at its moment, whatever became of those before, and its time
//! counts from then. The timer's granularity, a millisecond, is in it.

use crate::{
    api::{Guest, Services},
    bulk::Door,
    feed::ENTITIES,
    http::Connection,
    machine,
    meter::{Meter, Requests},
    options::Options,
    report::{Report, Sample, history_name, progress},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::{EntityId, Origin, OriginStream, Revision, Row, RowVersion, Timestamp, Values};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

const PER_SECOND: u32 = 100;
const SECONDS: u32 = 10;
const REQUESTS: u32 = PER_SECOND * SECONDS;
/// Connections that take turns, so that a slow answer does not hold up the next request.
const CONNECTIONS: u32 = 20;
/// 2026-01-01T00:00:00Z, in microseconds since 1970.
const BEGINS: i64 = 1_767_225_600_000_000;
const DAY: i64 = 86_400_000_000;
/// Values a day of every point, and the day on which it has them.
const DAYS: [(u32, &str, &str); 2] =
    [(1_440, "2026-01-01", "2026-01-02"), (288, "2026-01-02", "2026-01-03")];

/// Measures as often as asked, on two days of 2,000 points.
pub(crate) async fn rounds(
    stack: &Stack,
    options: &Options,
    report: &mut Report,
    guest: &Guest,
) -> Result<()> {
    let services = Services::start(stack, guest).await?;
    fill(stack, guest.first).await?;
    for round in 1..=options.rounds {
        for day in DAYS {
            let quiet = machine::quiet(options.quiet_wait()).await;
            let meter = Meter::start(&services.watched(stack));
            let millis = one(&services.door, day).await?;
            let mut cost = meter.look();
            cost.requests = Requests::of(millis, 0);
            let (measure, count) = (history_name(day.0), u64::from(REQUESTS));
            let unit = "requests";
            report.add(Sample { measure, round, unit, count, readings_each: 1, quiet, cost });
        }
    }
    services.stop().await
}

/// Rows as time brings them: each point's lie far from one another. Straight into the table, since only
/// reading is measured.
async fn fill(stack: &Stack, first: u64) -> Result<()> {
    progress("filling two days of 2,000 points");
    let primary = stack.targets.first().context("there are targets")?;
    // The first value of the services is of one of these days.
    primary.empty(&stack.org).await?;
    for (day, (values, ..)) in DAYS.into_iter().enumerate() {
        let step = DAY / i64::from(values);
        for place in 0..i64::from(values) {
            let at = BEGINS + day as i64 * DAY + place * step;
            let rows = moment(first, Timestamp::EPOCH.plus_micros(at))?;
            store::write::copy_only(&primary.writer, &stack.org, &rows).await?;
        }
    }
    // As it would be done by itself within minutes.
    sqlx::raw_sql("vacuum analyze").execute(&mut primary.superuser().await?).await?;
    primary.checkpoint().await
}

/// A number of every point.
fn moment(first: u64, ts: Timestamp) -> Result<Vec<Row>> {
    let stream = OriginStream::Raw;
    let origin = Origin { stream, sequence: 1, index: 0, accepted_at: ts };
    let version = RowVersion::new(&origin, Revision(0)).context("small numbers fit a version")?;
    let row = |place: u64| {
        let values = Values::number(20.0 + (place % 100) as f64 / 10.0);
        Row { entity: EntityId((first + place) as i32), ts, version, values }
    };
    Ok((0..ENTITIES).map(row).collect())
}

/// Milliseconds of each request.
async fn one(door: &Door, day: (u32, &'static str, &'static str)) -> Result<Vec<f64>> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(door.address, door.key.as_deref()).await?);
    }
    let started = Instant::now();
    let mut askers = JoinSet::new();
    for (place, connection) in connections.into_iter().enumerate() {
        let numbers = (place as u32..REQUESTS).step_by(CONNECTIONS as usize);
        askers.spawn(ask(connection, started, numbers, door.first, day));
    }
    let mut millis = Vec::new();
    while let Some(asked) = askers.join_next().await {
        millis.extend(asked.context("a client panicked")??);
    }
    Ok(millis)
}

async fn ask(
    mut connection: Connection,
    started: Instant,
    numbers: impl Iterator<Item = u32>,
    first: u64,
    (values, from, to): (u32, &str, &str),
) -> Result<Vec<f64>> {
    // A prime far from a power of two: one request's pages are not the next one's.
    const STRIDE: u64 = 1_217;
    let mut millis = Vec::new();
    for number in numbers {
        let due = started + Duration::from_secs(1) / PER_SECOND * number;
        let entity = first + u64::from(number) * STRIDE % ENTITIES;
        let range = format!("from={from}T00:00:00Z&to={to}T00:00:00Z&limit=2000");
        tokio::time::sleep_until(due).await;
        let answer = connection.get(&format!("/value/{entity}?{range}")).await?;
        millis.push(due.elapsed().as_secs_f64() * 1e3);
        answer.yes()?;
        if millis.len() == 1 {
            let rows: Vec<serde_json::Value> = serde_json::from_slice(answer.body)?;
            anyhow::ensure!(rows.len() == values as usize, "{} values came", rows.len());
        }
    }
    Ok(millis)
}
