//! Long work, begun by other routes: how far it is, and what it told. An ingest service does it.

use super::{entity::org, moment::Moment};
use crate::{
    Api,
    caller::{Caller, May},
    extract::{Path, Query},
    page::{Page, large, large_page},
    problem::Problem,
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use domain::{
    Clock, SystemClock,
    access::Permission,
    job::{Job, State as Where, What},
};
use nats::records::{self, Kept, NotSo, RecordFault};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Jobs that are looked at for one page.
const LOOKS: usize = 1_000;
/// The newest of which so many may wait or be worked on, ...
const NEWEST: usize = 200;
/// ... of one org, ...
const MOST_OF_ORG: usize = 4;
/// ... and of all.
const MOST_OPEN: usize = 40;
/// Records that are kept: older ones give way.
const MOST_KEPT: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(show_job))
        .routes(routes!(stop_job))
}

/// Long work.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct JobView {
    job_id: u32,
    /// `preview`, `verify`, `repair`, `settle`, `backfill`.
    what: String,
    /// Of this org; none: of all.
    org_key: Option<String>,
    /// `waiting` for an ingest service, `running`, `stopped`, `done`, `failed`.
    status: String,
    /// How far it is, for people.
    progress: String,
    /// Why it failed.
    why: Option<String>,
    began_by: String,
    #[schema(value_type = String, format = DateTime)]
    began_at: Moment,
    /// When it last was heard of.
    #[schema(value_type = String, format = DateTime)]
    touched_at: Moment,
    /// What it tells now that it is done. Lists leave it out.
    #[schema(value_type = Option<Object>)]
    result: Option<Value>,
}

impl From<Job> for JobView {
    fn from(job: Job) -> Self {
        let org_key = job.what.org().map(ToString::to_string);
        let (status, why, result) = match job.state {
            Where::Running if job.owner.is_none() => ("waiting", None, None),
            Where::Running => ("running", None, None),
            Where::Stopped => ("stopped", None, None),
            Where::Done(told) => ("done", None, serde_json::from_str(&told).ok()),
            Where::Failed(why) => ("failed", Some(why), None),
        };
        Self {
            job_id: job.id,
            what: job.what.name().to_owned(),
            org_key,
            status: status.to_owned(),
            progress: job.progress,
            why,
            began_by: job.by,
            began_at: Moment(job.began_at),
            touched_at: Moment(job.touched_at),
            result,
        }
    }
}

fn problem(fault: &RecordFault) -> Problem {
    match fault {
        RecordFault::Conflict(..) => Problem::conflict("it changes all the time; try again"),
        RecordFault::NoNumber(..) => Problem::conflict(fault.to_string()),
        RecordFault::Server(..) => {
            tracing::warn!(%fault, "jobs can't be read or written");
            Problem::away("jobs can't be read or written now; look at them before you repeat it")
        }
    }
}

/// Who may begin a job of a kind may look at it and stop it. A preview tells values.
fn needs(what: &What) -> &'static [Permission] {
    match what {
        What::Preview(_) => &[Permission::Model, Permission::Read],
        What::Verify { .. } | What::Settle | What::Backfill { .. } => &[Permission::Admin],
    }
}

fn allowed(api: &Api, caller: &Caller, what: &What) -> Result<(), Problem> {
    // Who fills a database is trusted with all of it.
    let of = what.org().filter(|_| !matches!(what, What::Backfill { .. }));
    let known = of.and_then(|key| api.directory.read().org(key).map(|org| org.id));
    match known {
        Some(org) => needs(what).iter().try_for_each(|it| caller.require(org, *it, "job")),
        None if caller.may == May::All => Ok(()),
        None => Err(Problem::not_found("job")),
    }
}

/// The org of a request, where it names one; whoever names none must be an admin of the platform.
pub(super) fn org_or_all(
    api: &Api,
    caller: &Caller,
    id: Option<i32>,
    permission: Permission,
) -> Result<Option<domain::OrgKey>, Problem> {
    if let Some(id) = id {
        return Ok(Some(org(api, caller, id, permission)?.key.clone()));
    }
    caller.require_platform()?;
    Ok(None)
}

/// Begins a job that the caller may begin.
pub(super) async fn begin(api: &Api, caller: &Caller, what: What) -> Result<Response, Problem> {
    allowed(api, caller, &what)?;
    let wire = &api.wire;
    let newest = records::newest::<Job>(wire).await.map_err(|fault| problem(&fault))?;
    full(api, caller, &what, newest).await?;
    let job = Job::new(what, caller.author().who, SystemClock.now());
    let kept = records::begin(wire, job).await.map_err(|fault| problem(&fault))?;
    let job = kept.record;
    // Others may have begun some at the same moment.
    if let Err(refused) = full(api, caller, &job.what, job.id - 1).await {
        let stopped: Result<Job, NotSo> = records::change(wire, job.id, Job::stop).await;
        return if stopped.is_ok() { Err(refused) } else { Ok(accepted(job)) };
    }
    if let Some(old) = job.id.checked_sub(MOST_KEPT) {
        // It is forgotten by its age otherwise.
        let _ = records::forget::<Job>(wire, old).await;
    }
    Ok(accepted(job))
}

