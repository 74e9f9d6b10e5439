//! Values that callers bring: one message a request into `TELEMETRY`, and a yes when the primary has
//! committed it.

use super::moment::Moment;
use crate::{
    Api,
    caller::Caller,
    extract::{Object, body, json, objects, require_json},
    idempotency::{self, Taken},
    outcomes::Fate,
    problem::{FieldProblem, Problem},
    shell::{new_id, request_id},
};
use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use domain::{
    Batch, EntityId, Group, OrgId, OrgKey, Revision, Sample, Timestamp, Values,
    access::Permission,
    batch::MAX_TEXT,
    model::Entity,
    normalize::TimeLimits,
    subject::{API, Subject},
    tags::TagValue,
};
use nats::{
    envelope,
    model::REQUEST_ID,
    outcome,
    publish::{Outgoing, PublishFault, find_by_id, publish},
    streams::TELEMETRY,
};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long the stream may take until a caller is told to come again.
const STREAM: Duration = Duration::from_secs(5);
/// Pause before a publish that failed is tried again, under the same id.
const AGAIN: Duration = Duration::from_millis(50);
/// How long after it was sent a message can still be stored: a client that lost its server sends what
/// it has when it is back.
const LANDS_WITHIN: Duration = Duration::from_mins(1);
/// Most rows that were set aside which an answer names.
const MAX_NAMED: usize = 20;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(bulk_value))
}

/// Values of entities of one org.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Bulk {
    org_id: i32,
    /// At most 10,000, as configured. Of two for the same entity and moment the last counts.
    #[serde(deserialize_with = "objects")]
    values: Vec<NewValue>,
}

/// A value of an entity. Usually one of the four is set, the one that fits the entity's kind.
// utoipa takes the name `Value` for JSON of any kind.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
struct NewValue {
    /// When it was so; without an offset it is UTC.
    #[schema(value_type = String, format = DateTime)]
    ts: Moment,
    entity_id: i32,
    #[serde(default)]
    value_n: Option<f64>,
    #[serde(default)]
    value_b: Option<bool>,
    #[serde(default)]
    value_s: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    value_ts: Option<Moment>,
}

/// What was taken and is not in a database yet.
#[derive(Serialize, ToSchema)]
struct Accepted {
    /// How many values.
    accepted: usize,
    /// The message of the stream that holds them.
    message_id: String,
}

/// Write values
///
/// 200 when the primary database has committed them. 503: repeat it with the same `Idempotency-Key`, and
/// each is stored once.
#[utoipa::path(
    post, path = "/bulk/value", tag = "values", request_body = Bulk,
    params(
        ("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Names this request: repeated with the same body within 24 hours it is done once"),
        ("prefer" = Option<String>, Header, description = "`respond-async`: 202 as soon as the stream has them"),
    ),
    responses(
        (status = 200, description = "The primary has committed them", body = Vec<NewValue>),
        (status = 202, description = "The stream has them (`Prefer: respond-async`)", body = Accepted),
    )
)]
async fn bulk_value(
    State(api): State<Api>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    require_json(&request)?;
    let (parts, from) = request.into_parts();
    let bytes = body(&api, from, api.limits.values_bytes).await?;
    let bulk = read(&bytes)?;
    let org = org(&api, &caller, bulk.org_id)?;
    let samples = samples(&api, &caller, OrgId(bulk.org_id), &bulk.values)?;
    if samples.is_empty() {
        idempotency::key(&parts.headers)?;
        return Ok(Json(bulk.values).into_response());
    }
    let asynchronous = prefers_async(&parts.headers);
    let mut taken =
        idempotency::take(&api, &caller, Some(&org), "bulk/value", &parts.headers, &bytes).await?;
    let tried_before = taken.as_ref().is_some_and(|taken| !taken.tried().is_empty());
    refuse_behind(&api, &org, asynchronous, tried_before)?;
    let sequence = store(&api, &org, samples, taken.as_mut()).await?;
    metrics::counter!("haystack_api_values_total").increment(bulk.values.len() as u64);
    if asynchronous {
        let message_id = format!("{TELEMETRY}-{sequence}");
        let accepted = Accepted { accepted: bulk.values.len(), message_id };
        let applied = [("preference-applied", HeaderValue::from_static("respond-async"))];
        return Ok((StatusCode::ACCEPTED, applied, Json(accepted)).into_response());
    }
    committed(&api, &org, sequence).await?;
    Ok(Json(bulk.values).into_response())
}

/// Reads the fast way, and where that fails the way that knows the place.
fn read(bytes: &[u8]) -> Result<Bulk, Problem> {
    serde_json::from_slice(bytes).map(|Object(bulk)| bulk).or_else(|_| json(bytes))
}

