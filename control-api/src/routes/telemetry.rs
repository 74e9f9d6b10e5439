//! Devices that speak HTTP: what they send goes into `RAW` as it came, and is confirmed when it is there.

use crate::{
    Api,
    caller::{Caller, May},
    extract::{Query, body, media_type},
    problem::Problem,
    shape::Messages,
};
use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
};
use domain::{
    access::Permission,
    device_type::ProcessingMode,
    msgpack,
    normalize::MAX_JSON_VALUES,
    raw::{MAX_PACK_ENTRIES, MAX_PAYLOAD, MSGPACK, Sender},
};
use nats::streams::RAW;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Media type of the usual payloads.
const JSON: &str = "application/json";
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(send))
}

/// Whose telemetry it is, where the caller may send for several devices.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Whose {
    /// The device; a device that calls for itself leaves it out.
    #[param(example = "TS-001-2024")]
    device_id: Option<String>,
}

/// What was taken.
#[derive(Serialize, Deserialize, ToSchema)]
struct Taken {
    /// How many messages.
    accepted: usize,
    /// Where the first of them stands: stream, sequence, place.
    #[schema(example = "RAW-42-0")]
    message_id: String,
}

/// Send telemetry as a device
///
/// One message (an object), or an array of them, at most 1,024; each is kept as it came and read by the
/// device's type, as if it had come by MQTT. 202 when it is on disk.
#[utoipa::path(post, path = "/api/v1/telemetry", tag = "devices", params(Whose),
    request_body(content(
        (Messages = "application/json"),
        ("application/msgpack"),
    )),
    responses(
        (status = 202, description = "On disk, and on its way to every database", body = Taken),
        (status = 429, description = "Too many messages of this device or org"),
    ))]
async fn send(
    State(api): State<Api>,
    caller: Caller,
    Query(whose): Query<Whose>,
    request: Request,
) -> Result<(StatusCode, Json<Taken>), Problem> {
    let sender = sender(&api, &caller, whose.device_id.as_deref())?;
    let content_type = content_type(&media_type(&request))?;
    let bytes = body(&api, request.into_body(), MAX_PAYLOAD).await?;
    let payloads = payloads(content_type, &bytes)?;
    if payloads.len() > MAX_PACK_ENTRIES {
        let detail =
            format!("{} messages, at most {MAX_PACK_ENTRIES} are taken at once", payloads.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    if payloads.is_empty() {
        return Err(Problem::field("", "at least one message is expected"));
    }
    let door = &api.telemetry;
    door.slow_enough(&sender, payloads.len())?;
    let accepted = payloads.len();
    let (sequence, index) = door.take(&sender, content_type, payloads).await?;
    metrics::counter!("haystack_api_device_messages_total").increment(accepted as u64);
    let message_id = format!("{RAW}-{sequence}-{index}");
    Ok((StatusCode::ACCEPTED, Json(Taken { accepted, message_id })))
}

/// Who sends: the device of the key, or one that the caller may send for.
fn sender(api: &Api, caller: &Caller, named: Option<&str>) -> Result<Sender, Problem> {
    let not_yours = || Problem::forbidden("the caller may not send for this device, or it is none");
    let name = match (&caller.may, named) {
        (May::Device(_, device), None) => device.to_string(),
        (May::Device(_, device), Some(named)) if named == device.as_str() => named.to_owned(),
        (May::Device(..), Some(_)) => return Err(not_yours()),
        (_, Some(named)) => named.to_owned(),
        (_, None) => return Err(Problem::field("/query/device_id", "whose telemetry is it?")),
    };
    let allowed = {
        let directory = api.directory.read();
        let device = directory.device_named(&name);
        let org = device.map(|device| device.org_id).ok_or_else(not_yours)?;
        match &caller.may {
            // Its name may have become another org's device since its key was made.
            May::Device(of, _) => device.is_some_and(|device| device.org == *of),
            _ => caller.may(org, Permission::Telemetry),
        }
    };
    if !allowed {
        return Err(not_yours());
    }
    let directory = api.directory.read();
    let sender = directory.sender(&name).ok_or_else(|| {
        Problem::forbidden("a gateway speaks for this device; it has no voice of its own")
    })?;
    let profile = directory.profile(&sender.org, &sender.profile);
    if profile.is_some_and(|it| it.definition.processing_mode == ProcessingMode::GatewayChunked) {
        return Err(Problem::forbidden("reports in parts come by MQTT only"));
    }
    Ok(sender)
}

fn content_type(said: &str) -> Result<&'static str, Problem> {
    match said {
        "application/json" | "" => Ok(JSON),
        "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => Ok(MSGPACK),
        said if said.ends_with("+json") => Ok(JSON),
        _ => {
            let detail = "content-type: application/json or application/msgpack is expected";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
        }
    }
}

/// The messages of a body, each as it came.
fn payloads<'b>(content_type: &str, bytes: &'b [u8]) -> Result<Vec<&'b [u8]>, Problem> {
    let object = |at: usize| Problem::field(format!("/{at}"), "a message is an object");
    if content_type == MSGPACK {
        let elements = msgpack::elements(bytes, MAX_JSON_VALUES).map_err(|why| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is no MessagePack: {why}"))
        })?;
        return match elements.iter().position(|element| !msgpack::is_map(element)) {
            Some(at) => Err(object(at)),
            None => Ok(elements),
        };
    }
    let wrong = |error: serde_json::Error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
    };
    let is_object = |text: &str| text.trim_start().starts_with('{');
    let whole: &RawValue = serde_json::from_slice(bytes).map_err(wrong)?;
    if is_object(whole.get()) {
        return Ok(vec![whole.get().as_bytes()]);
    }
    if !whole.get().trim_start().starts_with('[') {
        return Err(Problem::field("", "a message is an object; an array of them is taken too"));
    }
    let all: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(wrong)?;
    match all.iter().position(|one| !is_object(one.get())) {
        Some(at) => Err(object(at)),
        None => Ok(all.into_iter().map(|one| one.get().as_bytes()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_kept_as_they_came() {
        let body = b" [ {\"a\" : 1.10}, {\"b\":[2 ]} ] ";
        let all = payloads(JSON, body).unwrap();
        assert_eq!(all, [b"{\"a\" : 1.10}".as_slice(), b"{\"b\":[2 ]}"]);
        assert_eq!(payloads(JSON, b"{\"a\":1}").unwrap(), [b"{\"a\":1}"]);
        assert_eq!(payloads(MSGPACK, b"\x92\x80\x80").unwrap(), [b"\x80", b"\x80"]);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for body in ["", "1", "[1]", "[{}, 2]", "{", "[{}] x", "\"a\""] {
            assert!(payloads(JSON, body.as_bytes()).is_err(), "{body}");
        }
        for body in [b"".as_slice(), b"\x01", b"\x91\x01", b"\x92\x80"] {
            assert!(payloads(MSGPACK, body).is_err(), "{body:?}");
        }
    }
}
