//! What simulators are to be: pollers of type `simulator`, each with the description of a building.

use super::{
    ask::ask,
    draft::{Draft, Places, description},
    making::{Making, free_name, register},
    simulator,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    idempotency,
    model::{self, Expected, etag, expected},
    page::{Page, list, one},
    problem::Problem,
    routes::{
        entity::{OrgFilter, org},
        moment::Moment,
        poller::{TextOrJson, changed_since, edit, last, name, number, shown},
    },
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use building::simulate;
use domain::{
    SimulatorId,
    access::Permission,
    model::{ACTIVE, Poller, SIMULATOR},
    simulator::{Ask, EntityKeys, SimulatorConfig, State as Answer},
};
use nats::registry::poller_fits;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::view::{Kind, Which};
use utoipa::ToSchema;

/// Hours before its first start that a simulator fills where the caller does not say it.
const HISTORY_HOURS: u32 = 24;
/// Most simulators of a page: each comes with its description.
const MOST: u32 = 100;

/// What a simulator does when a service finds it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::routes) enum FirstStatus {
    /// It runs (`active` is understood too).
    #[serde(alias = "active")]
    Running,
    /// It waits to be started.
    Stopped,
}

/// A simulator, as it is to be.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(from = "Row")]
pub(in crate::routes) struct SimulatorView {
    /// The same as `simulator_id`.
    id: i32,
    simulator_id: i32,
    org_id: i32,
    simulator_name: String,
    /// The building's description, YAML.
    building_config: String,
    /// As it was given. Nothing follows from it: readings go to the platform's targets.
    database_config: Option<Value>,
    /// Minutes between two reports, as the description says.
    interval_minutes: Option<u32>,
    /// `running` or `stopped`: what it does when a service finds it first; `inactive`: nobody runs it.
    /// What it does now is in its state.
    status: String,
    /// Where its randomness begins.
    #[schema(format = "uint64")]
    seed: u64,
    /// Hours before its first start that it fills.
    history_hours: u32,
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Moment,
    /// What `If-Match` takes.
    revision: u64,
}

/// A poller as the primary has it.
#[derive(Deserialize)]
struct Row {
    org_id: i32,
    poller_id: i32,
    poller_name: String,
    config: String,
    status: String,
    created_at: Moment,
    updated_at: Moment,
    revision: u64,
}

impl From<Row> for SimulatorView {
    fn from(row: Row) -> Self {
        // A later release may have written more than can be read here: what can't be is left out.
        let config: Option<SimulatorConfig> = serde_json::from_str(&row.config).ok();
        let config = config.unwrap_or_else(blank);
        let status = match (row.status.as_str(), config.autostart) {
            (ACTIVE, true) => "running".to_owned(),
            (ACTIVE, false) => "stopped".to_owned(),
            _ => row.status,
        };
        Self {
            id: row.poller_id,
            simulator_id: row.poller_id,
            org_id: row.org_id,
            simulator_name: row.poller_name,
            interval_minutes: simulate::interval_minutes(&config.building),
            building_config: config.building,
            database_config: config.database_config,
            status,
            seed: config.seed,
            history_hours: config.history_hours,
            created_at: row.created_at,
            updated_at: row.updated_at,
            revision: row.revision,
        }
    }
}

fn blank() -> SimulatorConfig {
    SimulatorConfig {
        building: String::new(),
        seed: 1,
        history_hours: HISTORY_HOURS,
        begins: None,
        autostart: true,
        database_config: None,
    }
}

