//! Device types, devices, and what devices are told.

use super::{
    entity::{OrgFilter, org, plain},
    moment::Moment,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query, body},
    model::{self, Expected, etag, expected},
    page::{Page, list, one},
    problem::{FieldProblem, Problem},
    shape,
};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use domain::{
    DeviceId, OrgId, OrgKey, TypeId,
    access::Permission,
    command::{ANSWER_SECONDS, Command, EXPIRES_SECONDS, Fate, MAX_COMMAND, SERVICE, Told},
    device_type::{DeviceType, Invalid},
    model::{Device, Gone, GoneKind, MAX_IDENTIFIER, MAX_NAME, Record, Role},
    subject::Subject,
};
use nats::{
    micro::{self, Refusal},
    model::{ModelFault, get},
    registry::{self, Registered, RegistryFault},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::view::{self, Kind, Seen, Which};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Longest name of a device, in bytes: its points are called by it and their metric, which has 64 at most.
const MAX_DEVICE_NAME: usize = MAX_NAME - 65;
/// Most lists and objects in one another that are kept of a free JSON value: whoever reads it back reads
/// it inside of others, and readers have a limit too.
const MAX_DEPTH: usize = 64;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_device_types))
        .routes(routes!(show_device_type, write_device_type))
        .routes(routes!(list_devices, create_device))
        .routes(routes!(show_device, delete_device))
        .routes(routes!(command_device))
}

/// What was just written, as the primary shows it: also to a caller that may change an org and not read it.
pub(super) async fn written<T: DeserializeOwned>(
    api: &Api,
    org: OrgId,
    kind: Kind,
    which: Which,
    what: &str,
) -> Result<T, Problem> {
    let seen = Seen { orgs: vec![org.0], whole: vec![org.0], entities: Vec::new() };
    let which = Which { org: Some(org.0), ..which };
    let listed = view::list::<T>(&api.pulse, &seen, kind, &which, None, 1).await?;
    let row = listed.rows.into_iter().next().map(|listed| listed.row);
    row.ok_or_else(|| Problem::not_found(what))
}

/// Refuses a value that nests so deep that it could not be read back.
pub(super) fn shallow(pointer: String, value: &Value) -> Result<(), Problem> {
    if depth(value) <= MAX_DEPTH {
        return Ok(());
    }
    let detail = format!("at most {MAX_DEPTH} lists and objects in one another are expected");
    Err(Problem::field(pointer, detail))
}

/// Reading the body has limited it already.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// What a device type is: how the payloads of its devices become readings.
#[derive(Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
struct DeviceTypeDefinition(DeviceType);

/// A device type: the version in force.
#[derive(Serialize, Deserialize, ToSchema)]
struct DeviceTypeView {
    org_id: i32,
    device_type: String,
    /// 1, 2, …: each change of the definition makes one.
    version: i32,
    /// `endpoint`, `gateway` or `gateway_chunked`.
    processing_mode: String,
    /// What payloads are written in.
    protocol_adapter: String,
    /// As it was written.
    #[schema(value_type = DeviceTypeDefinition)]
    definition: Value,
    /// What `If-Match` takes.
    revision: u64,
}

/// List device types
#[utoipa::path(get, path = "/device_type", tag = "model", params(OrgFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<DeviceTypeView>)))]
async fn list_device_types(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<OrgFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let which = Which { org: filter.org_id, ..Which::default() };
    list::<DeviceTypeView>(&api, &caller, Kind::DeviceType, &which, &page).await
}

/// Show a device type
#[utoipa::path(get, path = "/device_type/{org_id}/{device_type}", tag = "model",
    params(("org_id" = i32, Path), ("device_type" = shape::TypeId, Path)),
    responses((status = 200, description = "The version in force, with its `ETag`", body = DeviceTypeView)))]
