//! Where readings are, and what is missing: asked of an ingest service, which sees every target. Targets.

use super::{
    entity::org,
    job::{self, JobView, org_or_all},
    moment::Moment,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json as Body, Path, Query},
    model,
    problem::Problem,
    shape,
};
use axum::{Json, extract::State, response::Response};
use domain::{
    Clock, EntityId, OrgId, SystemClock, TargetName, Timestamp,
    access::Permission,
    custody::{Ask, SERVICE, Told},
    job::What,
    ledger::hour_of,
};
use nats::{
    micro::{self, Refusal},
    model::ModelFault,
    targets::{self, Detached},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest wait for an answer of an ingest service.
const ANSWER: Duration = Duration::from_secs(20);
/// What is looked at where nobody says: a day, in microseconds.
const DAY: i64 = 24 * 3_600_000_000;
/// Characters of a message's or a request's name, at most.
const LONGEST_NAME: usize = 64;
/// Most that is looked at, in microseconds.
const LONGEST: i64 = 31 * DAY;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(trace_reading))
        .routes(routes!(trace))
        .routes(routes!(list_gaps))
        .routes(routes!(show_ledger))
        .routes(routes!(verify, begin_verify))
        .routes(routes!(settle_ledger))
        .routes(routes!(list_targets))
        .routes(routes!(detach_target))
        .routes(routes!(attach_target))
        .routes(routes!(backfill_target))
}

/// When.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct When {
    /// The moment of the reading.
    #[param(value_type = String, format = DateTime)]
    at: Moment,
}

/// What: a message or a request.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// `RAW-{sequence}-{index}` or `TELEMETRY-{sequence}`, as answers name it.
    #[param(max_length = 64, example = "TELEMETRY-17")]
    message_id: Option<String>,
    /// The `dq-request-id` of an answer of the last day.
    #[param(max_length = 64)]
    request_id: Option<String>,
}

/// Which points.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Span {
    /// Their org.
    org_id: i32,
    /// From this moment; left out: a day before `to`. At most 31 days are looked at.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Moment>,
    /// Up to this one; left out: now.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Moment>,
}

async fn ask(api: &Api, caller: &Caller, ask: Ask) -> Result<Vec<Value>, Problem> {
    let (name, id) = SERVICE;
    let wire = model::wire(api, caller);
    let told: Result<Told, Refusal> =
        micro::ask(&wire, format!("{name}.{id}.{}", ask.verb()), &ask, ANSWER).await;
    serde_json::from_str(&told?.json)
        .map_err(|_| Problem::away("an ingest service of another release answered"))
}

/// Follow a reading
///
/// From the message in which it came to its row in every target, or to what became of it instead. Nothing
/// where no target has a row of that moment.
#[utoipa::path(get, path = "/trace/{entity_id}", tag = "operations",
    params(("entity_id" = i32, Path), When),
    responses((status = 200, description = "The message that gave it, and its fate in each target",
        body = Vec<Object>)))]
async fn trace_reading(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(when): Query<When>,
) -> Result<Json<Vec<Value>>, Problem> {
    let entity = EntityId(id);
    {
        let directory = api.directory.read();
        let none = || Problem::not_found("entity");
        let org = directory.entity(entity).map(|entity| entity.org_id).ok_or_else(none)?;
        if !caller.may_with(org, Permission::Read, entity) {
            caller.require(org, Permission::Read, "entity")?;
        }
    }
    ask(&api, &caller, Ask::Reading { entity, at: when.at.0 }).await.map(Json)
}

/// Follow a message, or what a request brought
///
/// For admins of the platform: a message may hold readings of several orgs.
#[utoipa::path(get, path = "/trace", tag = "operations", params(Which),
    responses((status = 200, description = "What became of it, in each target", body = Vec<Object>)))]
