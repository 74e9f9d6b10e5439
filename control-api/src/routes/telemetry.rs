//! The door of devices that speak HTTP: what they send goes into `RAW` as it came, and is confirmed when it
//! is there. What came in while one pack was on its way is the next.

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
    Clock, DeviceId, OrgKey, SystemClock, Timestamp,
    access::Permission,
    device_type::ProcessingMode,
    msgpack,
    normalize::MAX_JSON_VALUES,
    raw::{MAX_PACK_BYTES, MAX_PACK_ENTRIES, MAX_PAYLOAD, MSGPACK, Pack, RawMessage, Sender},
    subject::Subject,
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use nats::{
    Wire, envelope,
    pack::random,
    publish::{Outgoing, PublishFault, publish},
    streams::RAW,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use service::config;
use std::{
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// The door's name in subjects: `raw.http.{instance}`.
const DOOR: &str = "http";
/// Media type of the usual payloads.
const JSON: &str = "application/json";
/// Requests that may wait for their pack.
const MAX_WAITING: usize = 1_024;
/// Bytes of requests that wait, or are read; more are told to come again.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long the stream may take until those who wait are told to come again.
const STREAM: Duration = Duration::from_secs(5);
/// Pause before a pack that failed is sent again, under the same id.
const AGAIN: Duration = Duration::from_millis(50);
/// Devices and orgs whose rates are remembered, before those that rest are forgotten.
const MAX_RATES: usize = 10_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(send))
}

/// Messages of one request that wait for their pack.
struct Waiting {
    entries: Vec<RawMessage<'static>>,
    bytes: usize,
    stored: oneshot::Sender<Result<(u64, usize), String>>,
}

/// Where messages are put; clones share it.
#[derive(Clone)]
pub(crate) struct Door {
    queue: mpsc::Sender<Waiting>,
    waiting: Arc<AtomicU64>,
    devices: Arc<DefaultKeyedRateLimiter<DeviceId>>,
    orgs: Arc<DefaultKeyedRateLimiter<OrgKey>>,
    /// When the last message came: no two bear the same moment.
    last: Arc<Mutex<Timestamp>>,
    number: Arc<AtomicU64>,
    session: u64,
}

impl Door {
    /// A door and its packer, which ends when the door is gone.
    pub(crate) fn new(wire: Wire, settings: &config::Api) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let subject =
            Subject::Raw { door: DOOR.to_owned(), instance: settings.instance.clone() }.to_string();
        let session = random();
        let packer = Packer { wire, subject, session, number: 0, left_over: None };
        tokio::spawn(packer.run(waiting));
        let quota = |rate: u32| Quota::per_second(NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN));
        Self {
            queue,
            waiting: Arc::default(),
            devices: RateLimiter::keyed(quota(settings.device_rate)).into(),
            orgs: RateLimiter::keyed(quota(settings.org_rate)).into(),
            last: Arc::new(Mutex::new(Timestamp::MIN)),
            number: Arc::default(),
            session,
        }
    }

    /// Refuses what comes too fast. A request of many messages counts as many.
    fn slow_enough(&self, sender: &Sender, messages: usize) -> Result<(), Problem> {
        if self.devices.len() > MAX_RATES {
            self.devices.retain_recent();
        }
        let messages = NonZeroU32::new(messages as u32).unwrap_or(NonZeroU32::MIN);
        let of_device = self.devices.check_key_n(&sender.device, messages);
        let of_org = || self.orgs.check_key_n(&sender.org, messages);
        let what = match of_device.map(|one| one.is_ok()) {
            Ok(false) => "device",
            // More than a second's worth at once never fits.
            Err(_) => {
                let detail = "more messages in one request than a device may send in a second";
                return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
            }
            Ok(true) => match of_org().map(|all| all.is_ok()) {
                Ok(true) => return Ok(()),
                _ => "org",
            },
        };
        let detail = format!("too many messages of this {what}; nothing was taken, slow down");
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail);
        Err(problem.retry_after(Duration::from_secs(1)))
    }

    /// Now, and never twice the same.
    fn received_at(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = SystemClock.now().max(last.plus_micros(1));
        *last
    }

    /// Stores messages; where the first of them stands.
    async fn store(&self, entries: Vec<RawMessage<'static>>) -> Result<(u64, usize), Problem> {
        let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
        let full = || Problem::away("too much waits for the stream; nothing was taken");
        let room = Room::take(&self.waiting, bytes).ok_or_else(full)?;
        let (stored, told) = oneshot::channel();
        let waiting = Waiting { entries, bytes, stored };
        self.queue.try_send(waiting).map_err(|_| full())?;
        let told = told.await;
        drop(room);
        told.unwrap_or_else(|_| Err("stopping".to_owned())).map_err(|why| {
            tracing::warn!(why, "the stream does not take a device's messages");
            let detail = "the stream takes nothing now, it is full or away; send it again later";
            Problem::away(detail).retry_after(STREAM)
        })
    }
}