fn accepted(job: Job) -> Response {
    let place = format!("/job/{}", job.id);
    let mut response = (StatusCode::ACCEPTED, axum::Json(JobView::from(job))).into_response();
    response.headers_mut().extend(HeaderValue::from_str(&place).map(|place| (LOCATION, place)));
    response
}

/// Refuses another job where too many up to a number are not done yet.
async fn full(api: &Api, caller: &Caller, what: &What, newest: u32) -> Result<(), Problem> {
    let (mut open, mut of_org) = (0, 0);
    for number in (1..=newest).rev().take(NEWEST) {
        let kept = records::get::<Job>(&api.wire, number).await.map_err(|fault| problem(&fault))?;
        let Some(Kept { record, .. }) = kept else { continue };
        if record.state == Where::Running {
            open += 1;
            of_org += usize::from(record.what.org() == what.org());
        }
    }
    let own = what.org().is_some() && caller.may != May::All;
    if open < MOST_OPEN && (!own || of_org < MOST_OF_ORG) {
        return Ok(());
    }
    let (count, whose) = if own { (of_org, "your org's jobs") } else { (open, "jobs") };
    Err(Problem::conflict(format!(
        "{count} of {whose} are not done yet: wait for them, or stop some (GET /job)"
    )))
}

async fn open(api: &Api, caller: &Caller, id: u32) -> Result<Job, Problem> {
    let none = || Problem::not_found("job");
    let kept: Option<Kept<Job>> =
        records::get(&api.wire, id).await.map_err(|fault| problem(&fault))?;
    let job = kept.ok_or_else(none)?.record;
    allowed(api, caller, &job.what)?;
    Ok(job)
}

/// List jobs
///
/// The newest first; those that the caller may see. They are kept for a week.
#[utoipa::path(get, path = "/job", tag = "operations", params(Page),
    responses((status = 200, description = "A page of them", body = Vec<JobView>)))]
async fn list_jobs(
    State(api): State<Api>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let limit = page.limit()? as usize;
    let newest = records::newest::<Job>(&api.wire).await.map_err(|fault| problem(&fault))?;
    let wrong = || Problem::field("/query/cursor", "this is no x-next-cursor of an earlier page");
    let before: Option<u32> = page.cursor.map(|it| it.parse().map_err(|_| wrong())).transpose()?;
    let (mut rows, mut next) = (Vec::new(), None);
    let first = before.map_or(newest, |before| newest.min(before.saturating_sub(1)));
    for (looked, number) in (1..=first).rev().enumerate() {
        if rows.len() == limit || looked == LOOKS {
            next = Some((number + 1).to_string());
            break;
        }
        let kept = records::get::<Job>(&api.wire, number).await.map_err(|fault| problem(&fault))?;
        let Some(Kept { record: job, .. }) = kept else { continue };
        if allowed(&api, &caller, &job.what).is_ok() {
            rows.push(JobView { result: None, ..JobView::from(job) });
        }
    }
    large_page(&api, &caller, &rows, next).await
}

/// Show a job
#[utoipa::path(get, path = "/job/{job_id}", tag = "operations", params(("job_id" = u32, Path)),
    responses((status = 200, description = "How far it is, or what it told", body = JobView)))]
async fn show_job(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response, Problem> {
    let job = open(&api, &caller, id).await?;
    large(&api, &caller, &JobView::from(job)).await
}

/// Stop a job
///
/// Within seconds. What it did until then stays. Repeating it changes nothing.
#[utoipa::path(post, path = "/job/{job_id}/stop", tag = "operations", params(("job_id" = u32, Path)),
    responses(
        (status = 200, description = "It ends within seconds", body = JobView),
        (status = 409, description = "It is over"),
    ))]
async fn stop_job(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<axum::Json<JobView>, Problem> {
    open(&api, &caller, id).await?;
    match records::change(&api.wire, id, Job::stop).await {
        Ok(job) => Ok(axum::Json(job.into())),
        Err(NotSo::Gone(..)) => Err(Problem::not_found("job")),
        Err(NotSo::Refused(why)) => Err(Problem::conflict(why)),
        Err(NotSo::Fault(fault)) => Err(problem(&fault)),
    }
}
