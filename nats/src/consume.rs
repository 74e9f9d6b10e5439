//! Consuming: a shared durable consumer, read under a supervisor that survives restarts of the
//! server and deletion of the consumer.

use crate::{Wire, publish::OLDEST_ACCEPTED, publish::Patience, retry::Pauses};
use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::DirectGetErrorKind,
};
use bytes::Bytes;
use domain::{Position, Proof, Timestamp};
use futures_util::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

/// Messages asked for ahead by [`Ahead::Much`].
const AHEAD_MESSAGES: usize = 2_000;
/// Bytes asked for ahead by [`Ahead::Much`]. More than the largest message, or it would never be delivered.
const AHEAD_BYTES: usize = 16 << 20;
/// The server shows signs of life this often while there is nothing to deliver.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A server that answers a [`Reader::fetch`] with nothing for this long is not waited for. (It says
/// nothing, too, while too many deliveries wait for their acknowledgement.)
const FETCH_SILENCE: Duration = Duration::from_millis(500);
/// A fetch that did not end in this time never will: its server was restarted.
const FETCH_LIFE: Duration = ACK_WAIT;
/// A request for messages is renewed this often.
const REQUEST_EXPIRES: Duration = Duration::from_secs(20);
/// The same for one message. The server answers an expired request, so this is a heartbeat, too. A
/// real one must not be asked for here: the client's batch takes it in without waking its reader
/// for the message behind it, which then lies there until it comes again.
const ONE_EXPIRES: Duration = HEARTBEAT;
/// An unacknowledged message comes again after this long.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// Deliveries that may wait for their acknowledgement, over all instances.
const MAX_ACK_PENDING: i64 = 20_000;

/// How much the server delivers before it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Thousands of messages: one busy reader in a process.
    Much,
    /// One; what more there is is [fetched](Reader::fetch) as there is room for it: many readers
    /// that share a process's memory.
    One,
}

/// A durable consumer.
#[derive(Debug, Clone)]
pub struct Durable {
    /// The stream it reads.
    pub stream: &'static str,
    /// Its name: whoever uses the same name shares the work.
    pub name: String,
    /// The subjects it reads.
    pub filter: String,
    /// How long the server waits for an acknowledgement.
    pub ack_wait: Duration,
    /// How much is delivered before it is asked for.
    pub ahead: Ahead,
}

impl Durable {
    /// One consumer for one job, with the usual patience.
    pub fn new(stream: &'static str, name: String, filter: String) -> Self {
        Self { stream, name, filter, ack_wait: ACK_WAIT, ahead: Ahead::Much }
    }

    /// The same, with one message ahead.
    #[must_use]
    pub fn one_ahead(self) -> Self {
        Self { ahead: Ahead::One, ..self }
    }

    fn config(&self) -> pull::Config {
        pull::Config {
            durable_name: Some(self.name.clone()),
            filter_subject: self.filter.clone(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            // Never given up by the server: what can't be processed is ours to set aside.
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            ..pull::Config::default()
        }
    }
}

/// A message that was delivered and is not acknowledged yet. Dropped, it comes again.
#[derive(Debug)]
pub struct Delivery {
    message: jetstream::Message,
    position: Position,
    delivered: i64,
    pending: u64,
}

impl Delivery {
    /// From the client's type; `None` where the server sent no JetStream metadata.
    fn new(message: jetstream::Message) -> Option<Self> {
        let info = message.info().ok()?;
        let stored_at = Timestamp::from_nanos(info.published.unix_timestamp_nanos())?;
        let position = Position { sequence: info.stream_sequence, stored_at };
        let (delivered, pending) = (info.delivered, info.pending);
        Some(Self { message, position, delivered, pending })
    }

    /// Where it stands in its stream.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Its subject.
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// Its body.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// Takes the body out and forgets the headers: what is left is small, and can be acknowledged.
    pub fn take_payload(&mut self) -> Bytes {
        self.message.message.headers = None;
        std::mem::take(&mut self.message.message.payload)
    }

    /// Messages that waited behind it when it was delivered.
    pub fn pending(&self) -> u64 {
        self.pending
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.message.headers.as_ref()?.get(name)?.as_str())
    }

    /// Whether it was delivered before.
    pub fn redelivered(&self) -> bool {
        self.delivered > 1
    }

    /// The oldest acceptance among what it carries, where the writer noted it.
    pub fn oldest_accepted(&self) -> Option<Timestamp> {
        self.header(OLDEST_ACCEPTED)?.parse().ok().and_then(Timestamp::from_micros)
    }