/// Bytes that are held until they are stored.
struct Room<'a>(&'a AtomicU64, u64);

impl<'a> Room<'a> {
    fn take(waiting: &'a AtomicU64, bytes: usize) -> Option<Self> {
        let bytes = bytes as u64;
        let before = waiting.fetch_add(bytes, Ordering::Relaxed);
        let room = Self(waiting, bytes);
        (before + bytes <= MAX_WAITING_BYTES as u64).then_some(room)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Makes packs, one at a time.
struct Packer {
    wire: Wire,
    subject: String,
    session: u64,
    number: u64,
    left_over: Option<Waiting>,
}

impl Packer {
    async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        loop {
            let first = match self.left_over.take() {
                Some(first) => first,
                None => match queue.recv().await {
                    Some(first) => first,
                    None => return,
                },
            };
            let taken = self.fill(first, &mut queue);
            let (mut pack, mut tellers) = (Pack::default(), Vec::new());
            for Waiting { entries, stored, .. } in taken {
                tellers.push((pack.entries.len(), stored));
                pack.entries.extend(entries);
            }
            let told = self.publish(&pack).await;
            for (index, stored) in tellers {
                // Whoever does not wait any more asks again.
                let _ = stored.send(told.clone().map(|sequence| (sequence, index)));
            }
        }
    }

    /// What waits, as far as it fits into one pack.
    fn fill(&mut self, first: Waiting, queue: &mut mpsc::Receiver<Waiting>) -> Vec<Waiting> {
        let (mut entries, mut bytes) = (first.entries.len(), first.bytes);
        let mut taken = vec![first];
        while let Ok(next) = queue.try_recv() {
            entries += next.entries.len();
            bytes += next.bytes;
            if entries > MAX_PACK_ENTRIES || bytes > MAX_PACK_BYTES {
                self.left_over = Some(next);
                break;
            }
            taken.push(next);
        }
        taken
    }

    async fn publish(&mut self, pack: &Pack<'static>) -> Result<u64, String> {
        self.number += 1;
        let id = format!("{DOOR}-{:016x}-{}", self.session, self.number);
        let about = pack.entries.iter().map(|entry| entry.payload.len() + 128).sum();
        let message = Outgoing::new(&self.subject, &id, envelope::encode_sized(pack, about));
        let began = Instant::now();
        loop {
            match publish(&self.wire, message.clone()).await {
                Ok(stored) => return Ok(stored.sequence()),
                Err(PublishFault::Later(why)) if began.elapsed() < STREAM => {
                    tracing::debug!(why, "a pack is sent again");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(fault) => return Err(fault.to_string()),
            }
        }
    }
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
    let message = |payload: &[u8]| RawMessage {
        name: sender.device.to_string().into(),
        sender: Some(sender.clone()),
        content_type: content_type.into(),
        received_at: door.received_at(),
        session: door.session,
        packet_id: 0,
        number: door.number.fetch_add(1, Ordering::Relaxed),
        payload: payload.to_vec().into(),
    };
    let entries: Vec<_> = payloads.into_iter().map(message).collect();
    let accepted = entries.len();
    let (sequence, index) = door.store(entries).await?;
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
        matches!(caller.may, May::Device(..)) || caller.may(org, Permission::Telemetry)
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
