//! What goes out to devices: QoS 1, a bounded queue that outlives connections, and what became of
//! each.

use super::watch::{Heard, Watch};
use bytes::Bytes;
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{PubAckReason, Publish, PublishProperties},
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait to be sent, beside those on their way.
const MAX_WAITING: usize = 4_096;
/// Messages on their way at once; fewer where the broker says so.
const MAX_IN_FLIGHT: usize = 1_024;
/// Packet ids below are those of subscriptions.
const FIRST_ID: u16 = 16;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The broker has it.
    Taken,
    /// The broker has it and knows nobody who wants it.
    NobodyListens,
    /// The broker refuses it, and why.
    Refused(String),
    /// The connection broke before the broker answered: it may have it.
    Unknown,
}

/// A message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// There is no connection.
    #[error("the bridge has no connection to the MQTT broker")]
    Away,
    /// Too many wait.
    #[error("too much waits to be sent to the MQTT broker")]
    Full,
}

/// A message for a device.
#[derive(Debug)]
pub struct Outgoing {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// How long the broker keeps it for a device that is away.
    pub expires: Duration,
    /// After this it is not sent any more.
    pub not_after: Option<Instant>,
    /// Who wants to know what became of it, and only while it is fresh: such a message is sent by
    /// this connection or not at all. Without, it is sent again until the broker has it.
    pub told: Option<oneshot::Sender<Sent>>,
}

/// How the connection is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Since when.
    pub since: domain::Timestamp,
    /// The broker knew the session.
    pub session_kept: bool,
}

/// The way out to devices, and a look at the connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Link {
    queue: mpsc::Sender<Outgoing>,
    connected: Arc<Mutex<Option<Connected>>>,
    pub(super) watch: Watch,
}

impl Link {
    /// A way out and its other end.
    pub fn new() -> (Self, Outflow) {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let link = Self { queue, connected: Arc::default(), watch: Watch::default() };
        let outflow = Outflow {
            waiting,
            again: VecDeque::new(),
            in_flight: BTreeMap::new(),
            most: MAX_IN_FLIGHT,
            last_id: FIRST_ID,
        };
        (link, outflow)
    }

    /// The connection; `None` while there is none.
    pub fn connected(&self) -> Option<Connected> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the broker said of itself.
    pub fn heard(&self) -> Heard {
        self.watch.heard()
    }

    pub(super) fn set(&self, connected: Option<Connected>) {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = connected;
    }

    /// Takes a message for sending, without waiting.
    pub fn send(&self, outgoing: Outgoing) -> Result<(), NotSent> {
        if outgoing.told.is_some() && self.connected().is_none() {
            return Err(NotSent::Away);
        }
        self.queue.try_send(outgoing).map_err(|_| NotSent::Full)
    }
}

/// The other end of a [`Link`]: what is to be sent, and what was and is not answered yet.
#[derive(Debug)]
pub struct Outflow {
    waiting: mpsc::Receiver<Outgoing>,
    /// Was on its way when a connection broke.
    again: VecDeque<Outgoing>,
    in_flight: BTreeMap<u16, Outgoing>,
    most: usize,
    last_id: u16,
}

impl Outflow {
    /// A new connection: what was not answered by the last is sent again, or its sender told.
    pub(super) fn begin(&mut self, receive_maximum: Option<u16>) {
        self.most = receive_maximum.map_or(MAX_IN_FLIGHT, |most| MAX_IN_FLIGHT.min(most.into()));
        for (_, mut outgoing) in std::mem::take(&mut self.in_flight) {
            match outgoing.told.take() {
                // Nobody is there any more where this fails.
                Some(told) => drop(told.send(Sent::Unknown)),
                None => self.again.push_back(outgoing),
            }
        }
    }

