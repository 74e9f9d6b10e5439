//! `MODEL`: written with an expected sequence, read as a directory in memory.

use crate::{
    Author, Wire, envelope,
    publish::{Outgoing, Patience, PublishFault, publish},
    retry::Pauses,
    streams::MODEL,
};
use async_nats::jetstream::{
    consumer::{DeliverPolicy, pull},
    stream::{LastRawMessageErrorKind, Stream},
};
use domain::{Clock, SystemClock, Timestamp, directory::Directory, model::Record};
use futures_util::StreamExt;
use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};
use tokio::sync::watch;

/// Why the model can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelFault {
    /// Some database could not hold the record.
    #[error("{0}: {1}")]
    Unkeepable(String, domain::model::Unkeepable),
    /// Somebody else wrote the record first.
    #[error("{0} was changed by somebody else in between; look at it again and repeat")]
    Conflict(String),
    /// The server is away or refuses.
    #[error("MODEL: {0}")]
    Server(String),
    /// A record that this release can't read.
    #[error("MODEL: record {sequence} ({subject}): {source}")]
    Unreadable {
        /// Its sequence.
        sequence: u64,
        /// Its subject.
        subject: String,
        /// What the decoder says.
        source: envelope::EnvelopeFault,
    },
}

/// Header: on whose behalf a record was written.
pub(crate) const BY: &str = "Haystack-By";
/// Header: the request that led to a message.
pub const REQUEST_ID: &str = "dq-request-id";
/// Longest name of an author, in bytes.
const MAX_AUTHOR: usize = 200;

/// A header holds one line.
pub(crate) fn one_line(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_AUTHOR.min(text.len()));
    text[..end].replace(|c: char| c.is_control(), " ")
}

fn server(error: impl std::fmt::Display) -> ModelFault {
    ModelFault::Server(error.to_string())
}

/// Writes a record where the subject's last sequence is `expected` (0: it must not exist).
/// A repeated write of the same record is a success.
pub async fn put(wire: &Wire, record: &Record, expected: u64) -> Result<u64, ModelFault> {
    let subject = record.subject().to_string();
    record.check().map_err(|why| ModelFault::Unkeepable(subject.clone(), why))?;
    let body = envelope::encode_named(record);
    let mut message = Outgoing::expecting(&subject, expected, body.clone());
    if let Some(author) = &wire.author {
        message = message.header(BY, &one_line(&author.who));
        if let Some(id) = &author.request_id {
            message = message.header(REQUEST_ID, id);
        }
    }
    match publish(wire, message).await {
        Ok(stored) => Ok(stored.sequence()),
        Err(PublishFault::Conflict) => {
            // The write before this one may have landed while its answer was lost.
            let last = last_bytes(wire, &subject).await?;
            match last {
                Some((sequence, bytes)) if bytes == body => Ok(sequence),
                _ => Err(ModelFault::Conflict(subject)),
            }
        }
        Err(fault) => Err(server(fault)),
    }
}

/// The record of a subject as it is now, with its sequence.
pub async fn get(wire: &Wire, subject: &str) -> Result<Option<(u64, Record)>, ModelFault> {
    let Some((sequence, bytes)) = last_bytes(wire, subject).await? else { return Ok(None) };
    let record = envelope::decode(&bytes).map_err(|source| ModelFault::Unreadable {
        sequence,
        subject: subject.to_owned(),
        source,
    })?;
    Ok(Some((sequence, record)))
}

async fn last_bytes(wire: &Wire, subject: &str) -> Result<Option<(u64, bytes::Bytes)>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(MODEL).await.map_err(server)?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some((message.sequence, message.payload))),
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(server(error)),
    }
}

/// Reads `MODEL` in order, from a sequence on and for ever.
pub struct ModelReader {
    messages: pull::Ordered,
    /// The stream's last sequence when reading began.
    last: u64,
    /// Records that waited when reading began.
    waiting: u64,
    /// Changes when the client has reconnected.
    reconnects: watch::Receiver<u64>,
}

