//! Dead letters: what could not be processed, looked at, tried again, or given up.

use super::{entity::org, moment::Moment};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    model,
    page::{Page, large_page},
    problem::Problem,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{
    Letter, Reason, Stage,
    access::Permission,
    recall::{Ask, Redriven, Shown, Told},
};
use nats::letters::{self, Filed, Filter, Tally};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Letters that are looked at for one page.
const LOOKS: usize = 5_000;
/// Most letters that one request tries again, and as many where it names no number.
const MOST_TRIED: u32 = 500;
const USUAL_TRIED: u32 = 100;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_letters))
        .routes(routes!(redrive_letters))
        .routes(routes!(show_letter, drop_letter))
        .routes(routes!(redrive_letter))
}

/// A dead letter.
#[derive(Serialize, Deserialize, ToSchema)]
struct LetterView {
    /// By which it is named; another once it failed again.
    number: u64,
    /// What it is about: the same however often it is tried again.
    about: String,
    /// Where processing gave up: `assemble`, `normalize`, `ingest`.
    stage: String,
    /// The database that refused it.
    target: Option<String>,
    /// The org's key; none where the sender is not known.
    org_key: Option<String>,
    /// Device or producer.
    sender: String,
    /// Why, e.g. `unknown_device`.
    reason: String,
    /// What exactly.
    detail: String,
    /// How often it was tried.
    attempts: u32,
    /// How many messages it is about: past a device's quota one letter stands for many.
    messages: usize,
    /// When, the last time.
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
    /// When what it is about entered the platform.
    #[schema(value_type = Option<String>, format = DateTime)]
    accepted_at: Option<Moment>,
    /// The row that was refused.
    #[schema(value_type = Option<Object>)]
    row: Option<Value>,
}

impl LetterView {
    fn of(number: u64, letter: &Letter) -> Self {
        Self {
            number,
            about: letter.about(),
            stage: letter.stage.as_str().to_owned(),
            target: letter.target.as_ref().map(ToString::to_string),
            org_key: letter.org.as_ref().map(ToString::to_string),
            sender: letter.sender.clone(),
            reason: letter.reason.to_string(),
            detail: letter.detail.clone(),
            attempts: letter.attempts,
            messages: letter.messages(),
            at: Moment(letter.at),
            accepted_at: letter.origin.map(|origin| Moment(origin.accepted_at)),
            row: letter.row.as_deref().and_then(|row| serde_json::from_str(row).ok()),
        }
    }
}

/// Which letters.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
struct LetterFilter {
    /// Of this org. Left out: of every org, and of none, for an admin of the platform.
    org_id: Option<i32>,
    /// `assemble`, `normalize` or `ingest`.
    stage: Option<String>,
    /// Of this device or producer.
    sender: Option<String>,
    /// For this reason, e.g. `unknown_device`.
    reason: Option<String>,
}

impl LetterFilter {
    /// The letters that the caller may see, or change.
    fn read(
        self,
        api: &Api,
        caller: &Caller,
        permission: Permission,
        place: &str,
    ) -> Result<Filter, Problem> {
        let Self { org_id, stage, sender, reason } = self;
        let wrong =
            |name: &'static str| move |why: String| Problem::field(format!("{place}/{name}"), why);
        let stage = stage.map(|it| it.parse::<Stage>().map_err(wrong("stage"))).transpose()?;
        let reason = reason.map(|it| it.parse::<Reason>().map_err(wrong("reason"))).transpose()?;
        let of = if let Some(id) = org_id {
            Some(Some(org(api, caller, id, permission)?.key.clone()))
        } else {
            caller.require_platform().map_err(|_| {
                Problem::forbidden(
                    "which org (org_id)? Only an admin of the platform may leave it out",
                )
            })?;
            None
        };
        Ok(Filter { stage, org: of, sender, reason })
    }
}

/// List dead letters
///
/// The oldest first; one of a later release, which can't be read, is left out.
#[utoipa::path(get, path = "/dead-letter", tag = "operations", params(LetterFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<LetterView>)))]
async fn list_letters(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<LetterFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let filter = filter.read(&api, &caller, Permission::Read, "/query")?;
    let limit = page.limit()?;
    let after = number("/query/cursor", page.cursor.as_deref())?;
    let found = letters::page(&api.wire, &filter, (after, u64::MAX), (limit as usize, LOOKS)).await;
    let found = found.map_err(|fault| away(&fault))?;
    let shown = |filed: &Filed| {
        filed.letter.as_ref().ok().map(|letter| LetterView::of(filed.number, letter))
    };
    let rows: Vec<LetterView> = found.letters.iter().filter_map(shown).collect();
    large_page(&api, &caller, &rows, found.next.map(|next| next.to_string())).await
}