    /// Whether one more may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < self.most
    }

    /// Waits for a message.
    pub(super) async fn next(&mut self) -> Option<Outgoing> {
        match self.again.pop_front() {
            Some(outgoing) => Some(outgoing),
            None => self.waiting.recv().await,
        }
    }

    /// A message that is there.
    pub(super) fn try_next(&mut self) -> Option<Outgoing> {
        self.again.pop_front().or_else(|| self.waiting.try_recv().ok())
    }

    /// Notes that a message goes out; gives its packet. `None`: nobody waits for it any more.
    pub(super) fn publish(&mut self, outgoing: Outgoing) -> Option<Publish> {
        let late = outgoing.not_after.is_some_and(|limit| Instant::now() > limit);
        if late || outgoing.told.as_ref().is_some_and(oneshot::Sender::is_closed) {
            return None;
        }
        let properties = PublishProperties {
            message_expiry_interval: Some(
                outgoing.expires.as_secs().try_into().unwrap_or(u32::MAX),
            ),
            ..PublishProperties::default()
        };
        let payload = outgoing.payload.clone();
        let mut publish =
            Publish::new(&*outgoing.topic, QoS::AtLeastOnce, payload, Some(properties));
        publish.pkid = self.free_id();
        self.in_flight.insert(publish.pkid, outgoing);
        Some(publish)
    }

    /// Ids go round; far fewer are in use than there are.
    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(FIRST_ID);
            if !self.in_flight.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// The broker's answer.
    pub(super) fn answered(&mut self, id: u16, reason: PubAckReason) {
        let Some(outgoing) = self.in_flight.remove(&id) else { return };
        let sent = match reason {
            PubAckReason::Success => Sent::Taken,
            PubAckReason::NoMatchingSubscribers => Sent::NobodyListens,
            other => {
                tracing::warn!(topic = outgoing.topic, ?other, "the MQTT broker refuses a message");
                Sent::Refused(format!("{other:?}"))
            }
        };
        if let Some(told) = outgoing.told {
            let _ = told.send(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, told: Option<oneshot::Sender<Sent>>) -> Outgoing {
        let expires = Duration::from_mins(1);
        Outgoing {
            topic: "t".to_owned(),
            payload: vec![number].into(),
            expires,
            not_after: None,
            told,
        }
    }

    fn connected(link: &Link) {
        link.set(Some(Connected { since: domain::Timestamp::EPOCH, session_kept: true }));
    }

    #[test]
    fn what_is_awaited_is_sent_now_or_never_and_a_receipt_until_the_broker_has_it() {
        let (link, mut outflow) = Link::new();
        let (told, _) = oneshot::channel();
        assert_eq!(link.send(message(1, Some(told))), Err(NotSent::Away));
        assert_eq!(link.send(message(2, None)), Ok(()));
        connected(&link);
        let (told, mut fate) = oneshot::channel();
        link.send(message(3, Some(told))).unwrap();
        outflow.begin(None);
        let mut ids = Vec::new();
        while let Some(next) = outflow.try_next() {
            ids.push(outflow.publish(next).unwrap().pkid);
        }
        assert_eq!(ids.len(), 2);
        // The connection breaks.
        outflow.begin(Some(1));
        assert_eq!(fate.try_recv(), Ok(Sent::Unknown));
        let again = outflow.try_next().unwrap();
        assert_eq!(again.payload, vec![2]);
        let id = outflow.publish(again).unwrap().pkid;
        assert!(!outflow.has_room());
        outflow.answered(id, PubAckReason::Success);
        assert!(outflow.has_room() && outflow.try_next().is_none());
    }

    #[test]
    fn answers_reach_who_asked_and_ids_go_round() {
        let (link, mut outflow) = Link::new();
        connected(&link);
        for (reason, expected) in [
            (PubAckReason::Success, Sent::Taken),
            (PubAckReason::NoMatchingSubscribers, Sent::NobodyListens),
            (PubAckReason::NotAuthorized, Sent::Refused("NotAuthorized".to_owned())),
        ] {
            outflow.last_id = u16::MAX;
            let (told, mut fate) = oneshot::channel();
            let id = outflow.publish(message(1, Some(told))).unwrap().pkid;
            assert_eq!(id, FIRST_ID);
            outflow.answered(id, reason);
            assert_eq!(fate.try_recv(), Ok(expected));
        }
        let (told, fate) = oneshot::channel();
        drop(fate);
        assert!(outflow.publish(message(1, Some(told))).is_none());
    }

    #[test]
    fn the_queue_is_bounded() {
        let (link, _outflow) = Link::new();
        let taken = (0..=MAX_WAITING).take_while(|_| link.send(message(1, None)).is_ok()).count();
        assert_eq!(taken, MAX_WAITING);
    }
}