    /// Tells the stream that it is done, with the proof that what came of it is safe. The
    /// acknowledgement itself may be lost: then the message comes again, and changes nothing.
    ///
    /// With a yes of the next stream it compiles:
    /// ```
    /// async fn done(message: haystack_nats::Delivery, stored: haystack_nats::Fsynced) {
    ///     message.ack(&stored).await;
    /// }
    /// ```
    /// With anything less it does not:
    /// ```compile_fail
    /// async fn done(message: haystack_nats::Delivery, sent: haystack_nats::publish::Outgoing) {
    ///     message.ack(&sent).await;
    /// }
    /// ```
    /// And nobody else can make a yes:
    /// ```compile_fail
    /// let forged = haystack_nats::Fsynced { sequence: 1 };
    /// ```
    pub async fn ack(self, _proof: &impl Proof) {
        if let Err(error) = self.message.ack().await {
            tracing::debug!(%error, "an acknowledgement was not sent; the message comes again");
        }
    }

    /// Asks the stream for more time.
    pub async fn in_progress(&self) {
        let _ = self.message.ack_with(AckKind::Progress).await;
    }

    /// Hands it back: it comes again after the pause.
    pub async fn hand_back(self, pause: Duration) {
        let _ = self.message.ack_with(AckKind::Nak(Some(pause))).await;
    }
}

/// The body of a message that is in the stream, by its sequence; `None` where it is gone.
pub async fn read_again(
    wire: &Wire,
    stream: &str,
    sequence: u64,
) -> Result<Option<Bytes>, crate::PublishFault> {
    Ok(read_placed(wire, stream, sequence).await?.map(|(_, body)| body))
}

/// The same with where it stands and when it was stored.
pub async fn read_placed(
    wire: &Wire,
    stream: &str,
    sequence: u64,
) -> Result<Option<(Position, Bytes)>, crate::PublishFault> {
    let later = |error: String| crate::PublishFault::Later(format!("{stream}: {error}"));
    // Streams begin at 1, whatever somebody wrote into a table.
    if sequence == 0 {
        return Ok(None);
    }
    let found = wire.jetstream.get_stream_no_info(stream).await;
    let found = found.map_err(|error| later(error.to_string()))?.direct_get(sequence).await;
    match found {
        Ok(message) => {
            let stored_at = Timestamp::from_nanos(message.time.unix_timestamp_nanos());
            let stored_at =
                stored_at.ok_or_else(|| later("a message without its time".to_owned()))?;
            Ok(Some((Position { sequence, stored_at }, message.payload)))
        }
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(later(error.to_string())),
    }
}

/// The subject of a message; `None`: its stream has it no more.
pub async fn subject_of(
    wire: &Wire,
    stream: &str,
    sequence: u64,
) -> Result<Option<String>, crate::PublishFault> {
    let later = |error: String| crate::PublishFault::Later(format!("{stream}: {error}"));
    let found = wire.jetstream.get_stream_no_info(stream).await;
    let found = found.map_err(|error| later(error.to_string()))?.direct_get(sequence).await;
    match found {
        Ok(message) => Ok(Some(message.subject.to_string())),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(later(error.to_string())),
    }
}

/// Reads a durable consumer for as long as the process lives.
pub struct Reader {
    wire: Wire,
    durable: Durable,
    patience: Patience,
    opened: Option<Opened>,
}

struct Opened {
    consumer: jetstream::consumer::PullConsumer,
    messages: Messages,
    /// A fetch whose end was not seen yet.
    fetching: Option<Fetching>,
}

/// Where messages come from, one after the other.
enum Messages {
    /// [`Ahead::Much`]: the client asks again before it runs dry.
    Much(Box<pull::Stream>),
    /// [`Ahead::One`]: asked for one at a time. The client's stream with a batch of one is no way:
    /// a message that overtakes the client's own note of having asked leaves it waiting for one
    /// that nobody asked for, until a heartbeat is missed.
    One {
        asked: Option<Box<pull::Batch>>,
        /// Changes when the client has reconnected: the server has forgotten what was asked.
        reconnects: watch::Receiver<u64>,
    },
}

type Next = Option<Result<jetstream::Message, String>>;

impl Messages {
    async fn next(&mut self, consumer: &jetstream::consumer::PullConsumer) -> Next {
        match self {
            Self::Much(messages) => Some(messages.next().await?.map_err(|error| error.to_string())),
            Self::One { asked, reconnects } => loop {
                if asked.is_none() {
                    reconnects.mark_unchanged();
                    let asking = consumer.batch().max_messages(1).expires(ONE_EXPIRES);
                    match asking.messages().await {
                        Ok(batch) => *asked = Some(Box::new(batch)),
                        Err(error) => return Some(Err(error.to_string())),
                    }
                }
                let Some(batch) = asked.as_mut() else { continue };
                let next = tokio::select! {
                    biased;
                    next = batch.next() => next,
                    Ok(()) = reconnects.changed() => None,
                };
                match next {
                    Some(Ok(message)) => return Some(Ok(message)),
                    Some(Err(error)) => return Some(Err(error.to_string())),
                    // Expired, or answered: ask again.
                    None => *asked = None,
                }
            },
        }
    }
}