async fn show_device_type(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, id)): Path<(i32, TypeId)>,
) -> Result<Response, Problem> {
    let which = Which { org: Some(org_id), name: Some(id.to_string()), ..Which::default() };
    let view: DeviceTypeView = one(&api, &caller, Kind::DeviceType, &which, "device type").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Make or change a device type
///
/// The examples are run, and where one does not give what it says nothing is changed. A definition that
/// differs from the one in force becomes a new version; devices of the type get points for new metrics. A
/// metric keeps its kind.
#[utoipa::path(put, path = "/device_type/{org_id}/{device_type}", tag = "model",
    request_body(content = DeviceTypeDefinition, example = json!({
        "device_type": "temperature-sensor",
        "processing_mode": "endpoint",
        "protocol_adapter": "json",
        "timestamp": {"pointer": "/ts", "format": "rfc3339"},
        "metrics": {"temperature": {"pointer": "/temperature", "kind": "number", "unit": "°C"}},
        "examples": [{
            "name": "a plain reading",
            "payload": {"ts": "2026-01-01T00:00:00Z", "temperature": 21.5},
            "readings": [{"metric": "temperature", "ts": "2026-01-01T00:00:00Z", "value": 21.5}]
        }]
    })),
    params(("org_id" = i32, Path), ("device_type" = shape::TypeId, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "In force, and applied by the primary", body = DeviceTypeView),
        (status = 409, description = "Somebody else changed it, or a device of it, at the same time"),
        (status = 412, description = "It was changed since"),
    ))]
async fn write_device_type(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, id)): Path<(i32, String)>,
    headers: HeaderMap,
    Json(DeviceTypeDefinition(definition)): Json<DeviceTypeDefinition>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, org_id, Permission::Model)?;
    let id = TypeId::parse(&id).map_err(|why| Problem::field("/path/device_type", why.rule))?;
    if definition.device_type != id {
        return Err(Problem::field("/device_type", format!("{id} is expected, as in the path")));
    }
    shallow_examples(&definition)?;
    let seen = match expected(&headers)? {
        Expected::Revision(revision) => Some(revision),
        Expected::Last | Expected::New => None,
    };
    model::ready(&api).await?;
    let wire = model::wire(&api, &caller);
    let told = definition.clone();
    let applied = registry::apply_device_type_over(&wire, &org.key, told, seen).await;
    applied.map_err(|fault| match fault {
        RegistryFault::Model(ModelFault::Conflict(subject))
            if seen.is_some() && subject == head_subject(&org.key, &id) =>
        {
            changed()
        }
        fault => refused_definition(fault, &definition),
    })?;
    model::settled(&api).await?;
    let which = Which { name: Some(id.to_string()), ..Which::default() };
    let view: DeviceTypeView =
        written(&api, org.id, Kind::DeviceType, which, "device type").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

fn shallow_examples(definition: &DeviceType) -> Result<(), Problem> {
    for (at, example) in definition.examples.iter().enumerate() {
        shallow(format!("/examples/{at}/payload"), &example.payload)?;
        for (reading, expected) in example.readings.iter().enumerate() {
            shallow(format!("/examples/{at}/readings/{reading}/value"), &expected.value)?;
        }
    }
    Ok(())
}

/// Where the head of a device type stands in `MODEL`.
fn head_subject(org: &OrgKey, id: &TypeId) -> String {
    let (org, kind) = (Some(org.to_string()), "device_type".to_owned());
    Subject::Model { org, kind, id: id.to_string() }.to_string()
}

/// Of what a caller's `If-Match` does not name any more.
fn changed() -> Problem {
    let detail = "it was changed since you saw it; look at it again and repeat";
    Problem::new(StatusCode::PRECONDITION_FAILED, detail)
}

/// Why a definition is refused, with its place in the body.
fn refused_definition(fault: RegistryFault, definition: &DeviceType) -> Problem {
    match fault {
        RegistryFault::Invalid(Invalid { place, problem }) => {
            Problem::field(place_pointer(&place), problem)
        }
        RegistryFault::Example(failed) => {
            let at = definition.examples.iter().position(|example| example.name == failed.name);
            let pointer = at.map_or("/examples".to_owned(), |at| format!("/examples/{at}"));
            Problem::field(pointer, failed.to_string())
        }
        fault => fault.into(),
    }
}

