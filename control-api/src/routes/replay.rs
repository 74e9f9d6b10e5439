//! History processed again: begun, looked at, stopped, resumed, taken back. A bridge does it.

use super::{
    job::{self, JobView, org_or_all},
    moment::Moment,
};
use crate::{
    Api,
    caller::{Caller, May},
    extract::{Json, Path, Query},
    page::{Page, large_page},
    problem::Problem,
    shape,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{
    Clock, DeviceId, OrgKey, SystemClock, TypeId,
    access::Permission,
    job::What,
    replay::{Counts, Replay, Rules, Spec, State as Where},
};
use nats::{
    records::{self, Kept, NotSo, RecordFault},
    replays,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Replays that are looked at for one page.
const LOOKS: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_replays, begin_replay))
        .routes(routes!(show_replay))
        .routes(routes!(stop_replay))
        .routes(routes!(resume_replay))
        .routes(routes!(undo_replay))
        .routes(routes!(preview_replay))
}

/// A replay.
#[derive(Serialize, Deserialize, ToSchema)]
struct ReplayView {
    /// Its number, the revision of what it gives.
    replay_id: u16,
    /// Messages that were accepted at this moment or later ...
    #[schema(value_type = String, format = DateTime)]
    from: Moment,
    /// ... and before this one.
    #[schema(value_type = String, format = DateTime)]
    to: Moment,
    /// Of this org; none: of all.
    org_key: Option<String>,
    device_type: Option<String>,
    device_id: Option<String>,
    /// By this version of the device type; none: by the one in force, or, where it takes another back, by each
    /// message's own.
    version: Option<u32>,
    /// The replay that it takes back.
    undoes: Option<u16>,
    /// `running`, `stopped`, `done`, `failed`.
    status: String,
    /// Why it failed, or what it waits for.
    waits_for: Option<String>,
    /// How much is done, from 0 to 1.
    done: f64,
    /// Messages that it was about so far.
    messages: u64,
    readings: u64,
    /// Rows that another version gave and this one does not.
    removed: u64,
    /// Messages, or parts of them, that could not be normalized.
    failed: u64,
    last_failure: Option<String>,
    began_by: String,
    #[schema(value_type = String, format = DateTime)]
    began_at: Moment,
}

impl From<Replay> for ReplayView {
    fn from(replay: Replay) -> Self {
        let share = replay.share();
        let Replay { id, spec, undoes, by, began_at, state, counts, last_failure, waits, .. } =
            replay;
        let Spec { from, to, org, device_type, device, rules } = spec;
        let (status, why) = match state {
            Where::Running => ("running", waits),
            Where::Stopped => ("stopped", None),
            Where::Done => ("done", None),
            Where::Failed(why) => ("failed", Some(why)),
        };
        let version = if let Rules::Version(version) = rules { Some(version) } else { None };
        let Counts { taken, readings, removals, failed, .. } = counts;
        Self {
            replay_id: id,
            from: Moment(from),
            to: Moment(to),
            org_key: org.map(|org| org.to_string()),
            device_type: device_type.map(|it| it.to_string()),
            device_id: device.map(|it| it.to_string()),
            version,
            undoes,
            status: status.to_owned(),
            waits_for: why,
            done: share,
            messages: taken,
            readings,
            removed: removals,
            failed,
            last_failure,
            began_by: by,
            began_at: Moment(began_at),
        }
    }
}

/// Which history is processed again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"org_id": 1, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}))]
struct NewReplay {
    /// Messages of this org. Left out: of all, for an admin of the platform.
    org_id: Option<i32>,
    /// Messages that were accepted at this moment or later ...
    #[schema(value_type = String, format = DateTime)]
    from: Moment,
    /// ... and before this one.
    #[schema(value_type = String, format = DateTime)]
    to: Moment,
    /// Of devices of this type.
    #[schema(value_type = Option<shape::TypeId>)]
    device_type: Option<TypeId>,
    /// Of this device or gateway.
    #[schema(value_type = Option<shape::DeviceId>)]
    device_id: Option<DeviceId>,
    /// By this version of the device type; left out: by the one in force.
    #[schema(minimum = 1)]
    version: Option<u32>,
}

