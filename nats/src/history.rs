//! What a stream holds, read in order by nobody's consumer.

use crate::{Wire, model::ModelFault};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use bytes::Bytes;
use domain::{Position, Timestamp};
use futures_util::StreamExt;
use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

/// A server that delivers nothing for so long is away.
const SILENCE: Duration = Duration::from_secs(30);

/// A message as it stands in its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub position: Position,
    /// Its subject.
    pub subject: String,
    /// Its headers; of one that is there several times, the first.
    pub headers: BTreeMap<String, String>,
    /// Its body; empty where only headers were asked for.
    pub body: Bytes,
}

/// Which messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range<'a> {
    /// Of which stream.
    pub stream: &'a str,
    /// On which subjects.
    pub filter: &'a str,
    /// From this sequence on.
    pub first: u64,
    /// Up to this one.
    pub last: u64,
    /// Without their bodies.
    pub headers_only: bool,
}

/// Reads messages in their order until `each` has enough.
pub async fn read(
    wire: &Wire,
    range: &Range<'_>,
    mut each: impl FnMut(Stored) -> ControlFlow<()>,
) -> Result<(), ModelFault> {
    let server = |error: String| ModelFault::Server(format!("{}: {error}", range.stream));
    let stream = wire.jetstream.get_stream_no_info(range.stream).await;
    let stream = stream.map_err(|error| server(error.to_string()))?;
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: range.first.max(1) },
        filter_subject: range.filter.to_owned(),
        headers_only: range.headers_only,
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| server(error.to_string()))?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.map_err(|error| server(error.to_string()))?;
    while left > 0 {
        let next = tokio::time::timeout(SILENCE, messages.next()).await;
        let next = next.map_err(|_| server("it delivers nothing".to_owned()))?;
        let Some(message) = next else { break };
        let message = message.map_err(|error| server(error.to_string()))?;
        let info = message.info().map_err(|error| server(error.to_string()))?;
        left = info.pending;
        let sequence = info.stream_sequence;
        if sequence > range.last {
            break;
        }
        let stored_at = Timestamp::from_nanos(info.published.unix_timestamp_nanos());
        let position = Position { sequence, stored_at: stored_at.unwrap_or(Timestamp::EPOCH) };
        let headers = message.headers.iter().flat_map(|headers| headers.iter());
        let headers = headers.filter_map(|(name, values)| {
            Some((name.to_string(), values.first()?.as_str().to_owned()))
        });
        let headers = headers.collect();
        let (subject, body) = (message.subject.to_string(), message.message.payload);
        if each(Stored { position, subject, headers, body }).is_break() {
            break;
        }
    }
    Ok(())
}

/// The first message of a stream on a subject, and whether none was ever taken out of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// Where the first message stands; `None`: there is none.
    pub first: Option<Position>,
    /// The stream's last sequence.
    pub last: u64,
    /// Nothing was ever taken out of the stream.
    pub whole: bool,
    /// When the stream was made.
    pub created: Timestamp,
}

/// When a stream was made.
pub async fn made(wire: &Wire, stream: &str) -> Result<Timestamp, ModelFault> {
    let found = wire.jetstream.get_stream(stream).await;
    let found = found.map_err(|error| ModelFault::Server(format!("{stream}: {error}")))?;
    let nanos = found.cached_info().created.unix_timestamp_nanos();
    Ok(Timestamp::from_nanos(nanos).unwrap_or(Timestamp::EPOCH))
}

/// Looks how far back a stream goes on a subject.
pub async fn beginning(wire: &Wire, stream: &str, filter: &str) -> Result<Beginning, ModelFault> {
    let server = |error: String| ModelFault::Server(format!("{stream}: {error}"));
    let found = wire.jetstream.get_stream(stream).await;
    let found = found.map_err(|error| server(error.to_string()))?;
    let state = &found.cached_info().state;
    let whole = state.first_sequence <= 1 && state.deleted_count.unwrap_or(0) == 0;
    let created = found.cached_info().created.unix_timestamp_nanos();
    let created = Timestamp::from_nanos(created).unwrap_or(Timestamp::MAX);
    let mut first = None;
    let range = Range { stream, filter, first: 1, last: u64::MAX, headers_only: true };
    read(wire, &range, |message| {
        first = Some(message.position);
        ControlFlow::Break(())
    })
    .await?;
    Ok(Beginning { first, last: state.last_sequence, whole, created })
}