async fn trace(
    State(api): State<Api>,
    caller: Caller,
    Query(what): Query<Which>,
) -> Result<Json<Vec<Value>>, Problem> {
    caller.require_platform()?;
    let question = match (what.message_id, what.request_id) {
        (Some(name), None) => Ask::Message { name: short("message_id", name)? },
        (None, Some(id)) => Ask::Request { id: short("request_id", id)? },
        _ => {
            let text = "either message_id or request_id is expected";
            return Err(Problem::field("/query/message_id", text));
        }
    };
    ask(&api, &caller, question).await.map(Json)
}

fn short(field: &str, text: String) -> Result<String, Problem> {
    if text.chars().count() <= LONGEST_NAME {
        return Ok(text);
    }
    let rule = format!("at most {LONGEST_NAME} characters are expected");
    Err(Problem::field(format!("/query/{field}"), rule))
}

/// List what is missing
///
/// Of points whose interval is known (tag `hisCollectInterval`, or their simulator's): since when, and where
/// it stopped.
#[utoipa::path(get, path = "/gap", tag = "operations", params(Span),
    responses((status = 200, description = "The longest first; at most 10,000", body = Vec<Object>)))]
async fn list_gaps(
    State(api): State<Api>,
    caller: Caller,
    Query(span): Query<Span>,
) -> Result<Json<Vec<Value>>, Problem> {
    let id = OrgId(span.org_id);
    caller.require(id, Permission::Read, "org")?;
    let org = api.directory.read().org_by_id(id).map(|org| org.key.clone());
    let org = org.ok_or_else(|| Problem::not_found("org"))?;
    let (from, to) = self::span(span.from, span.to)?;
    ask(&api, &caller, Ask::Gaps { org, from, to }).await.map(Json)
}

/// Whose rows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The org.
    org_id: i32,
}

/// Compare all targets
///
/// Whether every target holds of an org what the primary holds: rows by hour, deletions, current values. A history
/// that takes longer than some seconds is compared by a job: `POST /verify`, which also repairs.
#[utoipa::path(get, path = "/verify", tag = "operations", params(Whose),
    responses((status = 200, description = "`equal`, and what differs", body = Object)))]
async fn verify(
    State(api): State<Api>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, Problem> {
    let id = OrgId(whose.org_id);
    caller.require(id, Permission::Admin, "org")?;
    let org = api.directory.read().org_by_id(id).map(|org| org.key.clone());
    let org = org.ok_or_else(|| Problem::not_found("org"))?;
    let mut told = ask(&api, &caller, Ask::Verify { org }).await?;
    let none = || Problem::away("an ingest service of another release answered");
    told.pop().map(Json).ok_or_else(none)
}

/// What is to be compared.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"org_id": 1, "repair": true}))]
struct NewVerify {
    /// Rows of this org. Left out: of all, for an admin of the platform.
    org_id: Option<i32>,
    /// Make the targets equal: where the streams still have a reading, its value counts; where they have not, the
    /// higher version does, and of equal ones the primary's.
    #[serde(default)]
    repair: bool,
    /// Take away rows that no accepted message explains, too.
    #[serde(default)]
    prune: bool,
}

/// Compare all targets, and repair
///
/// However long it takes. The job's `result` tells what was compared, what differs, and what was put right.
#[utoipa::path(post, path = "/verify", tag = "operations", request_body = NewVerify, responses(
    (status = 202, description = "An ingest service does it", body = JobView),
    (status = 409, description = "Too many jobs are not done yet"),
))]
async fn begin_verify(
    State(api): State<Api>,
    caller: Caller,
    Body(new): Body<NewVerify>,
) -> Result<Response, Problem> {
    let NewVerify { org_id, repair, prune } = new;
    let org = org_or_all(&api, &caller, org_id, Permission::Admin)?;
    if prune && !repair {
        return Err(Problem::field("/prune", "only a repair takes rows away: say `repair`, too"));
    }
    job::begin(&api, &caller, What::Verify { org, repair, prune }).await
}