impl NewReplay {
    /// What the caller may have processed again.
    fn read(self, api: &Api, caller: &Caller) -> Result<Spec, Problem> {
        let Self { org_id, from, to, device_type, device_id, version } = self;
        let org = org_or_all(api, caller, org_id, Permission::Model)?;
        if from.0 >= to.0 {
            return Err(Problem::field("/from", "it is not before `to`"));
        }
        if version.is_some() && device_type.is_none() {
            return Err(Problem::field("/device_type", "versions are of a device type: which?"));
        }
        {
            let directory = api.directory.read();
            let of_org = |device: &DeviceId| {
                let found = directory.device(device);
                found.is_some_and(|it| org.as_ref().is_none_or(|org| *org == it.org))
            };
            if device_id.as_ref().is_some_and(|device| !of_org(device)) {
                return Err(Problem::field("/device_id", "there is no such device"));
            }
        }
        if let Some(id) = &device_type {
            let directory = api.directory.read();
            let of = |it: &&OrgKey| org.as_ref().is_none_or(|org| org == *it);
            let orgs = directory.orgs();
            let keys = orgs.iter().map(|org| &org.key).filter(of);
            let newest =
                keys.filter_map(|key| directory.head(key, id)).map(|it| it.current.version);
            let Some(newest) = newest.max() else {
                return Err(Problem::field("/device_type", "there is no such device type"));
            };
            if version.is_some_and(|version| !(1..=newest).contains(&version)) {
                return Err(Problem::field(
                    "/version",
                    format!("there are versions 1 to {newest}"),
                ));
            }
        }
        let rules = version.map_or(Rules::InForce, Rules::Version);
        Ok(Spec { from: from.0, to: to.0, org, device_type, device: device_id, rules })
    }
}

fn problem(fault: &RecordFault) -> Problem {
    match fault {
        RecordFault::Conflict(..) => Problem::conflict("it changes all the time; try again"),
        RecordFault::NoNumber(..) => Problem::conflict(fault.to_string()),
        RecordFault::Server(..) => {
            tracing::warn!(%fault, "replays can't be read or written");
            Problem::away("replays can't be read or written now; look at them before you repeat it")
        }
    }
}

fn not_so(why: &NotSo) -> Problem {
    match why {
        NotSo::Gone(..) => Problem::not_found("replay"),
        NotSo::Refused(why) => Problem::conflict(why.clone()),
        NotSo::Fault(fault) => problem(fault),
    }
}

/// Whether a caller may do something with the replays of an org, or of all.
fn allowed(
    api: &Api,
    caller: &Caller,
    of: Option<&OrgKey>,
    permission: Permission,
) -> Result<(), Problem> {
    let known = of.and_then(|key| api.directory.read().org(key).map(|org| org.id));
    match known {
        Some(org) => caller.require(org, permission, "replay"),
        None if caller.may == May::All => Ok(()),
        None => Err(Problem::not_found("replay")),
    }
}

async fn open(
    api: &Api,
    caller: &Caller,
    id: u16,
    permission: Permission,
) -> Result<Kept<Replay>, Problem> {
    let none = || Problem::not_found("replay");
    let kept: Kept<Replay> = records::get(&api.wire, id.into())
        .await
        .map_err(|fault| problem(&fault))?
        .ok_or_else(none)?;
    allowed(api, caller, kept.record.spec.org.as_ref(), permission)?;
    Ok(kept)
}

/// List replays
///
/// The newest first; those that the caller may see.
#[utoipa::path(get, path = "/replay", tag = "operations", params(Page),
    responses((status = 200, description = "A page of them", body = Vec<ReplayView>)))]
async fn list_replays(
    State(api): State<Api>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let limit = page.limit()? as usize;
    let newest = records::newest::<Replay>(&api.wire).await.map_err(|fault| problem(&fault))?;
    let wrong = || Problem::field("/query/cursor", "this is no x-next-cursor of an earlier page");
    let before: Option<u32> = page.cursor.map(|it| it.parse().map_err(|_| wrong())).transpose()?;
    let (mut rows, mut next) = (Vec::new(), None);
    let first = before.map_or(newest, |before| newest.min(before.saturating_sub(1)));
    for (looked, id) in (1..=first).rev().enumerate() {
        if rows.len() == limit || looked == LOOKS {
            next = Some((id + 1).to_string());
            break;
        }
        let Some(kept) =
            records::get::<Replay>(&api.wire, id).await.map_err(|fault| problem(&fault))?
        else {
            continue;
        };
        if allowed(&api, &caller, kept.record.spec.org.as_ref(), Permission::Read).is_ok() {
            rows.push(ReplayView::from(kept.record));
        }
    }
    large_page(&api, &caller, &rows, next).await
}

