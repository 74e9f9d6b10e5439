//! Pollers: what of a building's side brings readings by itself, by its type.

use super::{
    entity::{OrgFilter, org, plain},
    moment::Moment,
    simulator::free_name,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    idempotency,
    model::{self, Expected, etag, expected},
    page::{Page, list, one},
    problem::Problem,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use domain::{
    OrgId, SimulatorId,
    access::Permission,
    model::{ACTIVE, Poller, REMOVED, Record, SIMULATOR},
    simulator::EntityKeys,
};
use nats::{
    counter::{Counter, allocate},
    model::{ModelFault, get, put},
    registry::{RegistryFault, poller_fits},
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Map, Value};
use store::view::{self, Kind, Seen, Which};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest name for people, in characters.
const MAX_NAME: usize = 100;
/// Longest type and status, in bytes.
const MAX_WORD: usize = 64;
/// The status of a simulator that nobody runs until it is active again.
const INACTIVE: &str = "inactive";
/// Asks for pollers in whatever status.
const ALL: &str = "all";
/// Tries where others write the same poller and the caller did not say what it saw.
const TRIES: usize = 5;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_pollers_of_org))
        .routes(routes!(list_pollers, create_poller))
        .routes(routes!(show_poller, change_poller))
}

/// A poller.
#[derive(Serialize, Deserialize, ToSchema)]
struct PollerView {
    /// The same as `poller_id`.
    id: i32,
    org_id: i32,
    /// `simulator`, `bacnet`, `modbus`, …
    poller_type: String,
    poller_id: i32,
    poller_name: String,
    /// JSON.
    config: String,
    /// `active`; else nobody runs it.
    status: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    /// What `If-Match` takes.
    revision: u64,
}

/// JSON as it is, or a text.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "an object is expected, or a text")]
pub(super) enum TextOrJson {
    /// A text.
    Text(String),
    /// JSON.
    #[schema(value_type = Object)]
    Object(Map<String, Value>),
}

/// A poller to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"org_id": 1, "poller_type": "bacnet", "poller_name": "Roof",
    "config": {"address": "192.0.2.7"}}))]
struct NewPoller {
    org_id: i32,
    /// Small letters, digits, `_` and `-`. A `simulator` is made by `POST /simulator/config`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    poller_type: String,
    #[schema(min_length = 1, max_length = 100)]
    poller_name: String,
    /// JSON, as a text or as it is.
    config: TextOrJson,
    /// Left out: `active`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    status: Option<String>,
}

/// What changes; the rest stays as it is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PollerChange {
    #[schema(min_length = 1, max_length = 100)]
    poller_name: Option<String>,
    /// JSON, as a text or as it is. Of a simulator it goes through `PUT /simulator/config/{simulator_id}`.
    config: Option<TextOrJson>,
    /// Of a simulator `active`, `inactive`, or `removed`, for good.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    status: Option<String>,
}

/// Which pollers.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PollerFilter {
    /// Of this type.
    #[serde(rename = "type")]
    #[param(rename = "type")]
    poller_type: Option<String>,
    /// In this status; `all`: in any.
    #[param(default = "active")]
    status: Option<String>,
}

impl PollerFilter {
    fn which(self, org: Option<i32>) -> Result<Which, Problem> {
        let of_type = self.poller_type.map(|it| plain("/query/type", it)).transpose()?;
        let status = plain("/query/status", self.status.unwrap_or_else(|| ACTIVE.to_owned()))?;
        let status = Some(status).filter(|status| status != ALL);
        Ok(Which { org, of_type, status, ..Which::default() })
    }
}

/// List an org's pollers
#[utoipa::path(get, path = "/org/{org_id}/poller", tag = "simulators",
    params(("org_id" = i32, Path), PollerFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<PollerView>)))]
async fn list_pollers_of_org(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(filter): Query<PollerFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    caller.require(OrgId(id), Permission::Read, "org")?;
    if api.directory.read().org_by_id(OrgId(id)).is_none() {
        return Err(Problem::not_found("org"));
    }
    list::<PollerView>(&api, &caller, Kind::Poller, &filter.which(Some(id))?, &page).await
}

/// List pollers
#[utoipa::path(get, path = "/poller", tag = "simulators", params(PollerFilter, OrgFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<PollerView>)))]
async fn list_pollers(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<PollerFilter>,
    Query(of): Query<OrgFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    list::<PollerView>(&api, &caller, Kind::Poller, &filter.which(of.org_id)?, &page).await
}

/// Show a poller
///
/// Whatever its status is.
#[utoipa::path(get, path = "/poller/{poller_id}", tag = "simulators", params(("poller_id" = i32, Path)),
    responses((status = 200, description = "The poller, with its `ETag`", body = PollerView)))]
