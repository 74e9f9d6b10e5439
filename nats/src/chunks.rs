//! `CHUNKS`: parts of gateway transactions, and the records of their ends.
//!
//! Whoever follows the stream reads headers only: what tells parts apart stands there.

use crate::{
    Fsynced, PublishFault, Wire,
    consume::read_again,
    envelope,
    publish::{Outgoing, publish},
    streams::CHUNKS,
};
use async_nats::{
    HeaderMap,
    jetstream::{
        consumer::{DeliverPolicy, pull},
        stream::DirectGetErrorKind,
    },
};
use bytes::Bytes;
use domain::{
    DeviceId, OrgKey, Timestamp,
    chunk::{Digest, End, Facts, Name, PartAt},
    raw::RawMessage,
    subject::Subject,
};
use futures_util::StreamExt;
use tokio::sync::watch;

/// What tells a part apart: `total digest content received size`.
const PART: &str = "Haystack-Part";
/// Marks an end that is done.
const DONE: &str = "Haystack-Done";
const NONE: &str = "-";

fn subject(name: &Name, index: Option<u32>) -> String {
    Subject::Chunk {
        org: name.org.to_string(),
        gateway: name.gateway.to_string(),
        transaction: name.transaction.clone(),
        index,
    }
    .to_string()
}

/// A part, for the stream. `id` must not repeat.
pub fn part(
    name: &Name,
    index: u32,
    facts: &Facts,
    message: &RawMessage<'_>,
    id: &str,
) -> Outgoing {
    let digest = facts.digest.map_or(NONE.to_owned(), |digest| digest.to_string());
    let (received, size) = (message.received_at.micros(), message.payload.len());
    let told = format!("{} {digest} {} {received} {size}", facts.total, facts.content);
    Outgoing::new(subject(name, Some(index)), id, envelope::encode(message)).header(PART, &told)
}

/// A message of `CHUNKS`, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its sequence.
    pub sequence: u64,
    /// What it is; `None`: nothing of ours.
    pub what: Option<What>,
    /// How many more are known to follow at once.
    pub pending: u64,
}

/// What a message of `CHUNKS` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A part.
    Part {
        /// Whose.
        name: Name,
        /// Its number and sequence.
        at: PartAt,
        /// What tells it apart.
        facts: Facts,
        /// Bytes of its payload.
        bytes: usize,
        /// When it was received.
        received_at: Timestamp,
    },
    /// The record of an end; its body says more.
    End(Name),
    /// The mark that an end is done.
    Done(Name),
}

/// Reads `CHUNKS` in order, from its beginning and for ever.
pub struct ChunkReader {
    messages: pull::Ordered,
    waiting: u64,
    reconnects: watch::Receiver<u64>,
}

fn later(error: impl std::fmt::Display) -> PublishFault {
    PublishFault::Later(format!("CHUNKS: {error}"))
}

impl ChunkReader {
    /// Starts at the beginning.
    pub async fn open(wire: &Wire) -> Result<Self, PublishFault> {
        let mut reconnects = wire.reconnects.clone();
        reconnects.mark_unchanged();
        let stream = wire.jetstream.get_stream(CHUNKS).await.map_err(later)?;
        let config = pull::OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            headers_only: true,
            ..pull::OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(later)?;
        let waiting = consumer.cached_info().num_pending;
        let messages = consumer.messages().await.map_err(later)?;
        Ok(Self { messages, waiting, reconnects })
    }

    /// Messages that waited when reading began.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The next message; waits where there is none. A reconnect is a fault: the server forgot the
    /// reader.
    pub async fn next(&mut self) -> Result<Found, PublishFault> {
        let next = tokio::select! {
            biased;
            next = self.messages.next() => next,
            Ok(()) = self.reconnects.changed() => return Err(later("the connection is new")),
        };
        let message = next.ok_or_else(|| later("the reader ended"))?.map_err(later)?;
        let info = message.info().map_err(later)?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        let what = what(&message.subject, message.headers.as_ref(), sequence);
        Ok(Found { sequence, what, pending })
    }
}

fn what(subject: &str, headers: Option<&HeaderMap>, sequence: u64) -> Option<What> {
    let Subject::Chunk { org, gateway, transaction, index } = Subject::parse(subject)? else {
        return None;
    };
    let (org, gateway) = (OrgKey::parse(&org).ok()?, DeviceId::parse(&gateway).ok()?);
    let name = Name { org, gateway, transaction };
    let header = |name: &str| Some(headers?.get(name)?.as_str());
    let Some(index) = index else {
        let done = header(DONE).is_some();
        return Some(if done { What::Done(name) } else { What::End(name) });
    };
    let mut told = header(PART)?.split(' ');
    let total = told.next()?.parse().ok()?;
    let digest = match told.next()? {
        NONE => None,
        digest => Some(Digest::parse(digest)?),
    };
    let facts = Facts { total, digest, content: Digest::parse(told.next()?)? };
    let received_at = Timestamp::from_micros(told.next()?.parse().ok()?)?;
    let bytes = told.next()?.parse().ok()?;
    Some(What::Part { name, at: PartAt { index, sequence }, facts, bytes, received_at })
}

/// Reads the record of an end; `None`: it is gone.
pub async fn read_end(wire: &Wire, sequence: u64) -> Result<Option<End>, PublishFault> {
    let body = read_again(wire, CHUNKS, sequence).await?;
    body.map(|body| envelope::decode(&body).map_err(later)).transpose()
}

/// The body of a part ([`RawMessage`]); `None`: it is gone.
pub async fn read_part(wire: &Wire, sequence: u64) -> Result<Option<Bytes>, PublishFault> {
    read_again(wire, CHUNKS, sequence).await
}

/// The sequence of the last message that is there; 0: none.
pub async fn last_sequence(wire: &Wire) -> Result<u64, PublishFault> {
    let stream = wire.jetstream.get_stream_no_info(CHUNKS).await.map_err(later)?;
    match stream.direct_get_last_for_subject("chunk.>").await {
        Ok(message) => Ok(message.sequence),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(0),
        Err(error) => Err(later(error)),
    }
}

/// Writes the record of an end, where there is none.
pub async fn write_end(wire: &Wire, name: &Name, end: &End) -> Result<Fsynced, PublishFault> {
    let body = envelope::encode_named(end);
    publish(wire, Outgoing::expecting(subject(name, None), 0, body)).await
}

/// Marks the end at that sequence as done. A conflict: somebody else did.
pub async fn mark_done(wire: &Wire, name: &Name, sequence: u64) -> Result<Fsynced, PublishFault> {
    let mark = Outgoing::expecting(subject(name, None), sequence, Bytes::new());
    publish(wire, mark.header(DONE, &sequence.to_string())).await
}

/// Removes the parts that an end names. What is not older than the newest of them stays: parts of
/// one name that belong to different ends do not overlap.
pub async fn remove_parts(wire: &Wire, name: &Name, end: &End) -> Result<(), PublishFault> {
    let Some(last) = end.sequences().max() else { return Ok(()) };
    let stream = wire.jetstream.get_stream_no_info(CHUNKS).await.map_err(later)?;
    // The token of the part's number, whatever it is; the end itself is younger.
    let all = subject(name, None);
    let all = format!("{}.*", all.rsplit_once('.').map_or("", |(head, _)| head));
    stream.purge().filter(all).sequence(last + 1).await.map(drop).map_err(later)
}