/// Process history again
///
/// What the messages give now replaces what they gave before; what came later stays.
#[utoipa::path(post, path = "/replay", tag = "operations", request_body = NewReplay, responses(
    (status = 201, description = "It begins as soon as a bridge takes it up", body = ReplayView),
    (status = 409, description = "No number is left for another replay"),
))]
async fn begin_replay(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewReplay>,
) -> Result<Response, Problem> {
    let spec = new.read(&api, &caller)?;
    let replay = Replay::new(spec, None, caller.author().who, SystemClock.now());
    let kept = records::begin(&api.wire, replay).await.map_err(|fault| problem(&fault))?;
    Ok(created(kept.record))
}

fn created(replay: Replay) -> Response {
    (StatusCode::CREATED, axum::Json(ReplayView::from(replay))).into_response()
}

/// Look what a replay would change
///
/// Nothing is changed. What it found stands in the job's `result`: rows that would be added, changed and removed, by
/// point and day, some of them one by one, and how long the replay would take (`seconds`).
#[utoipa::path(post, path = "/replay/preview", tag = "operations", request_body = NewReplay, responses(
    (status = 202, description = "An ingest service looks", body = JobView),
    (status = 409, description = "Too many jobs are not done yet"),
))]
async fn preview_replay(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewReplay>,
) -> Result<Response, Problem> {
    let spec = new.read(&api, &caller)?;
    job::begin(&api, &caller, What::Preview(spec)).await
}

/// Show a replay
#[utoipa::path(get, path = "/replay/{replay_id}", tag = "operations", params(("replay_id" = u16, Path)),
    responses((status = 200, description = "What it does, and how far it is", body = ReplayView)))]
async fn show_replay(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<u16>,
) -> Result<axum::Json<ReplayView>, Problem> {
    let kept = open(&api, &caller, id, Permission::Read).await?;
    Ok(axum::Json(kept.record.into()))
}

/// Stop a replay
///
/// It can be resumed where it is then. Repeating it changes nothing.
#[utoipa::path(post, path = "/replay/{replay_id}/stop", tag = "operations", params(("replay_id" = u16, Path)),
    responses(
        (status = 200, description = "It rests", body = ReplayView),
        (status = 409, description = "It is over"),
    ))]
async fn stop_replay(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<u16>,
) -> Result<axum::Json<ReplayView>, Problem> {
    open(&api, &caller, id, Permission::Model).await?;
    changed(&api, id, Replay::stop).await
}

/// Let a replay go on
///
/// Repeating it changes nothing.
#[utoipa::path(post, path = "/replay/{replay_id}/resume", tag = "operations", params(("replay_id" = u16, Path)),
    responses(
        (status = 200, description = "It goes on where it was", body = ReplayView),
        (status = 409, description = "It is done, or was taken back"),
    ))]
async fn resume_replay(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<u16>,
) -> Result<axum::Json<ReplayView>, Problem> {
    open(&api, &caller, id, Permission::Model).await?;
    let resumed = replays::resume(&api.wire, id).await;
    resumed.map(|replay| axum::Json(replay.into())).map_err(|why| not_so(&why))
}

async fn changed(
    api: &Api,
    id: u16,
    change: impl Fn(&mut Replay) -> Result<(), String>,
) -> Result<axum::Json<ReplayView>, Problem> {
    let changed = records::change(&api.wire, id.into(), change).await;
    changed.map(|replay| axum::Json(replay.into())).map_err(|why| not_so(&why))
}

/// How far it is taken back.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Meant {
    /// Also where an earlier replay was about the same messages.
    #[param(value_type = Option<bool>)]
    to_the_first: Option<bool>,
}

/// Take a replay back
///
/// A replay of the same messages by the versions that were their own when they came. Where an earlier replay gave
/// the same messages something else, that does not come back, either: it is refused, unless `to_the_first` says
/// that it is meant.
#[utoipa::path(post, path = "/replay/{replay_id}/undo", tag = "operations",
    params(("replay_id" = u16, Path), Meant),
    responses(
        (status = 201, description = "It begins as soon as a bridge takes it up", body = ReplayView),
        (status = 409, description = "It is running, was taken back before, or an earlier one is in its way"),
    ))]
async fn undo_replay(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<u16>,
    Query(meant): Query<Meant>,
) -> Result<Response, Problem> {
    let meant = meant.to_the_first.unwrap_or_default();
    open(&api, &caller, id, Permission::Model).await?;
    let by = caller.author().who;
    let begun = replays::undo(&api.wire, id, meant, by, SystemClock.now()).await;
    Ok(created(begun.map_err(|why| not_so(&why))?))
}