async fn show_poller(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Response, Problem> {
    let which = Which { number: Some(id.into()), ..Which::default() };
    let view: PollerView = one(&api, &caller, Kind::Poller, &which, "poller").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Make a poller
///
/// With an `Idempotency-Key`, a request that is repeated makes one.
#[utoipa::path(post, path = "/poller", tag = "simulators", request_body = NewPoller,
    params(("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Names this request")),
    responses(
        (status = 201, description = "Made, and applied by the primary", body = PollerView),
        (status = 409, description = "Somebody else was faster"),
    ))]
async fn create_poller(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Json(new): Json<NewPoller>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, new.org_id, Permission::Model)?;
    if new.poller_type == SIMULATOR {
        let detail = "a simulator is made by POST /simulator/config";
        return Err(Problem::field("/poller_type", detail));
    }
    let mut poller = Poller {
        id: SimulatorId(i32::MAX),
        org: org.key.clone(),
        org_id: org.id,
        poller_type: word("/poller_type", new.poller_type)?,
        name: name("/poller_name", new.poller_name)?,
        status: new.status.map_or_else(|| Ok(ACTIVE.to_owned()), |it| word("/status", it))?,
        config: json_text("/config", new.config)?,
        entities: EntityKeys::new(),
    };
    poller_fits(&poller, &[])?;
    model::ready(&api).await?;
    let body = serde_json::to_vec(&poller).unwrap_or_default();
    let key = idempotency::take(&api, &caller, Some(&org.key), "poller", &headers, &body).await?;
    let number = number(&api);
    poller.id = SimulatorId(match key {
        Some(mut key) => key.number(&api, number).await?,
        None => number.await?,
    });
    let record = Record::Poller(Box::new(poller.clone()));
    model::write(&api, &caller, &record, Expected::New).await?;
    let view: PollerView = shown(&api, &poller).await?;
    Ok((StatusCode::CREATED, etag(view.revision), axum::Json(view)).into_response())
}

/// The number of a new poller.
pub(super) async fn number(api: &Api) -> Result<i32, RegistryFault> {
    Ok(allocate(&api.wire, Counter::Poller, 1).await?.start)
}

/// Change a poller
#[utoipa::path(patch, path = "/poller/{poller_id}", tag = "simulators", request_body = PollerChange,
    params(("poller_id" = i32, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "Changed, and applied by the primary", body = PollerView),
        (status = 409, description = "Somebody else changes it again and again; or a simulator was removed for good, or another one has that name"),
        (status = 412, description = "It was changed since"),
    ))]
