//! What simulators do, and what they are told: request and reply.

use super::{
    ask::{ask, look},
    config::{config_of, configure},
    draft::{Draft, Places, description},
    simulator,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, maybe},
    idempotency,
    problem::Problem,
    routes::{moment::Moment, poller::TextOrJson},
};
use axum::{extract::State, http::HeaderMap};
use domain::{
    access::Permission,
    model::Poller,
    simulator::{Ask, Pace, Scope, SimulatorConfig, State as Answer},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a simulator does.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct StateView {
    simulator_id: i32,
    org_id: i32,
    simulator_name: String,
    /// The instance of the service that runs it.
    service_name: String,
    /// The last interval boundary whose readings are stored.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_run_timestamp: Option<Moment>,
    /// Where it should be by now; none while it is stopped.
    #[schema(value_type = Option<String>, format = DateTime)]
    due: Option<Moment>,
    /// What each meter shows, by point.
    totalizers: BTreeMap<String, f64>,
    /// `stopped`, `filling`, `running`, `waiting`, `error`.
    status: String,
    pace: PaceView,
    /// What it simulates.
    #[schema(value_type = Object)]
    config: SimulatorConfig,
    /// Why it waits or can't run.
    error_message: Option<String>,
    /// Points that report.
    points: usize,
    /// Minutes between two reports.
    interval_minutes: u32,
    /// When it was saved first.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Moment>,
    /// When it was saved last.
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Moment>,
}

/// How a simulator goes through time.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct PaceView {
    /// Simulated seconds a second, from 1; it never runs ahead of the clock.
    #[serde(default = "real_time")]
    #[schema(default = 1.0, minimum = 1.0, maximum = 1_000_000.0)]
    speed: f64,
    /// Where it stops by itself.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Moment>,
}

fn real_time() -> f64 {
    Pace::REAL_TIME.speed
}

impl StateView {
    fn of(poller: &Poller, state: Answer) -> Self {
        let pace = PaceView { speed: state.pace.speed, until: state.pace.until.map(Moment) };
        Self {
            simulator_id: state.simulator_id.0,
            org_id: poller.org_id.0,
            simulator_name: state.name,
            service_name: state.service_name,
            last_run_timestamp: state.last_run_timestamp.map(Moment),
            due: state.due.map(Moment),
            totalizers: state.totalizers,
            status: state.status.as_str().to_owned(),
            pace,
            config: state.config,
            error_message: state.error_message,
            points: state.points,
            interval_minutes: state.interval_minutes,
            created_at: state.created_at.map(Moment),
            updated_at: state.updated_at.map(Moment),
        }
    }
}

/// Show what a simulator does
///
/// Its owner is asked.
#[utoipa::path(get, path = "/simulator/state/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path)),
    responses(
        (status = 200, description = "What it does", body = StateView),
        (status = 503, description = "No simulator service answers"),
    ))]
pub(in crate::routes) async fn show_simulator_state(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<axum::Json<StateView>, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Read)?;
    let state = look(&api, &caller, &poller).await?;
    Ok(axum::Json(StateView::of(&poller, state)))
}

/// An edit of a running simulator; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct StateEdit {
    /// What it simulates from the next interval on.
    #[serde(default, deserialize_with = "maybe")]
    config: Option<ConfigEdit>,
    /// How it goes through time: one that is stopped goes on at this pace.
    #[serde(default, deserialize_with = "maybe")]
    pace: Option<PaceView>,
}

/// What a simulator simulates; what is left out stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct ConfigEdit {
    /// The building's description: YAML in a text, or the same as JSON.
    building: Option<TextOrJson>,
    /// Where its randomness begins.
    #[schema(format = "uint64")]
    seed: Option<u64>,
    /// Hours before its first start that it fills; it counts when all of it is reset.
    #[schema(maximum = 8784)]
    history_hours: Option<u32>,
    /// Where it begins instead.
    #[schema(value_type = Option<String>, format = DateTime)]
    begins: Option<Moment>,
    /// Whether it runs as soon as a service finds it first.
    autostart: Option<bool>,
    /// Given back as it came, and nothing follows from it.
    database_config: Option<Value>,
}

impl ConfigEdit {
    fn draft(self, before: SimulatorConfig) -> Result<Draft, Problem> {
        let building = self.building.map(|it| description(PLACES.building, it)).transpose()?;
        let config = SimulatorConfig {
            building: building.unwrap_or_else(|| before.building.clone()),
            seed: before.seed,
            history_hours: self.history_hours.unwrap_or(before.history_hours),
            begins: self.begins.map(|moment| moment.0).or(before.begins),
            autostart: self.autostart.unwrap_or(before.autostart),
            database_config: self.database_config.or_else(|| before.database_config.clone()),
        };
        Ok(Draft { config, minutes: None, seed: self.seed, before: Some(before) })
    }
}

/// Where the fields of an edit stand in a body.
const PLACES: Places =
    Places { settings: "/config", building: "/config/building", minutes: "/config/building" };