fn number(pointer: &str, text: Option<&str>) -> Result<u64, Problem> {
    let wrong = || Problem::field(pointer, "this is no x-next-cursor of an earlier page");
    text.map_or(Ok(0), |text| text.parse().map_err(|_| wrong()))
}

fn away(fault: &nats::PublishFault) -> Problem {
    tracing::warn!(%fault, "DEAD does not answer");
    Problem::away("the dead letters can't be read now; nothing was changed")
}

/// A letter that the caller may see, or change. Of another org's nobody learns that it is there.
async fn open(
    api: &Api,
    caller: &Caller,
    number: u64,
    permission: Permission,
) -> Result<Letter, Problem> {
    let none = || Problem::not_found("dead letter");
    let found =
        letters::get(&api.wire, number).await.map_err(|fault| away(&fault))?.ok_or_else(none)?;
    let letter = found.letter.map_err(|_| {
        Problem::conflict("the letter was written by a later release, which this one can't read")
    })?;
    let org = letter.org.as_ref().and_then(|key| api.directory.read().org(key).map(|org| org.id));
    match org {
        Some(org) => caller.require(org, permission, "dead letter")?,
        None => caller.require_platform().map_err(|_| none())?,
    }
    Ok(letter)
}

async fn asked(api: &Api, caller: &Caller, ask: &Ask) -> Result<Told, Problem> {
    Ok(letters::ask(&model::wire(api, caller), ask).await?)
}

fn another_release() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "a bridge of another release answered something else")
}

/// A dead letter and the message that it is about.
#[derive(Serialize, ToSchema)]
struct WholeLetter {
    letter: LetterView,
    /// What the device sent, where that is what failed, and the stream still has it.
    #[schema(value_type = Option<Object>)]
    message: Option<Value>,
}

/// Show a dead letter
#[utoipa::path(get, path = "/dead-letter/{number}", tag = "operations", params(("number" = u64, Path)),
    responses(
        (status = 200, description = "Why, how often, and what it is about", body = WholeLetter),
        (status = 409, description = "It can't be read by this release"),
        (status = 502, description = "The bridge is of another release"),
    ))]
async fn show_letter(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<u64>,
) -> Result<axum::Json<WholeLetter>, Problem> {
    open(&api, &caller, number, Permission::Read).await?;
    let Told::Shown(shown) = asked(&api, &caller, &Ask::Show { number }).await? else {
        return Err(another_release());
    };
    let Shown { letter, message } = *shown;
    let message = message.map(|message| {
        json!({
            "name": message.name,
            "content_type": message.content_type,
            "received_at": message.received_at.to_string(),
            "profile": message.profile,
            "bytes": message.bytes,
            "payload": serde_json::from_slice::<Value>(&message.payload).unwrap_or_else(|_| {
                Value::String(String::from_utf8_lossy(&message.payload).into_owned())
            }),
        })
    });
    Ok(axum::Json(WholeLetter { letter: LetterView::of(number, &letter), message }))
}

/// What became of letters that were tried again.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
struct Tried {
    /// On their way to the databases, or there: these letters are gone.
    delivered: usize,
    /// Failed again: the same letters with one more attempt.
    again: usize,
    /// Their database has not told yet: to be tried again to hear it.
    waiting: usize,
    /// Can't be tried again, or not now: the number, and why.
    #[schema(value_type = Vec<Object>)]
    refused: Vec<Value>,
    /// Where to go on: `after` of the next request; none where these were all.
    next: Option<u64>,
}

impl Tried {
    fn of(tally: Tally, next: Option<u64>) -> Self {
        let Tally { delivered, again, waiting, gone: _, refused } = tally;
        let told = |(number, why): (u64, nats::micro::Refusal)| json!({ "number": number, "why": why.text });
        let refused = refused.into_iter().map(told).collect();
        Self { delivered, again, waiting, refused, next }
    }
}

