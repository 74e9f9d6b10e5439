//! The door: what the broker delivers goes into `RAW` as it came, and is confirmed when it is there.

mod receipt;
mod recent;

use crate::{
    Shared,
    mqtt::{self, Broker, Incoming, Take, Unacked},
};
use domain::{
    Clock, SystemClock, Timestamp,
    chunk::{self, Facts, Part, part},
    device_type::DeviceType,
    failpoint,
    raw::{Pack, RawMessage, STATUS, STATUS_KEPT, Sender},
    receipt::key,
    subject::Subject,
    topic::{self, Channel},
};
use nats::{
    CancellationToken, Fsynced, PublishFault, envelope, pack,
    publish::{Stopped, look_back},
    retry::Pauses,
    streams::{CHUNKS, RAW},
};
use receipt::Owed;
use recent::Recent;
use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tokio_util::sync::DropGuard;

/// The door's name in subjects: `raw.mqtt.{instance}`.
const DOOR: &str = "mqtt";
/// A door that begins looks at so many of the last sequences of `RAW`: the packs whose confirmations
/// may not have reached the broker, and some before.
const PACKS_BACK: u64 = nats::retention::DOORS;
/// The same of `CHUNKS`: a part is a message of its own, and [`nats::pack`] has 256 on their way.
const PARTS_BACK: u64 = 256;
/// Media type of payloads; other codecs come with their device types.
const CONTENT_TYPE: &str = "application/json";

/// Runs until shutdown; ends when all that was taken is stored and confirmed, or given up.
/// `_closed` tells, by being dropped, that nothing more comes.
/// `looked` is told when what was stored before is known: from then on parts may go.
pub(crate) async fn run(
    shared: Shared,
    broker: Broker,
    instance: String,
    outflow: mqtt::Outflow,
    looked: oneshot::Sender<()>,
    _closed: DropGuard,
) -> Result<(), mqtt::NoSession> {
    let (door, packer) = pack::door(shared.wire.clone(), DOOR, &instance, shared.patience("raw"));
    let confirmed = CancellationToken::new();
    let (counters, link) = (shared.counters.clone(), shared.link.clone());
    let all_confirmed = confirmed.clone();
    let packing = tokio::spawn(async move {
        // Also where the task panics: the connection must not wait for it.
        let _said = all_confirmed.drop_guard();
        let confirm = |tickets, stored| {
            confirm(&counters, &link, tickets, &stored);
            std::future::ready(())
        };
        packer.run(confirm).await;
    });
    let patience = shared.patience("mqtt");
    let (recent, session) = last_stored(&shared, &instance).await;
    let _ = looked.send(());
    let out = (shared.link.clone(), outflow);
    let doorman = Doorman { shared, door, settled: None, last: Timestamp::MIN, recent };
    let listened = mqtt::listen(&broker, doorman, session, out, &patience, confirmed).await;
    if let Err(panicked) = packing.await {
        std::panic::resume_unwind(panicked.into_panic());
    }
    listened
}

/// What an instance of this name stored last, and the broker's session in which it came: what was
/// not confirmed of it comes again.
async fn last_stored(shared: &Shared, instance: &str) -> (Recent, Option<u64>) {
    let (mut pauses, patience) = (Pauses::default(), shared.patience("raw"));
    loop {
        match try_last_stored(shared, instance).await {
            Ok(found) => {
                patience.moving();
                return found;
            }
            Err(fault) => {
                if !patience.pause(&mut pauses, &fault.to_string()).await {
                    return (Recent::default(), None);
                }
            }
        }
    }
}

async fn try_last_stored(
    shared: &Shared,
    instance: &str,
) -> Result<(Recent, Option<u64>), PublishFault> {
    let own = Subject::Raw { door: DOOR.to_owned(), instance: instance.to_owned() }.to_string();
    let mut recent = Recent::default();
    // The session of what came last.
    let mut newest: Option<(Timestamp, u64)> = None;
    let mut note = |message: &RawMessage<'_>| {
        recent.note(message);
        newest = newest.max(Some((message.received_at, message.session)));
    };
    look_back(&shared.wire, RAW, &own, PACKS_BACK, |_, body| {
        let pack = envelope::decode_borrowed::<Pack<'_>>(body).unwrap_or_default();
        pack.entries.iter().for_each(&mut note);
    })
    .await?;
    look_back(&shared.wire, CHUNKS, "chunk.>", PARTS_BACK, |id, body| {
        if let (true, Ok(part)) = (pack::is_of(instance, id), envelope::decode_borrowed(body)) {
            note(&part);
        }
    })
    .await?;
    Ok((recent, newest.map(|(_, session)| session)))
}

/// What is owed for a message when it is on disk.
struct Ticket {
    unacked: Unacked,
    receipt: Option<Owed>,
}

/// Says yes to the broker for each message of a pack, in the order of arrival, and to devices that
/// ask.
fn confirm(counters: &crate::Counters, link: &mqtt::Link, tickets: Vec<Ticket>, stored: &Fsynced) {
    failpoint::hit(failpoint::BEFORE_PUBACK);
    counters.packed(tickets.len());
    for Ticket { unacked, receipt } in tickets {
        unacked.confirm(stored);
        if let Some(owed) = receipt {
            owed.tell(link, counters, stored);
        }
    }
}

