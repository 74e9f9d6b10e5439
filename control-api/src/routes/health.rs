//! Whether it is alive, whether it can work, and what it counts. Open to everybody who gets here: it says
//! nothing about anybody's data.

use crate::Api;
use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use domain::Hold;
use nats::inspect::{self, ingest_consumer};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long each dependency has to answer.
const ANSWER: Duration = Duration::from_secs(3);

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready)).routes(routes!(counted))
}

/// Alive.
#[utoipa::path(get, path = "/healthz", tag = "operations", responses((status = 200, description = "The process runs", body = String)))]
async fn alive() -> &'static str {
    "alive\n"
}

/// What it needs, and how far each database is.
#[derive(Serialize, Deserialize, ToSchema)]
struct Ready {
    /// Whether requests can be done.
    ready: bool,
    /// Each dependency: `ok`, or what is wrong.
    dependencies: BTreeMap<String, String>,
    /// Messages that each target has not applied yet, of all orgs.
    lag: BTreeMap<String, u64>,
    /// What is waited for, and why.
    #[schema(value_type = Vec<Object>)]
    holds: Vec<Hold>,
}

/// Ready: each dependency, each target's lag.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Requests can be done", body = Ready),
    (status = 503, description = "Something is away", body = Ready)))]
async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let (database, lag) = tokio::join!(
        tokio::time::timeout(ANSWER, api.pulse.ping()),
        tokio::time::timeout(ANSWER, lag(&api)),
    );
    let said = |it: Result<Result<(), String>, _>| match it {
        Ok(Ok(())) => "ok".to_owned(),
        Ok(Err(why)) => why,
        Err(_) => "no answer".to_owned(),
    };
    let database = database.map(|it| {
        it.map_err(|fault| {
            tracing::warn!(%fault, "the primary is not ready");
            "away; `haystack status` says why".to_owned()
        })
    });
    let (stream, lag) = match lag {
        Ok(Ok(lag)) => (Ok(Ok(())), lag),
        Ok(Err(_)) => (Ok(Err("away".to_owned())), BTreeMap::new()),
        Err(late) => (Err(late), BTreeMap::new()),
    };
    let dependencies =
        BTreeMap::from([("primary".to_owned(), said(database)), ("nats".to_owned(), said(stream))]);
    let holds = api.holds.list();
    let ready = holds.is_empty() && dependencies.values().all(|said| said == "ok");
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, dependencies, lag, holds }))
}

async fn lag(api: &Api) -> Result<BTreeMap<String, u64>, String> {
    let consumers = inspect::consumers(&api.wire, nats::streams::TELEMETRY).await;
    let consumers = consumers.map_err(|fault| fault.to_string())?;
    let orgs = api.directory.read().orgs();
    let of_target = |target: &domain::TargetName| {
        let of_org = |org: &domain::OrgKey| {
            let consumer = consumers.get(&ingest_consumer(target, org));
            consumer.map_or(0, inspect::ConsumerState::lag)
        };
        orgs.iter().map(|org| of_org(&org.key)).sum()
    };
    Ok(api.targets.iter().map(|target| (target.to_string(), of_target(target))).collect())
}

/// Metrics, as Prometheus reads them.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Metrics", body = String)))]
async fn counted(State(api): State<Api>) -> String {
    api.metrics.render()
}