/// Try a dead letter again
///
/// What it gives has the version that it would have had at first: it never overwrites what came later.
#[utoipa::path(post, path = "/dead-letter/{number}/redrive", tag = "operations",
    params(("number" = u64, Path)),
    responses(
        (status = 200, description = "What became of it", body = Tried),
        (status = 409, description = "It can't be tried again"),
        (status = 502, description = "The bridge is of another release"),
    ))]
async fn redrive_letter(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<u64>,
) -> Result<Response, Problem> {
    open(&api, &caller, number, Permission::Write).await?;
    let Told::Redriven(redriven) = asked(&api, &caller, &Ask::Redrive { number }).await? else {
        return Err(another_release());
    };
    let tried = match redriven {
        Redriven::Delivered => Tried { delivered: 1, ..Tried::default() },
        Redriven::Unfolded { numbers, rest, .. } => {
            Tried::of(letters::redrive(&model::wire(&api, &caller), numbers).await, rest)
        }
        Redriven::Again { number, .. } => {
            Tried { again: 1, next: Some(number), ..Tried::default() }
        }
        Redriven::Waiting { number } => {
            Tried { waiting: 1, next: Some(number), ..Tried::default() }
        }
    };
    Ok(axum::Json(tried).into_response())
}

/// Which letters are tried again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"org_id": 1, "reason": "wrong_type"}))]
struct TryAgain {
    /// Of this org. Left out: of every org, and of none, for an admin of the platform.
    org_id: Option<i32>,
    /// `assemble`, `normalize` or `ingest`.
    stage: Option<String>,
    /// Of this device or producer.
    sender: Option<String>,
    /// For this reason, e.g. `unknown_device`.
    reason: Option<String>,
    /// Behind the letter of this number: `next` of the answer before.
    #[serde(default)]
    #[schema(format = "uint64")]
    after: u64,
    /// At most so many, 1 to 500.
    #[schema(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
}

/// Try dead letters again
///
/// Some at a time: go on with `after` until `next` is null. Those that fail again lie behind all that there
/// were.
#[utoipa::path(post, path = "/dead-letter/redrive", tag = "operations", request_body = TryAgain,
    responses((status = 200, description = "What became of them", body = Tried)))]
async fn redrive_letters(
    State(api): State<Api>,
    caller: Caller,
    Json(which): Json<TryAgain>,
) -> Result<axum::Json<Tried>, Problem> {
    let TryAgain { org_id, stage, sender, reason, after, limit } = which;
    let filter = LetterFilter { org_id, stage, sender, reason };
    let filter = filter.read(&api, &caller, Permission::Write, "")?;
    let limit = limit.unwrap_or(USUAL_TRIED);
    if !(1..=MOST_TRIED).contains(&limit) {
        return Err(Problem::field("/limit", format!("1 to {MOST_TRIED} is expected")));
    }
    let until = letters::newest(&api.wire).await.map_err(|fault| away(&fault))?;
    let found = letters::page(&api.wire, &filter, (after, until), (limit as usize, LOOKS)).await;
    let found = found.map_err(|fault| away(&fault))?;
    let wire = model::wire(&api, &caller);
    let numbers: Vec<u64> = found.letters.iter().map(|filed| filed.number).collect();
    let tally = letters::redrive(&wire, numbers).await;
    Ok(axum::Json(Tried::of(tally, found.next)))
}

/// Why a letter is given up.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Why {
    /// Why it is not tried again; kept on record with who said it.
    #[param(min_length = 1, max_length = 1000)]
    reason: String,
}

/// Give a dead letter up
#[utoipa::path(delete, path = "/dead-letter/{number}", tag = "operations", params(("number" = u64, Path), Why),
    responses(
        (status = 204, description = "It is no letter any more"),
        (status = 409, description = "It can't be read by this release"),
        (status = 502, description = "The bridge is of another release"),
    ))]
async fn drop_letter(
    State(api): State<Api>,
    caller: Caller,
    Path(number): Path<u64>,
    Query(Why { reason }): Query<Why>,
) -> Result<StatusCode, Problem> {
    open(&api, &caller, number, Permission::Admin).await?;
    match asked(&api, &caller, &Ask::Drop { number, reason }).await? {
        Told::Dropped => Ok(StatusCode::NO_CONTENT),
        Told::Shown(_) | Told::Redriven(_) => Err(another_release()),
    }
}