/// RFC 7240.
fn prefers_async(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        text.split([',', ';']).any(|one| one.trim() == "respond-async")
    };
    headers.get_all("prefer").iter().any(named)
}

/// The org's key, where the caller may have something to do with it: one answer for an org that is not
/// there and one that is not the caller's.
fn org(api: &Api, caller: &Caller, id: i32) -> Result<OrgKey, Problem> {
    let none = || Problem::forbidden(ENTITIES);
    if !caller.may_any(OrgId(id)) {
        return Err(none());
    }
    let directory = api.directory.read();
    directory.org_by_id(OrgId(id)).map(|org| org.key.clone()).ok_or_else(none)
}

/// What is said of entities that are not there and of those that the caller may not write.
const ENTITIES: &str =
    "some of these entities don't exist in this org, or the caller may not write them";

/// The values as samples, each checked.
fn samples(
    api: &Api,
    caller: &Caller,
    org: OrgId,
    values: &[NewValue],
) -> Result<Vec<Sample>, Problem> {
    let most = api.limits.values;
    if values.len() > most {
        let detail = format!("{} values; at most {most} are taken at once", values.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let now = api.clock.now();
    let directory = api.directory.read();
    let (mut wrong, mut hidden) = (Vec::new(), Vec::new());
    let mut samples = Vec::with_capacity(values.len());
    // Pollers send many values of one entity behind each other.
    let mut last: Option<(i32, &Entity)> = None;
    for (at, value) in values.iter().enumerate() {
        let entity = match last {
            Some((id, entity)) if id == value.entity_id => entity,
            _ => {
                let id = EntityId(value.entity_id);
                let found = directory.entity(id).filter(|entity| entity.org_id == org);
                let open = caller.may_with(org, Permission::Write, id);
                let Some(entity) = found.filter(|_| open) else {
                    hidden.push(FieldProblem {
                        pointer: format!("/values/{at}/entity_id"),
                        detail: "not there, or not the caller's".to_owned(),
                    });
                    continue;
                };
                last = Some((value.entity_id, entity));
                entity
            }
        };
        match sample(value, entity, now, &api.limits.time) {
            Ok(sample) => samples.push(sample),
            Err((field, detail)) => {
                wrong.push(FieldProblem { pointer: format!("/values/{at}{field}"), detail });
            }
        }
    }
    if !hidden.is_empty() {
        return Err(Problem::forbidden(ENTITIES).naming(hidden));
    }
    if !wrong.is_empty() {
        return Err(Problem::fields(wrong));
    }
    Ok(samples)
}

fn sample(
    value: &NewValue,
    entity: &Entity,
    now: Timestamp,
    limits: &TimeLimits,
) -> Result<Sample, (&'static str, String)> {
    let ts = value.ts.0;
    if !limits.allow(ts, now) {
        let detail = if ts > now {
            let seconds = limits.ahead_micros / 1_000_000;
            format!("{ts} is more than {seconds} s ahead of our clock, {now}")
        } else {
            format!("{ts} is before the year 2000")
        };
        return Err(("/ts", detail));
    }
    let set = [
        ("/value_n", "Number", value.value_n.is_some()),
        ("/value_b", "Bool", value.value_b.is_some()),
        ("/value_s", "Str", value.value_s.is_some()),
        ("/value_ts", "DateTime", value.value_ts.is_some()),
    ];
    if !set.iter().any(|(.., set)| *set) {
        let detail = "one of value_n, value_b, value_s, value_ts is expected".to_owned();
        return Err(("", detail));
    }
    if let Some(TagValue::Str(kind)) = entity.tags.get("kind")
        && set.iter().any(|(_, of, _)| of == kind)
        && let Some((field, ..)) = set.iter().find(|(_, of, set)| *set && of != kind)
    {
        return Err((field, format!("entity {} holds values of kind {kind}", entity.id)));
    }
    if let Some(text) = &value.value_s {
        if text.len() > MAX_TEXT {
            let detail = format!("a text of {} bytes, at most {MAX_TEXT} allowed", text.len());
            return Err(("/value_s", detail));
        }
        if text.contains('\0') {
            return Err(("/value_s", "a text with a NUL in it".to_owned()));
        }
    }
    let values = Values {
        n: value.value_n,
        b: value.value_b,
        s: value.value_s.as_deref().map(Into::into),
        ts: value.value_ts.map(|moment| moment.0),
    };
    Ok(Sample { entity: entity.id, ts, values })
}

/// A primary that is behind by more than a caller would wait is told at once.
fn refuse_behind(
    api: &Api,
    org: &OrgKey,
    asynchronous: bool,
    tried_before: bool,
) -> Result<(), Problem> {
    let limit = api.limits.commit;
    match api.outcomes.lag(org) {
        Some(lag) if lag > limit && !asynchronous => {
            let behind =
                format!("the primary database is {} s behind with this org", lag.as_secs());
            let detail = if tried_before {
                format!(
                    "{behind}; what came before with this Idempotency-Key may be in the stream, and \
                     will be stored then. Repeat it later with the same key"
                )
            } else {
                format!(
                    "{behind}; nothing was stored. Try again later, or send `Prefer: respond-async`"
                )
            };
            Err(Problem::away(detail).retry_after(limit))
        }
        _ => Ok(()),
    }
}

/// Publishes; the message's sequence. Under an `Idempotency-Key` a message that is there already is not
/// published again.
async fn store(
    api: &Api,
    org: &OrgKey,
    samples: Vec<Sample>,
    mut taken: Option<&mut Taken>,
) -> Result<u64, Problem> {
    let subject = Subject::Telemetry { org: org.to_string(), source: API.to_owned() }.to_string();
    let id = match &taken {
        None => new_id(),
        Some(taken) => {
            if let Some(sequence) = taken.claimed.entry.sequence {
                return Ok(sequence);
            }
            let id = taken.message_id();
            if let Some(sequence) = published_before(api, &subject, taken, &id).await? {
                return Ok(sequence);
            }
            id
        }
    };
    if let Some(taken) = &mut taken {
        taken.tries(api).await?;
        if let Some(sequence) = taken.claimed.entry.sequence {
            return Ok(sequence);
        }
    }
    let about = 32 * samples.len() + 64;
    let group =
        Group { origin: None, revision: Revision(0), device: None, profile_version: 0, samples };
    let batch = Batch { groups: vec![group], ..Batch::default() };
    let message = Outgoing::new(subject, &id, envelope::encode_sized(&batch, about))
        .header(REQUEST_ID, &request_id());
    let sequence = until_taken(api, message).await?;
    if let Some(taken) = &mut taken {
        taken.published(api, sequence).await;
    }
    Ok(sequence)
}

/// What an earlier try published whose answer was lost: the server knows its id for two minutes, the
/// stream for as long as it holds it.
async fn published_before(
    api: &Api,
    subject: &str,
    taken: &Taken,
    id: &str,
) -> Result<Option<u64>, Problem> {
    for tried in taken.tried() {
        let found = find_by_id(&api.wire, TELEMETRY, subject, id, *tried, LANDS_WITHIN).await;
        let found = found.map_err(|fault| {
            tracing::warn!(%fault, "it can't be looked up what an Idempotency-Key did");
            Problem::away("the stream can't be read now; repeat it with the same Idempotency-Key")
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Publishes, again under the same id where no answer came.
async fn until_taken(api: &Api, message: Outgoing) -> Result<u64, Problem> {
    let began = Instant::now();
    loop {
        match publish(&api.wire, message.clone()).await {
            Ok(stored) => return Ok(stored.sequence()),
            Err(PublishFault::TooLarge) => {
                let detail = "more than a message of the stream holds; send fewer values at once";
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            Err(fault) if began.elapsed() > STREAM => {
                tracing::warn!(%fault, "the stream does not take a caller's values");
                let detail = "the stream does not take values now; repeat it later, with the same \
                              Idempotency-Key where there is one";
                return Err(Problem::away(detail).retry_after(STREAM));
            }
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Waits for the primary's COMMIT; a row that was set aside is named.
async fn committed(api: &Api, org: &OrgKey, sequence: u64) -> Result<(), Problem> {
    let away = || {
        Problem::away(
            "the stream has the values, and the primary database did not commit them in time: they will \
             be stored. Repeat the request with the same Idempotency-Key to learn when",
        )
        .retry_after(api.limits.commit)
    };
    match api.outcomes.wait(org, sequence, api.limits.commit).await {
        None => Err(away()),
        Some(Fate::Committed) => Ok(()),
        Some(Fate::Doubtful) => {
            let letters = outcome::letters_about(&api.wire, &api.primary, org, API, sequence);
            let letters = letters.await.map_err(|_| away())?;
            if letters.is_empty() {
                return Ok(());
            }
            let named = letters.iter().take(MAX_NAMED).map(|letter| FieldProblem {
                pointer: format!("/values/{}", letter.source.row),
                detail: format!("set aside: {}", letter.reason.as_str()),
            });
            Err(Problem::fields(named.collect()))
        }
    }
}
