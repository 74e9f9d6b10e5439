//! Publishing: a message is sent again, under the same id, until the stream says yes.

use crate::{Wire, retry::Pauses};
use async_nats::{
    HeaderMap, HeaderValue,
    header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID},
    jetstream::{
        context::{PublishError, PublishErrorKind},
        stream::{DeleteMessageErrorKind, DirectGetErrorKind, LastRawMessageErrorKind},
    },
};
use bytes::Bytes;
use domain::{Clock, Holds, Proof, SystemClock, Timestamp};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// Header: the oldest acceptance (microseconds since 1970) among what a batch carries.
pub const OLDEST_ACCEPTED: &str = "Haystack-Oldest-Accepted";

/// A stream's yes: the message is on disk, fsynced (the servers are configured so).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fsynced {
    sequence: u64,
}

impl Fsynced {
    /// The message's sequence in its stream.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Proof for Fsynced {}

/// Why a message is not stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishFault {
    /// It may work later: the server is away, the stream full or missing, no answer came in time.
    /// The message may have been stored all the same.
    #[error("{0}")]
    Later(String),
    /// Somebody else wrote the subject first.
    #[error("the subject was written by somebody else in between")]
    Conflict,
    /// No retry helps.
    #[error("the message is larger than the server takes")]
    TooLarge,
}

/// A message for a stream.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Subject.
    pub subject: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub payload: Bytes,
}

impl Outgoing {
    /// A message with an id: whoever sends it twice within the stream's window stores it once.
    pub fn new(subject: impl Into<String>, id: &str, payload: Bytes) -> Self {
        let mut message = Self::without_id(subject, payload);
        message.headers.insert(NATS_MESSAGE_ID, id);
        message
    }

    /// A message without an id: sent twice, it is stored twice.
    pub fn without_id(subject: impl Into<String>, payload: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", crate::envelope::CONTENT_TYPE);
        Self { subject: subject.into(), headers, payload }
    }

    /// A message that is stored only where the subject's last sequence is `expected` (0: none).
    pub fn expecting(subject: impl Into<String>, expected: u64, payload: Bytes) -> Self {
        let mut message = Self::without_id(subject, payload);
        message.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        message
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Notes the oldest acceptance among what the batch carries.
    #[must_use]
    pub fn oldest_accepted(mut self, oldest: Option<Timestamp>) -> Self {
        if let Some(oldest) = oldest {
            self.headers.insert(OLDEST_ACCEPTED, oldest.micros().to_string());
        }
        self
    }
}

/// One attempt.
pub async fn publish(wire: &Wire, message: Outgoing) -> Result<Fsynced, PublishFault> {
    let Outgoing { subject, headers, payload } = message;
    let sent = wire.jetstream.publish_with_headers(subject, headers, payload).await;
    let acked = match sent {
        Ok(future) => future.await,
        Err(error) => Err(error),
    };
    acked.map(|ack| Fsynced { sequence: ack.sequence }).map_err(|error| fault(&error))
}

fn fault(error: &PublishError) -> PublishFault {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => PublishFault::Conflict,
        PublishErrorKind::MaxPayloadExceeded => PublishFault::TooLarge,
        PublishErrorKind::StreamNotFound => {
            PublishFault::Later("the stream does not exist (haystack migrate makes it)".to_owned())
        }
        PublishErrorKind::TimedOut => {
            PublishFault::Later("NATS does not answer in time".to_owned())
        }
        _ => {
            let source = std::error::Error::source(error);
            PublishFault::Later(source.map_or_else(|| error.to_string(), ToString::to_string))
        }
    }
}

/// Removes messages; those that are gone are no error.
pub async fn remove(wire: &Wire, stream: &str, sequences: &[u64]) -> Result<(), PublishFault> {
    let later = |error: String| PublishFault::Later(format!("{stream}: {error}"));
    let opened = wire.jetstream.get_stream_no_info(stream).await;
    let opened = opened.map_err(|error| later(error.to_string()))?;
    for sequence in sequences {
        match opened.delete_message(*sequence).await {
            Ok(_) => {}
            // The server has no message of that number (any more).
            Err(error) if matches!(error.kind(), DeleteMessageErrorKind::JetStream(_)) => {}
            Err(error) => return Err(later(error.to_string())),
        }
    }
    Ok(())
}

/// The last message of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Last {
    /// Its sequence.
    pub sequence: u64,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
}

/// Looks at the last message of a subject; `None` where there is none.
pub async fn last(wire: &Wire, stream: &str, subject: &str) -> Result<Option<Last>, PublishFault> {
    let later = |error: String| PublishFault::Later(error);
    let stream =
        wire.jetstream.get_stream_no_info(stream).await.map_err(|e| later(e.to_string()))?;
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            let headers = message.headers.iter().filter_map(|(name, values)| {
                Some((name.to_string(), values.first()?.as_str().to_owned()))
            });
            Ok(Some(Last { sequence: message.sequence, headers: headers.collect() }))
        }
        Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(later(error.to_string())),
    }
}