/// `metrics.temperature.unit` as a JSON pointer (RFC 6901).
fn place_pointer(place: &str) -> String {
    format!("/{}", place.replace('~', "~0").replace('/', "~1").replace('.', "/"))
}

/// A device.
#[derive(Serialize, Deserialize, ToSchema)]
struct DeviceView {
    /// Unique in the platform.
    device_id: String,
    org_id: i32,
    device_type: String,
    name: String,
    /// `endpoint`, `gateway` or `logical`.
    device_role: String,
    /// Of a logical device: the gateway that speaks for it.
    parent_device_id: Option<String>,
    /// Of a logical device: what its gateway calls it.
    logical_identifier: Option<String>,
    /// By metric.
    points: BTreeMap<String, PointView>,
    /// What its last birth or will said; null where it never said anything.
    online: Option<bool>,
    /// When that was heard.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_seen: Option<Moment>,
    /// What `If-Match` takes.
    revision: u64,
}

/// Where the values of a metric stand.
#[derive(Serialize, Deserialize, ToSchema)]
struct PointView {
    /// The entity that holds them.
    entity_id: i32,
    /// Their Haystack kind.
    kind: String,
}

/// Which devices.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeviceFilter {
    /// Of this org.
    org_id: Option<i32>,
    /// Of this type.
    device_type: Option<String>,
}

/// List devices
#[utoipa::path(get, path = "/device", tag = "model", params(DeviceFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<DeviceView>)))]
async fn list_devices(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<DeviceFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let of_type = filter.device_type.map(|it| plain("/query/device_type", it)).transpose()?;
    let which = Which { org: filter.org_id, of_type, ..Which::default() };
    list::<DeviceView>(&api, &caller, Kind::Device, &which, &page).await
}

/// Show a device
#[utoipa::path(get, path = "/device/{device_id}", tag = "model", params(("device_id" = shape::DeviceId, Path)),
    responses((status = 200, description = "The device, with its `ETag`", body = DeviceView)))]
async fn show_device(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<DeviceId>,
) -> Result<Response, Problem> {
    let which = Which { name: Some(id.to_string()), ..Which::default() };
    let view: DeviceView = one(&api, &caller, Kind::Device, &which, "device").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// A device to be registered: one that speaks itself has `org_id`, `device_id` and `device_type`, one for
/// which a gateway speaks `gateway` and `identifier`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"org_id": 1, "device_id": "TS-002-2024",
    "device_type": "temperature-sensor", "name": "Lobby"}))]
struct NewDevice {
    /// Of a logical device its gateway's counts.
    org_id: Option<i32>,
    /// Unique in the platform: A-Z, a-z, 0-9, _ and -, at most 64. Of a logical device it may be left
    /// out: then it is made of the gateway's and the identifier.
    #[schema(value_type = Option<shape::DeviceId>)]
    device_id: Option<DeviceId>,
    /// Of a logical device its gateway's counts.
    #[schema(value_type = Option<shape::TypeId>)]
    device_type: Option<TypeId>,
    /// The gateway that speaks for it.
    #[schema(value_type = Option<shape::DeviceId>)]
    gateway: Option<DeviceId>,
    /// What the gateway calls it.
    #[schema(min_length = 1, max_length = 128)]
    identifier: Option<String>,
    /// For people; its id where it is left out.
    #[schema(max_length = 959)]
    name: Option<String>,
}

/// Which of the two a new device is.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Own { org_id: i32, id: DeviceId, device_type: TypeId },
    Logical { gateway: DeviceId, identifier: String, id: Option<DeviceId> },
}

impl NewDevice {
    /// Which it is; what is missing or too much is named.
    fn wanted(self) -> Result<Wanted, Problem> {
        match self {
            Self {
                org_id: Some(org_id),
                device_id: Some(id),
                device_type: Some(device_type),
                gateway: None,
                identifier: None,
                ..
            } => Ok(Wanted::Own { org_id, id, device_type }),
            Self {
                org_id: None,
                device_id: id,
                device_type: None,
                gateway: Some(gateway),
                identifier: Some(identifier),
                ..
            } => {
                if !(1..=MAX_IDENTIFIER).contains(&identifier.len()) {
                    let detail = format!("1 to {MAX_IDENTIFIER} bytes are expected");
                    return Err(Problem::field("/identifier", detail));
                }
                let identifier = plain("/identifier", identifier)?;
                Ok(Wanted::Logical { gateway, identifier, id })
            }
            other => Err(other.neither()),
        }
    }