/// Edit a simulator's state
///
/// `config` counts from the next interval boundary on that both descriptions have; until then the answer
/// shows the one before. `pace` starts a simulator that is stopped; one that runs at another pace must be
/// stopped first.
#[utoipa::path(post, path = "/simulator/state/{simulator_id}", tag = "simulators", request_body = StateEdit,
    params(("simulator_id" = i32, Path)),
    responses(
        (status = 200, description = "The state after it", body = StateView),
        (status = 409, description = "Its state forbids that edit"),
        (status = 503, description = "No simulator service answers"),
    ))]
pub(in crate::routes) async fn edit_simulator_state(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Json(edit): Json<StateEdit>,
) -> Result<axum::Json<StateView>, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Control)?;
    let mut state = None;
    if let Some(config) = edit.config {
        let before = config_of(&poller)?;
        let (config, _) = config.draft(before.clone())?.checked(&PLACES).await?;
        if config != before {
            let pointer = PLACES.settings;
            state = Some(configure(&api, &caller, &poller, config, pointer).await?);
        }
    }
    if let Some(PaceView { speed, until }) = edit.pace {
        let pace = Some(Pace { speed, until: until.map(|moment| moment.0) });
        let order = Ask::Start { pace };
        state = Some(ask(&api, &caller, &poller, &order, "/pace").await?);
    }
    let state = match state {
        Some(state) => state,
        None => look(&api, &caller, &poller).await?,
    };
    Ok(axum::Json(StateView::of(&poller, state)))
}

/// Start a simulator
///
/// It goes on at the pace that it had, and fills the gap. Repeating it changes nothing.
#[utoipa::path(post, path = "/simulator/start/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path)),
    responses(
        (status = 200, description = "The state after it", body = StateView),
        (status = 409, description = "Its state forbids it"),
        (status = 503, description = "No simulator service answers"),
    ))]
pub(in crate::routes) async fn start_simulator(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<axum::Json<StateView>, Problem> {
    told(&api, &caller, id, &Ask::Start { pace: None }).await
}

/// Stop a simulator
///
/// It makes nothing more; what is missing then is filled when it is started. Repeating it changes nothing.
#[utoipa::path(post, path = "/simulator/stop/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path)),
    responses(
        (status = 200, description = "The state after it", body = StateView),
        (status = 409, description = "Nobody runs it: its poller is not active"),
        (status = 503, description = "No simulator service answers"),
    ))]
pub(in crate::routes) async fn stop_simulator(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<axum::Json<StateView>, Problem> {
    told(&api, &caller, id, &Ask::Stop).await
}

async fn told(
    api: &Api,
    caller: &Caller,
    id: i32,
    order: &Ask,
) -> Result<axum::Json<StateView>, Problem> {
    let poller = simulator(api, caller, id, Permission::Control)?;
    let state = ask(api, caller, &poller, order, "").await?;
    Ok(axum::Json(StateView::of(&poller, state)))
}

/// What a reset throws away.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::routes) enum ScopeView {
    /// What the building remembers, meters too; its history stays.
    State,
    /// Its history too, in every target.
    Data,
}

/// How to begin anew.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"scope": "state", "confirm": true}))]
pub(in crate::routes) struct Reset {
    scope: ScopeView,
    /// With scope `data`: what is not later than this moment stays.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    from: Option<Moment>,
    /// Must be true: what is thrown away is gone.
    #[serde(default)]
    confirm: bool,
}

/// Reset a simulator
///
/// Only while it is stopped or failed. With an `Idempotency-Key`, a reset that is repeated is done once.
#[utoipa::path(post, path = "/simulator/reset/{simulator_id}", tag = "simulators", request_body = Reset,
    params(("simulator_id" = i32, Path), ("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Names this request")),
    responses(
        (status = 200, description = "The state after it", body = StateView),
        (status = 409, description = "Its state forbids it"),
        (status = 503, description = "No simulator service answers"),
    ))]
pub(in crate::routes) async fn reset_simulator(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
    Json(reset): Json<Reset>,
) -> Result<axum::Json<StateView>, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Control)?;
    if !reset.confirm {
        let detail = "true is expected: what is thrown away is gone";
        return Err(Problem::field("/confirm", detail));
    }
    let body = serde_json::to_vec(&reset).unwrap_or_default();
    let asked = format!("simulator/reset/{id}");
    let key = idempotency::take(&api, &caller, Some(&poller.org), &asked, &headers, &body).await?;
    if key.as_ref().is_some_and(|key| key.claimed.entry.sequence.is_some()) {
        let state = look(&api, &caller, &poller).await?;
        return Ok(axum::Json(StateView::of(&poller, state)));
    }
    let scope = match reset.scope {
        ScopeView::State => Scope::State,
        ScopeView::Data => Scope::Data,
    };
    let from = reset.from.map(|moment| moment.0);
    let order = Ask::Reset { scope, from, confirm: true };
    let state = ask(&api, &caller, &poller, &order, "").await?;
    if let Some(mut key) = key {
        // Any number says that it was done.
        key.published(&api, 0).await;
    }
    Ok(axum::Json(StateView::of(&poller, state)))
}