/// Take what is there as right
///
/// What is unaccounted for now is written down as settled, and rows count as many as there are: the ledger balances
/// from there on. For admins of the platform.
#[utoipa::path(post, path = "/ledger/settle", tag = "operations", responses(
    (status = 202, description = "An ingest service does it", body = JobView),
    (status = 409, description = "Too many jobs are not done yet"),
))]
async fn settle_ledger(State(api): State<Api>, caller: Caller) -> Result<Response, Problem> {
    caller.require_platform()?;
    job::begin(&api, &caller, What::Settle).await
}

/// Which hours.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Hours {
    /// From the hour of this moment; left out: a day before `to`. At most 31 days are told.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Moment>,
    /// Up to the hour of this one; left out: now.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Moment>,
    /// Count all rows of all targets, however many: it may take too long to be answered.
    #[param(value_type = Option<bool>)]
    rows: Option<bool>,
    /// Look into each message of RAW that the hours have, however many: it may take too long to be answered.
    #[param(value_type = Option<bool>)]
    entries: Option<bool>,
}

/// Show the ledger
///
/// Whether everything that was accepted is stored, set aside or on its way: by hop, target, org and hour. For
/// admins of the platform.
#[utoipa::path(get, path = "/ledger", tag = "operations", params(Hours),
    responses((status = 200, description = "`balanced`, and why", body = Object)))]
async fn show_ledger(
    State(api): State<Api>,
    caller: Caller,
    Query(hours): Query<Hours>,
) -> Result<Json<Value>, Problem> {
    caller.require_platform()?;
    let (from, to) = span(hours.from, hours.to)?;
    let (rows, entries) = (hours.rows.unwrap_or_default(), hours.entries.unwrap_or_default());
    let question = Ask::Ledger { from: hour_of(from), to: hour_of(to), rows, entries };
    let mut told = ask(&api, &caller, question).await?;
    let none = || Problem::away("an ingest service of another release answered");
    told.pop().map(Json).ok_or_else(none)
}

/// A span of time that may be asked about.
fn span(from: Option<Moment>, to: Option<Moment>) -> Result<(Timestamp, Timestamp), Problem> {
    let to = to.map_or_else(|| SystemClock.now(), |to| to.0);
    let from = from.map_or_else(|| to.plus_micros(-DAY), |from| from.0);
    if from < to && to.micros() - from.micros() <= LONGEST {
        return Ok((from, to));
    }
    Err(Problem::field("/query/from", "it must be before `to`, by 31 days at most"))
}

/// A target.
#[derive(Serialize, Deserialize, ToSchema)]
struct TargetView {
    #[schema(value_type = shape::TargetName)]
    target: String,
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// Whether it keeps device messages as they came.
    archives: bool,
    /// When it was let go, and by whom.
    #[schema(value_type = Option<String>, format = DateTime)]
    detached_at: Option<Moment>,
    detached_by: Option<String>,
    /// When it was compared with the primary (`haystack verify`), and whether it was equal.
    #[schema(value_type = Option<String>, format = DateTime)]
    compared_at: Option<Moment>,
    equal: Option<bool>,
}

fn away(fault: &ModelFault) -> Problem {
    tracing::warn!(%fault, "the register of targets can't be read or written");
    Problem::away("the register of targets can't be read or written now; try again")
}

async fn views(api: &Api) -> Result<Vec<TargetView>, Problem> {
    let register = targets::list(&api.wire).await.map_err(|fault| away(&fault))?;
    let view = |(name, entry): (TargetName, targets::Registered)| TargetView {
        target: name.to_string(),
        since: Moment(entry.since),
        archives: entry.archives,
        detached_at: entry.detached.as_ref().map(|detached| Moment(detached.at)),
        detached_by: entry.detached.map(|detached| detached.by),
        compared_at: entry.compared.map(|compared| Moment(compared.at)),
        equal: entry.compared.map(|compared| compared.equal),
    };
    Ok(register.into_iter().map(view).collect())
}