    fn neither(&self) -> Problem {
        let logical = self.gateway.is_some() || self.identifier.is_some();
        let fields = [
            ("/org_id", self.org_id.is_some(), !logical),
            ("/device_id", self.device_id.is_some(), !logical || self.device_id.is_some()),
            ("/device_type", self.device_type.is_some(), !logical),
            ("/gateway", self.gateway.is_some(), logical),
            ("/identifier", self.identifier.is_some(), logical),
        ];
        let wrong = fields.into_iter().filter(|(_, is, expected)| is != expected);
        let told = |(pointer, _, expected): (&str, bool, bool)| {
            let missing = "missing: a device has org_id, device_id and device_type, a logical one \
                           gateway and identifier";
            let detail =
                if expected { missing } else { "of a logical device its gateway's counts" };
            FieldProblem { pointer: pointer.to_owned(), detail: detail.to_owned() }
        };
        Problem::fields(wrong.map(told).collect())
    }
}

/// Register a device
///
/// It gets a point for each metric of its type. Asked again for what is registered, it is a success.
#[utoipa::path(post, path = "/device", tag = "model", request_body = NewDevice,
    responses(
        (status = 200, description = "It was registered so", body = DeviceView),
        (status = 201, description = "Registered, and applied by the primary", body = DeviceView),
        (status = 409, description = "The id, or the identifier, is taken"),
    ))]
async fn create_device(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewDevice>,
) -> Result<Response, Problem> {
    let name = new.name.clone().map(device_name).transpose()?;
    let wire = model::wire(&api, &caller);
    let (registered, own) = match new.wanted()? {
        Wanted::Own { org_id, id, device_type } => {
            let org = org(&api, &caller, org_id, Permission::Model)?;
            model::ready(&api).await?;
            (registry::add_device(&wire, &org.key, id, device_type, name).await, true)
        }
        Wanted::Logical { gateway, identifier, id } => {
            let gateway = known_gateway(&api, &caller, &gateway)?;
            model::ready(&api).await?;
            (registry::add_logical(&wire, &gateway.id, &identifier, id, name).await, false)
        }
    };
    let (status, device) = match registered.map_err(refused_device)? {
        Registered::Made(device) => (StatusCode::CREATED, device),
        Registered::Unchanged(device) => (StatusCode::OK, device),
    };
    if own && matches!(device.role, Role::Logical { .. }) {
        let detail = format!("device {} exists, and a gateway speaks for it", device.id);
        return Err(Problem::conflict(detail));
    }
    model::settled(&api).await?;
    let which = Which { name: Some(device.id.to_string()), ..Which::default() };
    let view: DeviceView = written(&api, device.org_id, Kind::Device, which, "device").await?;
    Ok((status, etag(view.revision), axum::Json(view)).into_response())
}

fn device_name(name: String) -> Result<String, Problem> {
    if name.len() > MAX_DEVICE_NAME {
        let detail = format!("at most {MAX_DEVICE_NAME} bytes are expected");
        return Err(Problem::field("/name", detail));
    }
    plain("/name", name)
}

fn refused_device(fault: RegistryFault) -> Problem {
    match fault {
        RegistryFault::NoType(_, id) => {
            Problem::field("/device_type", format!("the org has no device type {id}"))
        }
        fault => fault.into(),
    }
}

/// A device that the caller may do something with; of another org's nobody learns that it is there.
fn known(
    api: &Api,
    caller: &Caller,
    id: &DeviceId,
    permission: Permission,
    what: &str,
) -> Result<Arc<Device>, Problem> {
    let device = api.directory.read().device(id).cloned();
    let device = device.ok_or_else(|| Problem::not_found(what))?;
    caller.require(device.org_id, permission, what)?;
    Ok(device)
}

