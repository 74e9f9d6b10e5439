//! Whether simulators are well, and what they count: told also where their service is away.

use super::{ask::glance, config::config_of, simulator};
use crate::{Api, caller::Caller, extract::Path, problem::Problem, routes::moment::Moment};
use axum::{Json, extract::State};
use building::Plan;
use domain::{
    TargetName,
    access::Permission,
    model::Poller,
    simulator::{Ask, State as Answer, Status},
};
use futures_util::future::join_all;
use nats::{
    inspect::{self, ConsumerState, ingest_consumer},
    streams::TELEMETRY,
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use utoipa::ToSchema;

/// How long the stream server has to say how far databases are.
const ANSWER: Duration = Duration::from_secs(2);
/// What is said where nobody answers.
const UNKNOWN: &str = "unknown";

/// How far a target is with the org of a simulator.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct TargetLag {
    /// Messages of the whole org that it has not applied yet; none: that is not known now.
    lag_messages: Option<u64>,
}

/// Whether a simulator is well.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct HealthView {
    simulator_id: i32,
    name: String,
    /// `stopped`, `filling`, `running`, `waiting`, `error`; `unknown` where no service answers.
    status: String,
    /// The last interval boundary whose readings are stored.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_run: Option<Moment>,
    /// `applied`: it simulates what it is to be; `pending`: from the next interval on; `invalid`: that
    /// can't be read; `unknown` where no service answers.
    config_status: String,
    /// Whether a service runs it and nothing is in its way; one that is stopped is well.
    healthy: bool,
    /// Why not.
    error_message: Option<String>,
    /// Points that report.
    total_points: Option<usize>,
    /// Each target, by name.
    databases: BTreeMap<String, TargetLag>,
}

/// Show whether a simulator is well
#[utoipa::path(get, path = "/simulator/health/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path)),
    responses((status = 200, description = "How it is, also where its service is away", body = HealthView)))]
pub(in crate::routes) async fn simulator_health(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Json<HealthView>, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Read)?;
    let (state, databases) = tokio::join!(glance(&api, &poller, &Ask::Health), lags(&api, &poller));
    let total_points = match &state {
        Some(state) => Some(state.points),
        None => points(&poller).await,
    };
    let well = |state: &Answer| {
        !matches!(state.status, Status::Waiting | Status::Error) && state.error_message.is_none()
    };
    Ok(Json(HealthView {
        simulator_id: id,
        name: poller.name.clone(),
        status: status(state.as_ref()),
        last_run: state.as_ref().and_then(|state| state.last_run_timestamp).map(Moment),
        config_status: config_status(&poller, state.as_ref()).to_owned(),
        healthy: state.as_ref().is_some_and(well),
        error_message: match state {
            Some(state) => state.error_message,
            None => Some("no simulator service answers for it".to_owned()),
        },
        total_points,
        databases,
    }))
}

fn status(state: Option<&Answer>) -> String {
    state.map_or(UNKNOWN, |state| state.status.as_str()).to_owned()
}

fn config_status(poller: &Poller, state: Option<&Answer>) -> &'static str {
    let Ok(config) = config_of(poller) else { return "invalid" };
    match state {
        None => UNKNOWN,
        Some(state) if state.config == config => "applied",
        Some(_) => "pending",
    }
}

/// Points of the building that it is to simulate, as its description says.
async fn points(poller: &Poller) -> Option<usize> {
    let config = config_of(poller).ok()?;
    let read = move || Plan::read(&config.building).ok().map(|plan| plan.points().len());
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// How far each target is with the simulator's org.
async fn lags(api: &Api, poller: &Poller) -> BTreeMap<String, TargetLag> {
    let asked = api.targets.iter().map(|target| async move {
        let lag = tokio::time::timeout(ANSWER, lag(api, poller, target)).await;
        (target.to_string(), TargetLag { lag_messages: lag.ok().flatten() })
    });
    join_all(asked).await.into_iter().collect()
}

async fn lag(api: &Api, poller: &Poller, target: &TargetName) -> Option<u64> {
    let name = ingest_consumer(target, &poller.org);
    let found = inspect::consumer(&api.wire, TELEMETRY, &name).await;
    let found = found.inspect_err(|fault| tracing::debug!(%fault, "how far a target is")).ok()?;
    found.as_ref().map(ConsumerState::lag)
}

/// What a simulator counts.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct MetricsView {
    simulator_id: i32,
    /// As in its health.
    status: String,
    /// Minutes between two reports.
    interval_minutes: Option<u32>,
    /// Points that report in each interval.
    points_per_interval: Option<usize>,
    /// Readings, since a service took it over.
    points_generated: Option<u64>,
    /// Messages of readings, since then.
    messages: Option<u64>,
    /// Gaps that were filled since then.
    gap_fills: Option<u64>,
    /// How long the stream took for a message, on average since then, in seconds.
    publish_seconds: Option<f64>,
    /// Simulated time by which it is behind, in seconds; none while it is stopped.
    lag_seconds: Option<f64>,
    /// Intervals that are missing.
    lag_intervals: Option<u64>,
    /// Each target, by name.
    databases: BTreeMap<String, TargetLag>,
}

/// Show what a simulator counts
///
/// Where its service is away, its numbers are null.
#[utoipa::path(get, path = "/simulator/metrics/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path)),
    responses((status = 200, description = "Its numbers", body = MetricsView)))]
pub(in crate::routes) async fn simulator_metrics(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Json<MetricsView>, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Read)?;
    let (state, databases) = tokio::join!(glance(&api, &poller, &Ask::Health), lags(&api, &poller));
    let state = state.as_ref();
    let count = |name: &str| state.and_then(|state| state.counters.get(name).copied());
    let behind = state.and_then(behind);
    Ok(Json(MetricsView {
        simulator_id: id,
        status: status(state),
        interval_minutes: state.map(|state| state.interval_minutes),
        points_per_interval: state.map(|state| state.points),
        points_generated: count("readings"),
        messages: count("messages"),
        gap_fills: count("gap_fills"),
        publish_seconds: mean(count("publish_micros"), count("publishes")),
        lag_seconds: behind.map(|behind| behind as f64 / 1e6),
        lag_intervals: state.zip(behind).map(|(state, behind)| intervals(state, behind)),
        databases,
    }))
}

/// By how many microseconds of simulated time it is behind.
fn behind(state: &Answer) -> Option<u64> {
    let behind = state.due?.micros() - state.last_run_timestamp?.micros();
    Some(behind.max(0).unsigned_abs())
}

/// Whole intervals of so many microseconds.
fn intervals(state: &Answer, micros: u64) -> u64 {
    micros / (u64::from(state.interval_minutes.max(1)) * 60_000_000)
}

fn mean(micros: Option<u64>, count: Option<u64>) -> Option<f64> {
    let count = count.filter(|count| *count > 0)?;
    Some(micros? as f64 / 1e6 / count as f64)
}