async fn one(api: &Api, name: &TargetName) -> Result<Json<TargetView>, Problem> {
    let found = views(api).await?.into_iter().find(|view| view.target == name.as_str());
    found.map(Json).ok_or_else(|| Problem::not_found("target"))
}

/// List targets
///
/// Databases that are registered to receive everything. How far each is stands at `/readyz`.
#[utoipa::path(get, path = "/target", tag = "operations",
    responses((status = 200, description = "By name", body = Vec<TargetView>)))]
async fn list_targets(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<Vec<TargetView>>, Problem> {
    caller.require_platform()?;
    views(&api).await.map(Json)
}

/// Let a target go
///
/// Nothing more is written there, and the streams keep nothing for it. Repeating it changes nothing.
#[utoipa::path(post, path = "/target/{target}/detach", tag = "operations",
    params(("target" = shape::TargetName, Path)),
    responses(
        (status = 200, description = "It is let go within seconds", body = TargetView),
        (status = 409, description = "It is the primary"),
    ))]
async fn detach_target(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<TargetName>,
) -> Result<Json<TargetView>, Problem> {
    caller.require_platform()?;
    let _ = one(&api, &name).await?;
    if name == api.primary {
        return Err(Problem::conflict("it is the primary: callers wait for its COMMIT"));
    }
    let detached = Detached { at: SystemClock.now(), by: caller.author().who };
    let done = targets::detach(&api.wire, &name, detached).await.map_err(|fault| away(&fault))?;
    done.map_err(|_| Problem::not_found("target"))?;
    one(&api, &name).await
}

/// Take a target back
///
/// It gets what the streams still have; `POST /target/{target}/backfill` brings the rest. Repeating it changes
/// nothing.
#[utoipa::path(post, path = "/target/{target}/attach", tag = "operations",
    params(("target" = shape::TargetName, Path)),
    responses((status = 200, description = "It is filled from the streams", body = TargetView)))]
async fn attach_target(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<TargetName>,
) -> Result<Json<TargetView>, Problem> {
    caller.require_platform()?;
    let done = targets::attach(&api.wire, &name, SystemClock.now()).await;
    done.map_err(|fault| away(&fault))?.map_err(|_| Problem::not_found("target"))?;
    one(&api, &name).await
}

/// From where a target is filled.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": "primary"}))]
struct NewBackfill {
    /// The target that has it.
    #[schema(value_type = shape::TargetName)]
    from: TargetName,
    /// Only rows of this org.
    org_id: Option<i32>,
}

/// Fill a target from another
///
/// What is older than the streams, while live readings flow. For admins of the platform.
#[utoipa::path(post, path = "/target/{target}/backfill", tag = "operations",
    params(("target" = shape::TargetName, Path)), request_body = NewBackfill,
    responses(
        (status = 202, description = "An ingest service does it", body = JobView),
        (status = 409, description = "It is detached, or too many jobs are not done yet"),
    ))]
async fn backfill_target(
    State(api): State<Api>,
    caller: Caller,
    Path(target): Path<TargetName>,
    Body(new): Body<NewBackfill>,
) -> Result<Response, Problem> {
    caller.require_platform()?;
    let NewBackfill { from, org_id } = new;
    let org = org_id.map(|id| org(&api, &caller, id, Permission::Admin)).transpose()?;
    let known = views(&api).await?;
    let find = |name: &TargetName| known.iter().find(|view| view.target == name.as_str());
    let Some(filled) = find(&target) else { return Err(Problem::not_found("target")) };
    if filled.detached_at.is_some() {
        return Err(Problem::conflict("it is detached: attach it first"));
    }
    if find(&from).is_none_or(|view| view.detached_at.is_some()) || from == target {
        return Err(Problem::field("/from", "it is no other registered target (GET /target)"));
    }
    let org = org.map(|org| org.key.clone());
    job::begin(&api, &caller, What::Backfill { target, from, org }).await
}