/// A record as it stands in the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Its sequence.
    pub sequence: u64,
    /// The record.
    pub record: Record,
    /// How many more are known to follow at once.
    pub pending: u64,
    /// When it was written.
    pub at: Timestamp,
    /// On whose behalf, where that is known.
    pub author: Option<Author>,
}

impl ModelReader {
    /// Starts after `after`.
    pub async fn open(wire: &Wire, after: u64) -> Result<Self, ModelFault> {
        let mut reconnects = wire.reconnects.clone();
        reconnects.mark_unchanged();
        let stream: Stream = wire.jetstream.get_stream(MODEL).await.map_err(server)?;
        let last = stream.cached_info().state.last_sequence;
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(server)?;
        let waiting = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(server)?;
        Ok(Self { messages, last, waiting, reconnects })
    }

    /// Records that waited when reading began: so many come at once. Fewer than sequences, for a
    /// record leaves when it is written anew.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The stream's last sequence when reading began.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The next record; waits where there is none. A reconnect is a fault: the server forgot the
    /// reader, which the client would notice only after a while.
    pub async fn next(&mut self) -> Result<Stored, ModelFault> {
        let Next { sequence, pending, at, author, record } = self.next_readable_or_not().await?;
        Ok(Stored { sequence, record: record?, pending, at, author })
    }

    /// The same, with what follows a record that can't be read still to come.
    async fn next_readable_or_not(&mut self) -> Result<Next, ModelFault> {
        let next = tokio::select! {
            biased;
            next = self.messages.next() => next,
            Ok(()) = self.reconnects.changed() => return Err(server("the connection is new")),
        };
        let message = next.ok_or_else(|| server("the reader ended"))?.map_err(server)?;
        let (sequence, pending, at) = match message.info() {
            Ok(info) => {
                let at = Timestamp::from_nanos(info.published.unix_timestamp_nanos());
                (info.stream_sequence, info.pending, at.unwrap_or(Timestamp::EPOCH))
            }
            Err(error) => return Err(server(error)),
        };
        let header = |name| {
            let value = message.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(ToString::to_string)
        };
        let author = header(BY).map(|who| Author { who, request_id: header(REQUEST_ID) });
        let record = envelope::decode(&message.payload).map_err(|source| {
            let subject = message.subject.to_string();
            ModelFault::Unreadable { sequence, subject, source }
        });
        Ok(Next { sequence, pending, at, author, record })
    }
}

/// A record, or why it can't be read.
struct Next {
    sequence: u64,
    pending: u64,
    at: Timestamp,
    author: Option<Author>,
    record: Result<Record, ModelFault>,
}

/// Takes a record into the directory. One that can't be read is stepped over and noted: it must
/// not keep those behind it from who reads them.
fn take(directory: &mut Directory, sequence: u64, record: Result<Record, ModelFault>) {
    match record {
        Ok(record) => directory.apply(sequence, record),
        Err(fault) => {
            tracing::error!(%fault, "stepped over; a later release wrote it");
            if let ModelFault::Unreadable { subject, .. } = fault {
                directory.step_over(sequence, subject);
            }
        }
    }
}

/// Reads all of `MODEL` once.
pub async fn load(wire: &Wire) -> Result<Directory, ModelFault> {
    let mut directory = Directory::default();
    let mut reader = ModelReader::open(wire, 0).await?;
    let mut waiting = reader.waiting();
    while waiting > 0 {
        let Next { sequence, pending, record, .. } = reader.next_readable_or_not().await?;
        take(&mut directory, sequence, record);
        waiting = pending;
    }
    Ok(directory)
}

/// Longest wait until the directory that a process follows knows what `MODEL` holds.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Looks something up in `MODEL` as it is now: in the directory of this process, where it follows one,
/// else in all of it, read anew.
pub async fn look<T>(wire: &Wire, seen: impl FnOnce(&Directory) -> T) -> Result<T, ModelFault> {
    let Some(mut followed) = wire.model.clone() else { return Ok(seen(&load(wire).await?)) };
    // Not the stream's last sequence: that may be of a record that was deleted.
    let last = last_bytes(wire, "model.>").await?.map_or(0, |(sequence, _)| sequence);
    let known = tokio::time::timeout(CATCH_UP, followed.reached(last)).await;
    if !known.unwrap_or(false) {
        return Err(server(format!("this process does not know record {last} yet")));
    }
    Ok(seen(&followed.read()))
}