/// An unknown sender makes the door ask `MODEL` whether it is up to date, at most this often: a
/// flood of unknown names must not become a flood of questions.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// A clock that goes back by less is waited for: no two messages bear the same moment.
const LARGEST_STEP: Duration = Duration::from_secs(1);

/// Notes who sent a message and when it came, and hands it to the packer.
struct Doorman {
    shared: Shared,
    door: pack::Door<Ticket>,
    /// When the directory was last known to be up to date.
    settled: Option<Instant>,
    /// Receive time of the last message.
    last: Timestamp,
    recent: Recent,
}

impl Doorman {
    /// Who sent it, by a directory that knows what was registered before the message came. `Err`:
    /// the process is to stop before that is known.
    async fn sender(&mut self, name: &str) -> Result<Option<Sender>, Stopped> {
        let sender = self.shared.directory.read().sender(name);
        let unreadable = self.shared.directory.read().sender_is_unreadable(name);
        let known = sender.is_some() && !unreadable;
        self.shared.counters.profile(known);
        if known {
            return Ok(sender);
        }
        if !unreadable && self.settled.is_some_and(|at| at.elapsed() < SETTLE_EVERY) {
            return Ok(sender);
        }
        let patience = self.shared.patience("model");
        if !self.shared.directory.caught_up(&self.shared.wire, &patience).await {
            return Err(Stopped);
        }
        self.settled = Some(Instant::now());
        let mut directory = self.shared.directory.clone();
        // Its record is there, and a later release wrote it: an outage, not a stranger.
        while directory.read().sender_is_unreadable(name) {
            let patience = self.shared.patience("mqtt");
            let why = format!("the record of device {name:?} can't be read: update the bridge");
            patience.holds.hold(&patience.what, &why, SystemClock.now());
            tokio::select! {
                () = self.shared.shutdown.cancelled() => return Err(Stopped),
                changed = directory.changed() => if !changed { return Err(Stopped) },
            }
            patience.moving();
        }
        Ok(self.shared.directory.read().sender(name))
    }

    /// What the door has to know of a payload beside its bytes.
    fn look(&self, sender: &Sender, payload: &[u8]) -> (Option<PartOf>, Option<Owed>) {
        let Sender { org, device, profile } = sender;
        let Some(profile) = self.shared.directory.read().profile(org, profile).cloned() else {
            return (None, None);
        };
        let profile = &profile.definition;
        let key = profile.receipts.then(|| key(profile, payload)).flatten();
        let owed = key.map(|key| Owed { device: device.clone(), key });
        (self.part(sender, profile, payload), owed)
    }

    /// The part of a gateway's report that a payload is. What should be one and is none goes on like
    /// any message, and is set aside with the reason.
    fn part(&self, sender: &Sender, profile: &DeviceType, payload: &[u8]) -> Option<PartOf> {
        let Sender { org, device, .. } = sender;
        let rule = profile.chunk_rule()?;
        if self.shared.overrun.read().unwrap_or_else(PoisonError::into_inner).contains(device) {
            // It goes where it is set aside.
            return None;
        }
        let Part { transaction, index, facts, .. } = part::read(&rule, payload).ok()?;
        let name = chunk::Name { org: org.clone(), gateway: device.clone(), transaction };
        Some((name, index, facts))
    }

    /// Now, and never twice the same: messages without a time of their own bear it as their key.
    fn received_at(&mut self) -> Timestamp {
        let now = SystemClock.now();
        let next = self.last.plus_micros(1);
        // A clock that was set back by far was wrong before: what is right now counts.
        let stepped_back = next.micros() - now.micros() > LARGEST_STEP.as_micros() as i64;
        self.last = if stepped_back { now } else { now.max(next) };
        self.last
    }
}

/// Which part of which report.
type PartOf = (chunk::Name, u32, Facts);

impl Take for Doorman {
    async fn take(&mut self, incoming: Incoming) -> bool {
        let Incoming { topic, payload, dup, kept, packet_id, session, number, unacked } = incoming;
        self.shared.counters.received(payload.len(), dup);
        // The subscription gives these topics only. Another broker's surprise is set aside later,
        // not dropped.
        let (name, channel) = topic::from_device(&topic).unwrap_or((&topic, Channel::Telemetry));
        let Ok(sender) = self.sender(name).await else { return false };
        let (content_type, (part, receipt)) = match (channel, kept) {
            (Channel::Status, false) => (STATUS, (None, None)),
            (Channel::Status, true) => (STATUS_KEPT, (None, None)),
            (Channel::Telemetry, _) => {
                let look = sender.as_ref().map(|sender| self.look(sender, &payload));
                (CONTENT_TYPE, look.unwrap_or_default())
            }
        };
        let before = dup.then(|| self.recent.first_received(session, packet_id, name, &payload));
        let received_at = match before.flatten() {
            Some(first) => {
                self.shared.counters.repeated();
                first
            }
            None => self.received_at(),
        };
        let message = RawMessage {
            name: name.to_owned().into(),
            sender,
            content_type: content_type.into(),
            received_at,
            session,
            packet_id,
            number,
            // A copy: the payload shares memory with its neighbours, which would all be kept.
            payload: payload.to_vec().into(),
        };
        self.recent.note(&message);
        let ticket = Ticket { unacked, receipt };
        match part {
            Some(part) => self.door.accept_part(message, part, ticket).await,
            None => self.door.accept(message, ticket).await,
        }
    }
}
