//! Messages of devices that speak HTTP, on their way into `RAW`: what came in while one pack was on its way
//! is the next.

use crate::{problem::Problem, shell::request_id};
use axum::http::StatusCode;
use domain::{
    Clock, DeviceId, OrgKey, SystemClock, Timestamp,
    raw::{MAX_PACK_BYTES, MAX_PACK_ENTRIES, Pack, RawMessage, Sender},
    subject::Subject,
};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use nats::{
    Wire, envelope,
    model::REQUEST_ID,
    pack::{PLACES, random},
    publish::{Outgoing, PublishFault, publish},
};
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

/// The door's name in subjects: `raw.http.{instance}`.
const DOOR: &str = "http";
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

/// Messages of one request that wait for their pack.
struct Waiting {
    entries: Vec<RawMessage<'static>>,
    bytes: usize,
    /// The request that brought them.
    request: String,
    /// Theirs until they are gone from memory, whether somebody still waits or not.
    _room: Room,
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
    pub(crate) fn slow_enough(&self, sender: &Sender, messages: usize) -> Result<(), Problem> {
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
                let detail = format!(
                    "{messages} messages in one request, more than a device or its org may send in a second \
                     (api.device_rate, api.org_rate)"
                );
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

    /// Stores messages of one sender; where the first of them stands: sequence and place.
    pub(crate) async fn take(
        &self,
        sender: &Sender,
        content_type: &'static str,
        payloads: Vec<&[u8]>,
    ) -> Result<(u64, usize), Problem> {
        let message = |payload: &[u8]| RawMessage {
            name: sender.device.to_string().into(),
            sender: Some(sender.clone()),
            content_type: content_type.into(),
            received_at: self.received_at(),
            session: self.session,
            packet_id: 0,
            number: self.number.fetch_add(1, Ordering::Relaxed),
            payload: payload.to_vec().into(),
        };
        self.store(payloads.into_iter().map(message).collect()).await
    }

    async fn store(&self, entries: Vec<RawMessage<'static>>) -> Result<(u64, usize), Problem> {
        let bytes: usize = entries.iter().map(|entry| entry.payload.len()).sum();
        let full = || Problem::away("too much waits for the stream; nothing was taken");
        let room = Room::take(&self.waiting, bytes).ok_or_else(full)?;
        let (stored, told) = oneshot::channel();
        let waiting = Waiting { entries, bytes, request: request_id(), _room: room, stored };
        self.queue.try_send(waiting).map_err(|_| full())?;
        let told = told.await;
        told.unwrap_or_else(|_| Err("stopping".to_owned())).map_err(|why| {
            tracing::warn!(why, "the stream does not take a device's messages");
            let detail = "the stream takes nothing now, it is full or away; send it again later";
            Problem::away(detail).retry_after(STREAM)
        })
    }
}

/// Bytes that are held until they are stored.
struct Room(Arc<AtomicU64>, u64);

impl Room {
    fn take(waiting: &Arc<AtomicU64>, bytes: usize) -> Option<Self> {
        let bytes = bytes as u64;
        let before = waiting.fetch_add(bytes, Ordering::Relaxed);
        let room = Self(waiting.clone(), bytes);
        (before + bytes <= MAX_WAITING_BYTES as u64).then_some(room)
    }
}

impl Drop for Room {
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
            // Whoever does not wait any more was told nothing: its messages are nobody's.
            if first.stored.is_closed() {
                continue;
            }
            let taken = self.fill(first, &mut queue);
            let (mut pack, mut tellers, mut rooms) = (Pack::default(), Vec::new(), Vec::new());
            let (mut requests, mut places) = (Vec::new(), Vec::new());
            for Waiting { entries, request, stored, _room: room, .. } in taken {
                tellers.push((pack.entries.len(), stored));
                requests.push(request);
                places.push(pack.entries.len().to_string());
                rooms.push(room);
                pack.entries.extend(entries);
            }
            let told = self.publish(&pack, &requests.join(","), &places.join(",")).await;
            drop(pack);
            drop(rooms);
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
            if next.stored.is_closed() {
                continue;
            }
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

    /// `requests` brought the messages from `places` on.
    async fn publish(
        &mut self,
        pack: &Pack<'static>,
        requests: &str,
        places: &str,
    ) -> Result<u64, String> {
        self.number += 1;
        let id = format!("{DOOR}-{:016x}-{}", self.session, self.number);
        let about = pack.entries.iter().map(|entry| entry.payload.len() + 128).sum();
        let message = Outgoing::new(&self.subject, &id, envelope::encode_sized(pack, about))
            .header(REQUEST_ID, requests)
            .header(PLACES, places);
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