fn known_gateway(api: &Api, caller: &Caller, id: &DeviceId) -> Result<Arc<Device>, Problem> {
    let device = known(api, caller, id, Permission::Model, "gateway")?;
    if device.role != Role::Gateway {
        return Err(Problem::field("/gateway", format!("{id} is no gateway: its type says so")));
    }
    Ok(device)
}

/// Take a device away
///
/// What it sends from then on is nobody's. Its points stay as entities, with their values.
#[utoipa::path(delete, path = "/device/{device_id}", tag = "model",
    params(("device_id" = shape::DeviceId, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 204, description = "Gone, also in the primary"),
        (status = 409, description = "It speaks for logical devices, or somebody else changed it at the same time"),
        (status = 412, description = "It was changed since"),
    ))]
async fn delete_device(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<DeviceId>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Some((last, device)) = to_delete(&api, &caller, &id).await? else {
        return Ok(StatusCode::NO_CONTENT);
    };
    let seen = match expected(&headers)? {
        Expected::Revision(seen) if seen != last => return Err(changed()),
        Expected::Revision(seen) => Some(seen),
        Expected::Last | Expected::New => None,
    };
    let logical = api.directory.read().logical_count(&id);
    if logical > 0 {
        let detail = format!("{id} speaks for {logical} logical devices; take them away first");
        return Err(Problem::conflict(detail));
    }
    let Device { org, org_id, .. } = device;
    let gone = Gone { org, org_id, kind: GoneKind::Device, id: id.to_string() };
    let done = model::write(&api, &caller, &Record::Gone(gone), Expected::Revision(last)).await;
    done.map_err(|problem| {
        if seen.is_none() && problem.status() == StatusCode::PRECONDITION_FAILED.as_u16() {
            return Problem::conflict("somebody else changed it in between; look at it and repeat");
        }
        problem
    })?;
    Ok(StatusCode::NO_CONTENT)
}

/// The device as it stands in `MODEL` now, where the caller may take it away. Ids are the platform's: under
/// the same one another org may have made another device meanwhile, so that what is taken away must be
/// what was looked at. `None`: it was taken away before.
async fn to_delete(
    api: &Api,
    caller: &Caller,
    id: &DeviceId,
) -> Result<Option<(u64, Device)>, Problem> {
    let subject = Subject::Model { org: None, kind: "device".to_owned(), id: id.to_string() };
    let subject = subject.to_string();
    let Some((last, Record::Device(device))) = get(&api.wire, &subject).await? else {
        let before = model::is_gone(api, caller, &subject).await?;
        return before.then_some(None).ok_or_else(|| Problem::not_found("device"));
    };
    caller.require(device.org_id, Permission::Model, "device")?;
    Ok(Some((last, device)))
}

/// How a command is sent.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CommandParams {
    /// For how long the broker keeps it for a device that is away, in seconds.
    #[param(minimum = 1, maximum = 4_294_967_295_u32, format = "uint32", default = 60)]
    expires_seconds: Option<u32>,
}

/// What became of a command. Whether the device did it only the device can say.
#[derive(Serialize, ToSchema)]
struct CommandTold {
    /// `taken`: the broker has it, and somebody is subscribed to it, also one that is away and has a
    /// session there.
    #[schema(value_type = String, example = "taken")]
    fate: Fate,
}

/// Tell a device something
///
/// The body goes out on `devices/{device_id}/commands` as it is, at most 256 KiB of it.
#[utoipa::path(post, path = "/device/{device_id}/command", tag = "model",
    params(("device_id" = shape::DeviceId, Path), CommandParams),
    request_body(content(("application/octet-stream")), description = "What the device gets; any content type"),
    responses(
        (status = 200, description = "The broker has it for the device", body = CommandTold),
        (status = 409, description = "Nobody listens and it is gone, or the device does not listen itself"),
        (status = 502, description = "The MQTT broker refuses it"),
        (status = 503, description = "No bridge answers: it is not sent; or the broker does not: it may still be told"),
    ))]