/// A simulator to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"org_id": 1, "simulator_name": "Hut", "history_hours": 1, "building_config": {
    "site": {"name": "Hut", "latitude": 52.5, "longitude": 13.4, "time_zone": "Europe/Berlin"},
    "schedules": {"day": {"from": "08:00", "to": "18:00"}},
    "ahus": [{"name": "ahu"}],
    "floors": [{"name": "ground", "ahu": "ahu", "schedule": "day", "zones": {"room": {"area": 40}}}]
}}))]
pub(in crate::routes) struct NewSimulator {
    org_id: i32,
    /// No other simulator of the org may have it.
    #[schema(min_length = 1, max_length = 100)]
    simulator_name: String,
    /// The building's description: YAML in a text, or the same as JSON (`docs/building.md`).
    building_config: TextOrJson,
    /// For clients of an earlier design: given back as it came, and nothing follows from it. Readings go to
    /// the platform's targets.
    database_config: Option<Value>,
    /// Minutes between two reports, which divide a day. Where the description says it, it must be the same.
    #[schema(minimum = 1, maximum = 1440)]
    interval_minutes: Option<u32>,
    /// Left out: `running`.
    status: Option<FirstStatus>,
    /// Where its randomness begins; left out: where the description says.
    #[schema(format = "uint64")]
    seed: Option<u64>,
    /// Hours before its first start that it fills; left out: 24.
    #[schema(maximum = 8784)]
    history_hours: Option<u32>,
}

/// What changes; the rest stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct ConfigChange {
    /// It stays where it is: where it is named, it must be the org that it has.
    org_id: Option<i32>,
    #[schema(min_length = 1, max_length = 100)]
    simulator_name: Option<String>,
    building_config: Option<TextOrJson>,
    database_config: Option<Value>,
    #[schema(minimum = 1, maximum = 1440)]
    interval_minutes: Option<u32>,
    status: Option<FirstStatus>,
}

/// List simulators
///
/// Those that are active, at most 100 a page; `GET /poller?type=simulator&status=` has the others.
#[utoipa::path(get, path = "/simulator/config", tag = "simulators", params(OrgFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<SimulatorView>)))]
pub(in crate::routes) async fn list_simulators(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<OrgFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    page.limit()?;
    let page = Page { limit: Some(page.limit.unwrap_or(MOST).min(MOST)), ..page };
    let which = Which {
        org: filter.org_id,
        of_type: Some(SIMULATOR.to_owned()),
        status: Some(ACTIVE.to_owned()),
        ..Which::default()
    };
    list::<SimulatorView>(&api, &caller, Kind::Poller, &which, &page).await
}

/// Show what a simulator is to be
#[utoipa::path(get, path = "/simulator/config/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path)),
    responses((status = 200, description = "The simulator, with its `ETag`", body = SimulatorView)))]
pub(in crate::routes) async fn show_simulator(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Response, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Read)?;
    let which = Which { number: Some(poller.id.0.into()), ..Which::default() };
    let view: SimulatorView = one(&api, &caller, Kind::Poller, &which, "simulator").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Make a simulator
///
/// Its sites, floors, equipment and points become entities. With an `Idempotency-Key`, a request that is
/// repeated makes one. A mistake in the description is a 422 that names its line.
#[utoipa::path(post, path = "/simulator/config", tag = "simulators", request_body = NewSimulator,
    params(("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Names this request")),
    responses(
        (status = 201, description = "Made, and applied by the primary", body = SimulatorView),
        (status = 409, description = "A simulator of the org has that name"),
    ))]
pub(in crate::routes) async fn create_simulator(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Json(new): Json<NewSimulator>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, new.org_id, Permission::Model)?;
    let name = name("/simulator_name", new.simulator_name)?;
    let config = SimulatorConfig {
        building: description("/building_config", new.building_config)?,
        history_hours: new.history_hours.unwrap_or(HISTORY_HOURS),
        autostart: new.status != Some(FirstStatus::Stopped),
        database_config: new.database_config,
        ..blank()
    };
    let draft = Draft { config, minutes: new.interval_minutes, seed: new.seed, before: None };
    let (config, plan) = draft.checked(&PLACES).await?;
    let mut poller = Poller {
        id: SimulatorId(i32::MAX),
        org: org.key.clone(),
        org_id: org.id,
        poller_type: SIMULATOR.to_owned(),
        name: name.clone(),
        status: ACTIVE.to_owned(),
        config: text_of(&config),
        entities: EntityKeys::new(),
    };
    let wanted = simulate::wanted(&plan);
    poller_fits(&poller, &wanted)?;
    model::ready(&api).await?;
    let body = serde_json::to_vec(&poller).unwrap_or_default();
    let asked = "simulator/config";
    let key = idempotency::take(&api, &caller, Some(&org.key), asked, &headers, &body).await?;
    let before = key.as_ref().and_then(|key| key.claimed.entry.number).map(SimulatorId);
    let making = Making::begin(&api, org.id, &name, before)?;
    let number = number(&api);
    poller.id = SimulatorId(match key {
        Some(mut key) => key.number(&api, number).await?,
        None => number.await?,
    });
    let revision = register(&api, &caller, poller.clone(), wanted, making).await?;
    model::applied(&api, revision).await?;
    let view: SimulatorView = shown(&api, &poller).await?;
    Ok((StatusCode::CREATED, etag(view.revision), axum::Json(view)).into_response())
}