/// A directory that follows `MODEL`. Clones share it.
#[derive(Clone)]
pub struct Followed {
    directory: Arc<RwLock<Directory>>,
    changed: watch::Receiver<u64>,
}

impl Followed {
    /// Looks something up; no I/O. Do not hold the guard across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, Directory> {
        // `Directory::apply` can't panic half-way: a poisoned lock still guards a whole directory.
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the directory knows all that `MODEL` holds now, and so all that any other reader
    /// may have seen until now. Waits out outages; `false`: stopping.
    pub async fn caught_up(&mut self, wire: &Wire, patience: &Patience) -> bool {
        let mut pauses = Pauses::default();
        let last = loop {
            // Not the stream's last sequence: that may be of a record that was deleted.
            match last_bytes(wire, "model.>").await {
                Ok(last) => break last.map_or(0, |(sequence, _)| sequence),
                Err(fault) => {
                    if !patience.pause(&mut pauses, &fault.to_string()).await {
                        return false;
                    }
                }
            }
        };
        patience.moving();
        self.reached(last).await
    }

    /// Waits until the directory knows all up to a sequence; `false` where nobody follows any more.
    pub async fn reached(&mut self, sequence: u64) -> bool {
        while self.read().sequence() < sequence {
            if !self.changed().await {
                return false;
            }
        }
        true
    }

    /// Waits until something changed; `false` where nobody follows any more.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}

/// Loads `MODEL` and keeps following it in the background. Waits out outages; `None`: stopping.
pub async fn follow(wire: Wire, patience: Patience) -> Option<Followed> {
    let directory = Arc::new(RwLock::new(Directory::default()));
    let (news, changed) = watch::channel(0);
    let (loaded, mut is_loaded) = watch::channel(false);
    let followed = Followed { directory: directory.clone(), changed };
    let shutdown = patience.shutdown.clone();
    tokio::spawn(async move {
        let mut pauses = Pauses::default();
        loop {
            let fault = tokio::select! {
                () = patience.shutdown.cancelled() => return,
                fault = follow_once(&wire, &directory, &news, &loaded, &patience) => fault,
            };
            if !patience.pause(&mut pauses, &fault.to_string()).await {
                return;
            }
        }
    });
    tokio::select! {
        () = shutdown.cancelled() => None,
        loaded = is_loaded.wait_for(|loaded| *loaded) => loaded.is_ok().then_some(followed),
    }
}

/// Holds, by name, what the records that can't be read are about.
fn say_unreadable(directory: &Directory, patience: &Patience) {
    let what = format!("{}/unreadable", patience.what);
    let unreadable = directory.unreadable();
    if unreadable.is_empty() {
        patience.holds.release(&what);
        return;
    }
    let named: Vec<&str> = unreadable.keys().take(5).map(String::as_str).collect();
    let why = format!(
        "{} records of MODEL can't be read by this release ({}): update this service",
        unreadable.len(),
        named.join(", ")
    );
    patience.holds.hold(&what, &why, SystemClock.now());
}

async fn follow_once(
    wire: &Wire,
    directory: &RwLock<Directory>,
    news: &watch::Sender<u64>,
    loaded: &watch::Sender<bool>,
    patience: &Patience,
) -> ModelFault {
    let known = directory.read().unwrap_or_else(PoisonError::into_inner).sequence();
    let mut reader = match ModelReader::open(wire, known).await {
        Ok(reader) => reader,
        Err(fault) => return fault,
    };
    if reader.waiting() == 0 {
        patience.moving();
        loaded.send_replace(true);
    }
    loop {
        let Next { sequence, pending, record, .. } = match reader.next_readable_or_not().await {
            Ok(found) => found,
            Err(fault) => return fault,
        };
        patience.moving();
        let mut known = directory.write().unwrap_or_else(PoisonError::into_inner);
        take(&mut known, sequence, record);
        say_unreadable(&known, patience);
        drop(known);
        news.send_replace(sequence);
        if pending == 0 {
            loaded.send_replace(true);
        }
    }
}