async fn command_device(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<DeviceId>,
    Query(params): Query<CommandParams>,
    request: Request,
) -> Result<Response, Problem> {
    let device = known(&api, &caller, &id, Permission::Control, "device")?.id.clone();
    let expires_seconds = params.expires_seconds.unwrap_or(EXPIRES_SECONDS);
    if expires_seconds == 0 {
        return Err(Problem::field("/query/expires_seconds", "a second or more is expected"));
    }
    let payload = body(&api, request.into_body(), MAX_COMMAND).await?;
    if payload.is_empty() {
        return Err(Problem::field("", "an empty command says nothing"));
    }
    let not_after = api.clock.now().plus_micros(i64::from(ANSWER_SECONDS) * 1_000_000);
    let command = Command { device, payload: payload.into(), expires_seconds, not_after };
    // A second more than the bridge has: what it says of a time-out is better than our own.
    let wait = Duration::from_secs(u64::from(ANSWER_SECONDS) + 1);
    let told = micro::ask(&api.wire, SERVICE.join("."), &command, wait).await;
    let Told { fate } = told.map_err(|refusal| not_told(refusal, &command.device))?;
    tracing::info!(caller = %caller.who, device = %command.device, ?fate, "a device was told something");
    match fate {
        Fate::Taken => Ok(axum::Json(CommandTold { fate }).into_response()),
        Fate::NobodyListens => Err(Problem::conflict(format!(
            "nobody listens on devices/{id}/commands: the device is away; nothing is kept"
        ))),
    }
}

fn not_told(refusal: Refusal, device: &DeviceId) -> Problem {
    match &*refusal.text {
        micro::NO_ANSWER => Problem::away(format!(
            "the bridge does not answer: whether {device} was told is unknown; from now on it is not"
        )),
        micro::NOBODY => Problem::away("no bridge answers: the command is not sent"),
        _ => refusal.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wanted(body: Value) -> Result<Wanted, Vec<String>> {
        let new: NewDevice = serde_json::from_value(body).unwrap();
        new.wanted().map_err(|problem| {
            let told = serde_json::to_value(problem).unwrap();
            let errors = told["errors"].as_array().unwrap().iter();
            errors.map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
        })
    }

    #[test]
    fn a_new_device_speaks_itself_or_a_gateway_speaks_for_it() {
        let own = json!({"org_id": 1, "device_id": "a", "device_type": "t", "name": "A"});
        let (id, device_type) = ("a".parse().unwrap(), "t".parse().unwrap());
        assert_eq!(wanted(own), Ok(Wanted::Own { org_id: 1, id, device_type }));
        let logical = json!({"gateway": "g", "identifier": "7/3"});
        let (gateway, identifier) = ("g".parse().unwrap(), "7/3".to_owned());
        assert_eq!(wanted(logical), Ok(Wanted::Logical { gateway, identifier, id: None }));
    }

    #[test]
    fn what_a_new_device_lacks_or_has_too_much_is_named() {
        let cases = [
            (json!({}), vec!["/org_id", "/device_id", "/device_type"]),
            (json!({"org_id": 1, "device_id": "a"}), vec!["/device_type"]),
            (json!({"gateway": "g"}), vec!["/identifier"]),
            (json!({"org_id": 1, "gateway": "g", "identifier": "x"}), vec!["/org_id"]),
            (json!({"gateway": "g", "identifier": ""}), vec!["/identifier"]),
            (json!({"gateway": "g", "identifier": "x".repeat(129)}), vec!["/identifier"]),
        ];
        for (body, pointers) in cases {
            let named = wanted(body.clone()).unwrap_err();
            assert_eq!(named, pointers, "{body}");
        }
    }

    #[test]
    fn places_in_a_definition_are_pointers() {
        assert_eq!(place_pointer("metrics.temperature.unit"), "/metrics/temperature/unit");
        assert_eq!(place_pointer("metrics.a/b~c"), "/metrics/a~1b~0c");
    }

    #[test]
    fn what_nests_too_deep_is_refused() {
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert!(shallow(String::new(), &nested(MAX_DEPTH)).is_ok());
        assert!(shallow(String::new(), &nested(MAX_DEPTH + 1)).is_err());
    }
}