/// Change what a simulator is to be
///
/// Its service takes the description over at the next interval that both have; until then its state shows
/// the one before. What the description no longer names keeps its entity and its history. A seed counts
/// where the description's own has changed.
#[utoipa::path(put, path = "/simulator/config/{simulator_id}", tag = "simulators",
    request_body = ConfigChange,
    params(("simulator_id" = i32, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "Changed, and applied by the primary", body = SimulatorView),
        (status = 409, description = "The simulator's state forbids it, or another one has that name"),
        (status = 412, description = "It was changed since"),
        (status = 503, description = "No simulator service answers, or something is away"),
    ))]
pub(in crate::routes) async fn replace_simulator(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
    Json(change): Json<ConfigChange>,
) -> Result<Response, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Model)?;
    let expected = expected(&headers)?;
    if change.org_id.is_some_and(|org| org != poller.org_id.0) {
        return Err(Problem::field("/org_id", "a simulator stays in its org"));
    }
    let name = change.simulator_name.map(|it| name("/simulator_name", it)).transpose()?;
    if let Some(name) = &name {
        free_name(&api, poller.org_id, name, Some(poller.id))?;
    }
    let (revision, poller) = last(&api, &poller).await?;
    let before = config_of(&poller)?;
    let building = change.building_config.map(|it| description("/building_config", it));
    let config = SimulatorConfig {
        building: building.transpose()?.unwrap_or_else(|| before.building.clone()),
        database_config: change.database_config.or_else(|| before.database_config.clone()),
        autostart: change.status.map_or(before.autostart, |wish| wish == FirstStatus::Running),
        ..before.clone()
    };
    let draft = Draft {
        config,
        minutes: change.interval_minutes,
        seed: None,
        before: Some(before.clone()),
    };
    let (config, _) = draft.checked(&PLACES).await?;
    let name = name.filter(|name| *name != poller.name);
    let changes = config != before || name.is_some();
    // One that is so already is the caller's own change, whose answer was lost.
    if changes && matches!(expected, Expected::Revision(seen) if seen != revision) {
        return Err(changed_since());
    }
    if config != before {
        configure(&api, &caller, &poller, config, "").await?;
    }
    if let Some(name) = name {
        let renamed = |poller| Ok(Poller { name: name.clone(), ..poller });
        edit(&api, &caller, &poller, Expected::Last, renamed).await?;
    }
    let view: SimulatorView = shown(&api, &poller).await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Has the owner write another configuration, and waits until the primary has it.
pub(super) async fn configure(
    api: &Api,
    caller: &Caller,
    poller: &Poller,
    config: SimulatorConfig,
    pointer: &str,
) -> Result<Answer, Problem> {
    model::ready(api).await?;
    let state = ask(api, caller, poller, &Ask::Configure { config }, pointer).await?;
    let (revision, _) = last(api, poller).await?;
    model::applied(api, revision).await?;
    Ok(state)
}

/// What a simulator is to simulate.
pub(super) fn config_of(poller: &Poller) -> Result<SimulatorConfig, Problem> {
    serde_json::from_str(&poller.config).map_err(|error| {
        tracing::warn!(simulator = poller.id.0, %error, "a configuration that can't be read");
        Problem::conflict("a later release wrote its configuration; this one can't change it")
    })
}

fn text_of(config: &SimulatorConfig) -> String {
    serde_json::to_string(config).expect("a configuration can be written")
}

/// Where the fields of a configuration stand in a body.
const PLACES: Places =
    Places { settings: "", building: "/building_config", minutes: "/interval_minutes" };