/// Looks at a subject's messages among the last `back` sequences before its last one, in order: `each`
/// gets the id (empty where there is none) and the body. One is in memory at a time.
pub async fn look_back(
    wire: &Wire,
    stream: &str,
    subject: &str,
    back: u64,
    mut each: impl FnMut(&str, &[u8]),
) -> Result<(), PublishFault> {
    let later = |error: String| PublishFault::Later(format!("{stream}: {error}"));
    let stream = wire.jetstream.get_stream_no_info(stream).await;
    let stream = stream.map_err(|error| later(error.to_string()))?;
    let last = match stream.direct_get_last_for_subject(subject).await {
        Ok(message) => message.sequence,
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(later(error.to_string())),
    };
    let mut next = last.saturating_sub(back).max(1);
    while next <= last {
        match stream.direct_get_next_for_subject(subject, Some(next)).await {
            Ok(message) => {
                next = message.sequence + 1;
                let id = message.headers.get(NATS_MESSAGE_ID);
                each(id.map(HeaderValue::as_str).unwrap_or_default(), &message.payload);
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => break,
            Err(error) => return Err(later(error.to_string())),
        }
    }
    Ok(())
}

/// The sequence of a subject's message of that id, where it was stored within `window` after `from`.
pub async fn find_by_id(
    wire: &Wire,
    stream: &str,
    subject: &str,
    id: &str,
    from: Timestamp,
    window: Duration,
) -> Result<Option<u64>, PublishFault> {
    let later = |error: String| PublishFault::Later(error);
    let stream = wire.jetstream.get_stream_no_info(stream).await;
    let stream = stream.map_err(|error| later(error.to_string()))?;
    let until = from.plus_micros(window.as_micros() as i64);
    // The server's clock gave the first time, ours the second: a step between them is looked over.
    let mut next = first_since(&stream, subject, from.plus_micros(-CLOCKS)).await?;
    while let Some(sequence) = next {
        match stream.direct_get_next_for_subject(subject, Some(sequence)).await {
            Ok(message) => {
                let same = message.headers.get(NATS_MESSAGE_ID).is_some_and(|it| it.as_str() == id);
                if same {
                    return Ok(Some(message.sequence));
                }
                let stored = Timestamp::from_nanos(message.time.unix_timestamp_nanos());
                next = stored.is_some_and(|at| at <= until).then_some(message.sequence + 1);
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(later(error.to_string())),
        }
    }
    Ok(None)
}

/// The first sequence of a subject whose message was stored at or after a moment; `None`: there is none.
pub async fn sequence_since(
    wire: &Wire,
    stream: &str,
    subject: &str,
    from: Timestamp,
) -> Result<Option<u64>, PublishFault> {
    let later = |error: String| PublishFault::Later(format!("{stream}: {error}"));
    let opened = wire.jetstream.get_stream_no_info(stream).await;
    let opened = opened.map_err(|error| later(error.to_string()))?;
    first_since(&opened, subject, from).await
}

/// The last sequence of a subject; 0 where there is none.
pub async fn last_sequence(wire: &Wire, stream: &str, subject: &str) -> Result<u64, PublishFault> {
    let later = |error: String| PublishFault::Later(format!("{stream}: {error}"));
    let opened = wire.jetstream.get_stream_no_info(stream).await;
    let opened = opened.map_err(|error| later(error.to_string()))?;
    match opened.direct_get_last_for_subject(subject).await {
        Ok(message) => Ok(message.sequence),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(0),
        Err(error) => Err(later(error.to_string())),
    }
}

/// How far the server's clock may be from ours, in microseconds.
const CLOCKS: i64 = 5_000_000;

/// The first sequence whose message was stored at or after a moment, by halving: a stream's times go up.
async fn first_since<I>(
    stream: &async_nats::jetstream::stream::Stream<I>,
    subject: &str,
    from: Timestamp,
) -> Result<Option<u64>, PublishFault> {
    let later = |error: String| PublishFault::Later(error);
    let last = match stream.direct_get_last_for_subject(subject).await {
        Ok(message) => message.sequence,
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(later(error.to_string())),
    };
    let (mut low, mut high) = (1, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match stream.direct_get_next_for_subject(subject, Some(middle)).await {
            Ok(message) => {
                let stored = Timestamp::from_nanos(message.time.unix_timestamp_nanos());
                if stored.is_some_and(|at| at >= from) {
                    high = middle;
                } else {
                    low = message.sequence + 1;
                }
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => high = middle,
            Err(error) => return Err(later(error.to_string())),
        }
    }
    Ok((low <= last).then_some(low))
}

/// Where retries report what they wait for.
#[derive(Clone)]
pub struct Patience {
    /// The process's holds.
    pub holds: Holds,
    /// What waits, e.g. `raw`.
    pub what: String,
    /// When to give up.
    pub shutdown: CancellationToken,
}

impl Patience {
    /// Notes the reason, logs it where it is news, waits a growing pause; `false`: stop.
    pub async fn pause(&self, pauses: &mut Pauses, why: &str) -> bool {
        if self.holds.hold(&self.what, why, SystemClock.now()) {
            tracing::warn!(what = self.what, why, "holding");
        }
        pauses.wait(&self.shutdown).await
    }

    /// Notes that it moves again.
    pub fn moving(&self) {
        if self.holds.release(&self.what) {
            tracing::info!(what = self.what, "flowing again");
        }
    }
}

/// The process is to stop before the stream said yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stopping")]
pub struct Stopped;

/// Publishes until the stream says yes, however long that takes. The message must bear an id: it
/// may be sent many times. What no retry helps (a server that takes no message of this size) is
/// held too, and said, until somebody changes the server.
pub async fn until_stored(
    wire: &Wire,
    message: Outgoing,
    patience: &Patience,
) -> Result<Fsynced, Stopped> {
    let mut pauses = Pauses::default();
    loop {
        match publish(wire, message.clone()).await {
            Ok(stored) => {
                patience.moving();
                return Ok(stored);
            }
            Err(fault) => {
                if !patience.pause(&mut pauses, &fault.to_string()).await {
                    return Err(Stopped);
                }
            }
        }
    }
}