async fn change_poller(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
    Json(change): Json<PollerChange>,
) -> Result<Response, Problem> {
    let found = api.directory.read().poller(SimulatorId(id)).cloned();
    let found = found.ok_or_else(|| Problem::not_found("poller"))?;
    caller.require(found.org_id, Permission::Model, "poller")?;
    let change = Checked::of(&api, &found, change)?;
    let expected = expected(&headers)?;
    edit(&api, &caller, &found, expected, |poller| change.apply(poller)).await?;
    let view: PollerView = shown(&api, &found).await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// A change whose fields can be kept.
struct Checked {
    name: Option<String>,
    config: Option<String>,
    status: Option<String>,
}

impl Checked {
    fn of(api: &Api, poller: &Poller, change: PollerChange) -> Result<Self, Problem> {
        let PollerChange { poller_name, config, status } = change;
        let simulator = poller.poller_type == SIMULATOR;
        if simulator && config.is_some() {
            let detail = "that of a simulator goes through PUT /simulator/config/{simulator_id}";
            return Err(Problem::field("/config", detail));
        }
        let name = poller_name.map(|it| name("/poller_name", it)).transpose()?;
        if let (true, Some(name)) = (simulator, &name) {
            free_name(api, poller.org_id, name, Some(poller.id))?;
        }
        let status = status.map(|it| word("/status", it)).transpose()?;
        let known = |status: &String| [ACTIVE, INACTIVE, REMOVED].contains(&status.as_str());
        if simulator && !status.as_ref().is_none_or(known) {
            let detail = format!("{ACTIVE}, {INACTIVE} or {REMOVED} is expected");
            return Err(Problem::field("/status", detail));
        }
        let config = config.map(|it| json_text("/config", it)).transpose()?;
        Ok(Self { name, config, status })
    }

    fn apply(&self, mut poller: Poller) -> Result<Poller, Problem> {
        let gone = poller.poller_type == SIMULATOR && poller.status == REMOVED;
        if gone && self.status.as_ref().is_some_and(|status| status != REMOVED) {
            return Err(Problem::conflict("this simulator was removed for good; make another one"));
        }
        poller.name = self.name.clone().unwrap_or(poller.name);
        poller.config = self.config.clone().unwrap_or(poller.config);
        poller.status = self.status.clone().unwrap_or(poller.status);
        Ok(poller)
    }
}

/// Changes a poller as it stands in `MODEL` at that moment, so that what its owner wrote meanwhile (its
/// entities, its configuration) stays. One that is so already is not written again, whatever the caller
/// saw: its own write succeeded, and the answer was lost.
pub(super) async fn edit(
    api: &Api,
    caller: &Caller,
    poller: &Poller,
    expected: Expected,
    change: impl Fn(Poller) -> Result<Poller, Problem>,
) -> Result<(), Problem> {
    model::ready(api).await?;
    let wire = model::wire(api, caller);
    let subject = subject(poller);
    for _ in 0..TRIES {
        let (sequence, before) = last(api, poller).await?;
        let after = change(before.clone())?;
        if after == before {
            return model::applied(api, sequence).await;
        }
        if matches!(expected, Expected::Revision(seen) if seen != sequence) {
            return Err(changed_since());
        }
        match put(&wire, &Record::Poller(Box::new(after)), sequence).await {
            Err(ModelFault::Conflict(_)) => {}
            done => return model::applied(api, done?).await,
        }
    }
    Err(ModelFault::Conflict(subject).into())
}

/// A poller as `MODEL` has it now, with the sequence of its record.
pub(super) async fn last(api: &Api, poller: &Poller) -> Result<(u64, Poller), Problem> {
    match get(&api.wire, &subject(poller)).await? {
        Some((sequence, Record::Poller(poller))) => Ok((sequence, *poller)),
        _ => Err(Problem::not_found("poller")),
    }
}

fn subject(poller: &Poller) -> String {
    Record::Poller(Box::new(poller.clone())).subject().to_string()
}

/// Somebody else wrote it after the caller had seen it.
pub(super) fn changed_since() -> Problem {
    let detail = "it was changed since you saw it; look at it again and repeat";
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

/// A poller as the primary shows it to whoever has just written it.
pub(super) async fn shown<T: DeserializeOwned>(api: &Api, poller: &Poller) -> Result<T, Problem> {
    let org = vec![poller.org_id.0];
    let seen = Seen { orgs: org.clone(), whole: org, entities: Vec::new() };
    let which = Which { number: Some(poller.id.0.into()), ..Which::default() };
    let listed = view::list::<T>(&api.pulse, &seen, Kind::Poller, &which, None, 1).await?;
    let row = listed.rows.into_iter().next().map(|listed| listed.row);
    row.ok_or_else(|| Problem::not_found("poller"))
}

/// A type or a status, as subjects, metrics and people can bear it.
fn word(pointer: &str, text: String) -> Result<String, Problem> {
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(plain) && text != ALL {
        return Ok(text);
    }
    let rule = format!("1 to {MAX_WORD} small letters, digits, _ and - are expected");
    Err(Problem::field(pointer, rule))
}

/// A name for people, in one line.
pub(super) fn name(pointer: &str, text: String) -> Result<String, Problem> {
    let fits = (1..=MAX_NAME).contains(&text.trim().chars().count());
    if fits && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let rule = format!("1 to {MAX_NAME} characters are expected, in one line");
    Err(Problem::field(pointer, rule))
}

/// JSON that came as a text or as it is, as the text that is kept.
fn json_text(pointer: &str, written: TextOrJson) -> Result<String, Problem> {
    let text = match written {
        TextOrJson::Object(object) => return Ok(Value::Object(object).to_string()),
        TextOrJson::Text(text) => text,
    };
    match serde_json::from_str::<IgnoredAny>(&text) {
        Ok(IgnoredAny) => Ok(text),
        Err(error) => {
            let detail = format!("a text that holds JSON is expected: {error}");
            Err(Problem::field(pointer, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_is_kept_as_a_text_however_it_came() {
        let kept = |value: Value| json_text("/config", serde_json::from_value(value).unwrap());
        let text = kept(json!({ "address": "192.0.2.7" })).unwrap();
        assert_eq!(text, r#"{"address":"192.0.2.7"}"#);
        assert_eq!(kept(Value::String(text.clone())).unwrap(), text);
        for no in ["address: 7", "", "{"] {
            assert_eq!(kept(no.into()).unwrap_err().status(), 422, "{no}");
        }
        for no in [json!(null), json!(7), json!([1])] {
            let error = serde_json::from_value::<TextOrJson>(no).err().unwrap().to_string();
            assert_eq!(error, "an object is expected, or a text");
        }
    }

    #[test]
    fn names_are_lines_and_types_are_words() {
        assert!(name("", "Haus Süd 7".to_owned()).is_ok());
        for no in ["", " ", "a\nb", "a\0b", &"x".repeat(MAX_NAME + 1)] {
            assert!(name("", no.to_owned()).is_err(), "{no:?}");
        }
        assert!(word("", "bacnet_sc-2".to_owned()).is_ok());
        for no in ["", "BACnet", "a b", "a.b", "ü", "all"] {
            assert!(word("", no.to_owned()).is_err(), "{no:?}");
        }
    }

    #[test]
    fn lists_give_the_active_ones_unless_told_otherwise() {
        let which = |status: Option<&str>| {
            let status = status.map(str::to_owned);
            PollerFilter { poller_type: None, status }.which(None).unwrap().status
        };
        assert_eq!(which(None).as_deref(), Some(ACTIVE));
        assert_eq!(which(Some("inactive")).as_deref(), Some("inactive"));
        assert_eq!(which(Some("all")), None);
    }
}