struct Fetching {
    found: pull::Batch,
    since: Instant,
}

impl Opened {
    /// The fetch that goes on, or a new one.
    async fn fetching(&mut self, messages: usize, bytes: usize) -> Option<&mut pull::Batch> {
        if self.fetching.as_ref().is_some_and(|fetching| fetching.since.elapsed() > FETCH_LIFE) {
            self.fetching = None;
        }
        if self.fetching.is_none() {
            let asked = self.consumer.fetch().max_messages(messages).max_bytes(bytes);
            let found = asked.messages().await.ok()?;
            self.fetching = Some(Fetching { found, since: Instant::now() });
        }
        self.fetching.as_mut().map(|fetching| &mut fetching.found)
    }
}

/// A message of a fetch that goes on; never, where none does.
async fn late(fetching: &mut Option<Fetching>) -> Option<jetstream::Message> {
    let Some(Fetching { found, .. }) = fetching else { return std::future::pending().await };
    let message = found.next().await.and_then(Result::ok);
    if message.is_none() {
        *fetching = None;
    }
    message
}

impl Reader {
    /// Nothing happens until the first [`Reader::next`].
    pub fn new(wire: Wire, durable: Durable, patience: Patience) -> Self {
        Self { wire, durable, patience, opened: None }
    }

    /// The next message; `None` where the process is to stop. Waits out every outage, and says
    /// in the holds what it waits for.
    pub async fn next(&mut self) -> Option<Delivery> {
        loop {
            let shutdown = self.patience.shutdown.clone();
            let Opened { consumer, messages, fetching } = self.open().await?;
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                message = late(fetching) => match message {
                    Some(message) => Some(Ok(message)),
                    None => continue,
                },
                next = messages.next(consumer) => next,
            };
            if let Some(delivery) = self.take(next) {
                return Some(delivery);
            }
        }
    }

    /// The next message where one is already here. An error is left for [`Reader::next`].
    pub fn try_next(&mut self) -> Option<Delivery> {
        let Opened { consumer, messages, .. } = self.opened.as_mut()?;
        let next = messages.next(consumer).now_or_never()?;
        self.take(next)
    }

    /// What is there now, at most so much. Empty where nothing is, where the next message alone is
    /// larger than `bytes`, and where something is wrong, which is left for [`Reader::next`]. What
    /// comes too late for it comes out of the next call of either.
    pub async fn fetch(&mut self, messages: usize, bytes: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        let Some(opened) = &mut self.opened else { return deliveries };
        let Some(found) = opened.fetching(messages, bytes).await else { return deliveries };
        loop {
            match timeout(FETCH_SILENCE, found.next()).await {
                Ok(Some(Ok(message))) => deliveries.extend(Delivery::new(message)),
                Ok(_) => break,
                Err(_silence) => return deliveries,
            }
        }
        opened.fetching = None;
        deliveries
    }

    fn take(&mut self, next: Next) -> Option<Delivery> {
        match next {
            Some(Ok(message)) => return Delivery::new(message),
            Some(Err(error)) => {
                tracing::warn!(consumer = self.durable.name, %error, "reopening the consumer");
            }
            None => tracing::warn!(consumer = self.durable.name, "the consumer's stream ended"),
        }
        self.opened = None;
        None
    }

    /// Opens the consumer where it is not open, creating it where it is gone.
    async fn open(&mut self) -> Option<&mut Opened> {
        let mut pauses = Pauses::default();
        while self.opened.is_none() {
            match self.try_open().await {
                Ok(opened) => {
                    self.opened = Some(opened);
                    self.patience.moving();
                }
                Err(why) => {
                    if !self.patience.pause(&mut pauses, &why).await {
                        return None;
                    }
                }
            }
        }
        self.opened.as_mut()
    }

    async fn try_open(&self) -> Result<Opened, String> {
        let consumer: jetstream::consumer::PullConsumer = self
            .wire
            .jetstream
            .create_consumer_on_stream(self.durable.config(), self.durable.stream)
            .await
            .map_err(|error| format!("consumer {}: {error}", self.durable.name))?;
        let messages = match self.durable.ahead {
            Ahead::Much => {
                let stream = consumer.stream().heartbeat(HEARTBEAT).expires(REQUEST_EXPIRES);
                let stream =
                    stream.max_messages_per_batch(AHEAD_MESSAGES).max_bytes_per_batch(AHEAD_BYTES);
                let messages = stream.messages().await;
                let messages =
                    messages.map_err(|error| format!("consumer {}: {error}", self.durable.name))?;
                Messages::Much(Box::new(messages))
            }
            Ahead::One => Messages::One { asked: None, reconnects: self.wire.reconnects.clone() },
        };
        Ok(Opened { consumer, messages, fetching: None })
    }
}
