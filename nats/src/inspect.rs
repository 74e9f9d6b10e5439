//! How full streams are, how far consumers are, and what is on its way.

use crate::{
    Wire, envelope,
    model::ModelFault,
    publish::OLDEST_ACCEPTED,
    streams::{RAW, TELEMETRY},
};
use async_nats::jetstream::{
    consumer::{DeliverPolicy, Info, pull},
    context::{ConsumerInfoError, ConsumerInfoErrorKind},
    stream,
};
use domain::{Letter, OrgKey, TargetName, Timestamp};
use futures_util::{StreamExt, TryStreamExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages looked back to learn how fast a stream fills.
const RATE_MESSAGES: u64 = 10_000;
/// Messages of fewer seconds than this tell no rate.
const SHORTEST_SPAN: f64 = 60.0;
/// The consumer that normalizes `RAW`.
pub const NORMALIZE: &str = "normalize";

/// The name of the consumer that brings one org into one target.
pub fn ingest_consumer(target: &TargetName, org: &OrgKey) -> String {
    format!("ingest-{target}-{org}")
}

/// The name of the consumer that brings device messages as they came into one target.
pub fn archive_consumer(target: &TargetName) -> String {
    format!("archive-{target}")
}

/// A stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    /// Its name.
    pub name: String,
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes it may hold.
    pub max_bytes: u64,
    /// When its last message was stored.
    pub last_at: Option<Timestamp>,
    /// Bytes a second that came in over its last messages; `None` where too few tell.
    pub bytes_per_second: Option<f64>,
}

impl StreamState {
    /// How full it is, 0 to 1.
    pub fn fill(&self) -> f64 {
        if self.max_bytes == 0 { 0.0 } else { self.bytes as f64 / self.max_bytes as f64 }
    }

    /// How long, at its present rate, until it refuses where so many of its bytes are still needed by
    /// somebody who is away: what is not needed makes room.
    pub fn horizon(&self, needed: u64) -> Option<Duration> {
        let rate = self.bytes_per_second.filter(|rate| *rate > 0.0)?;
        Duration::try_from_secs_f64(self.max_bytes.saturating_sub(needed) as f64 / rate).ok()
    }
}

fn server(error: impl std::fmt::Display) -> ModelFault {
    ModelFault::Server(error.to_string())
}

fn last_at(info: &stream::Info) -> Option<Timestamp> {
    let nanos = info.state.last_timestamp.unix_timestamp_nanos();
    Timestamp::from_nanos(nanos).filter(|_| info.state.last_sequence > 0)
}

/// Looks at one stream.
pub async fn stream(wire: &Wire, name: &str) -> Result<StreamState, ModelFault> {
    let stream = wire.jetstream.get_stream(name).await.map_err(server)?;
    let info = stream.cached_info().clone();
    let bytes_per_second = rate(&stream, &info).await;
    Ok(StreamState {
        name: name.to_owned(),
        messages: info.state.messages,
        bytes: info.state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(0),
        last_at: last_at(&info),
        bytes_per_second,
    })
}

async fn rate(stream: &stream::Stream, info: &stream::Info) -> Option<f64> {
    let state = &info.state;
    let first = state.first_sequence.max(state.last_sequence.saturating_sub(RATE_MESSAGES));
    if state.messages < 2 || first >= state.last_sequence {
        return None;
    }
    let earlier = stream.get_raw_message(first).await.ok()?;
    let nanos = state.last_timestamp.unix_timestamp_nanos() - earlier.time.unix_timestamp_nanos();
    let seconds = nanos as f64 / 1e9;
    let each = state.bytes as f64 / state.messages as f64;
    (seconds >= SHORTEST_SPAN).then(|| each * (state.last_sequence - first) as f64 / seconds)
}

/// A consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// Its name.
    pub name: String,
    /// Messages not delivered yet.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub unacknowledged: u64,
    /// Of those, delivered more than once.
    pub redelivered: u64,
    /// Everything up to this sequence is done.
    pub done: u64,
    /// The last sequence that was delivered.
    pub delivered: u64,
}

impl ConsumerState {
    pub(crate) fn new(info: &Info) -> Self {
        Self {
            name: info.name.clone(),
            pending: info.num_pending,
            unacknowledged: info.num_ack_pending as u64,
            redelivered: info.num_redelivered as u64,
            done: info.ack_floor.stream_sequence,
            delivered: info.delivered.stream_sequence,
        }
    }

    /// Messages that are not done.
    pub fn lag(&self) -> u64 {
        self.pending + self.unacknowledged
    }
}

/// The durable consumers of a stream, by name.
pub async fn consumers(
    wire: &Wire,
    stream: &str,
) -> Result<BTreeMap<String, ConsumerState>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
    let infos: Vec<Info> = stream.consumers().try_collect().await.map_err(server)?;
    let mut consumers = BTreeMap::new();
    for info in infos.iter().filter(|info| info.config.durable_name.is_some()) {
        let mut state = ConsumerState::new(info);
        // The server lists a consumer before it has counted what waits for it.
        if state.pending == 0 && info.delivered.consumer_sequence == 0 {
            state.pending = count(&stream, &info.config.filter_subject).await?;
        }
        consumers.insert(info.name.clone(), state);
    }
    Ok(consumers)
}

/// One durable consumer of a stream; `None`: there is none of that name. It needs no right to list all.
pub async fn consumer(
    wire: &Wire,
    stream: &str,
    name: &str,
) -> Result<Option<ConsumerState>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
    match stream.consumer_info(name).await {
        Ok(info) => Ok(Some(ConsumerState::new(&info))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(server(error)),
    }
}

/// Whether an error says that there is no such consumer.
pub(crate) fn is_missing(error: &ConsumerInfoError) -> bool {
    match error.kind() {
        ConsumerInfoErrorKind::NotFound => true,
        ConsumerInfoErrorKind::JetStream(error) => error.code() == 404,
        _ => false,
    }
}

/// Messages of a stream on the subjects that a filter takes; an empty filter takes all.
async fn count<I>(stream: &stream::Stream<I>, filter: &str) -> Result<u64, ModelFault> {
    let filter = if filter.is_empty() { ">" } else { filter };
    let subjects = stream.info_with_subjects(filter).await.map_err(server)?;
    let add = |sum: u64, (_, messages): (String, usize)| async move { Ok(sum + messages as u64) };
    subjects.try_fold(0, add).await.map_err(server)
}

/// Letters by subject, e.g. `dead.normalize._.TS-1`.
pub async fn letters(wire: &Wire) -> Result<BTreeMap<String, usize>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(crate::streams::DEAD).await.map_err(server)?;
    let mut subjects = stream.info_with_subjects("dead.>").await.map_err(server)?;
    let mut letters = BTreeMap::new();
    while let Some((subject, count)) = subjects.try_next().await.map_err(server)? {
        // What was dropped is on record, and no letter any more.
        if domain::letter::is_filed(&subject) {
            letters.insert(subject, count);
        }
    }
    Ok(letters)
}

/// The last letter of a subject; `None` where there is none, or none that can be read.
pub async fn last_letter(wire: &Wire, subject: &str) -> Result<Option<Letter>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(crate::streams::DEAD).await.map_err(server)?;
    let last = stream.get_last_raw_message_by_subject(subject).await.ok();
    Ok(last.and_then(|message| envelope::decode(&message.payload).ok()))
}

/// The last news of a subject; `None` where there is none that can be read.
pub async fn last_event<T: envelope::Schema + serde::de::DeserializeOwned>(
    wire: &Wire,
    subject: &str,
) -> Result<Option<T>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(crate::streams::EVENTS).await;
    let last = stream.map_err(server)?.get_last_raw_message_by_subject(subject).await.ok();
    Ok(last.and_then(|message| envelope::decode(&message.payload).ok()))
}

/// The oldest acceptance among everything that some target has not applied yet; `None` where
/// nothing is on its way. A target without a consumer for an org has applied nothing of it.
pub async fn oldest_in_flight(
    wire: &Wire,
    targets: &[TargetName],
    orgs: &[OrgKey],
) -> Result<Option<Timestamp>, ModelFault> {
    // In the order of the pipeline: what leaves one hop meanwhile is seen at the next.
    let normalize = consumers(wire, RAW).await?;
    let done = normalize.get(NORMALIZE).map_or(0, |consumer| consumer.done);
    let mut oldest = oldest_after(wire, RAW, "raw.>", done).await?;
    let ingest = consumers(wire, TELEMETRY).await?;
    for org in orgs {
        let done = targets.iter().map(|target| {
            ingest.get(&ingest_consumer(target, org)).map_or(0, |consumer| consumer.done)
        });
        let slowest = done.min().unwrap_or(0);
        let filter = domain::subject::telemetry_of(org);
        let found = oldest_after(wire, TELEMETRY, &filter, slowest).await?;
        oldest = oldest.into_iter().chain(found).min();
    }
    Ok(oldest)
}

/// Reads the headers of what follows `done` and gives the oldest acceptance.
async fn oldest_after(
    wire: &Wire,
    stream: &str,
    filter: &str,
    done: u64,
) -> Result<Option<Timestamp>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: done + 1 },
        filter_subject: filter.to_owned(),
        headers_only: true,
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(server)?;
    let mut left = consumer.cached_info().num_pending;
    let mut messages = consumer.messages().await.map_err(server)?;
    let mut oldest = None;
    while left > 0 {
        let Some(message) = messages.next().await else { break };
        let message = message.map_err(server)?;
        let info = message.info().map_err(server)?;
        left = info.pending;
        let noted = message.headers.as_ref().and_then(|headers| headers.get(OLDEST_ACCEPTED));
        let noted = noted.and_then(|value| value.as_str().parse().ok());
        let stored = Timestamp::from_nanos(info.published.unix_timestamp_nanos());
        let accepted = noted.and_then(Timestamp::from_micros).or(stored);
        oldest = oldest.into_iter().chain(accepted).min();
    }
    Ok(oldest)
}

/// Whether the server fsyncs each message before it says yes. Asks the system account: `wire` must
/// be connected as its user (`doctor`).
pub async fn syncs_always(wire: &Wire) -> Result<bool, ModelFault> {
    let asked = wire.client.request("$SYS.REQ.SERVER.PING.JSZ", "".into()).await;
    let answer: serde_json::Value =
        serde_json::from_slice(&asked.map_err(server)?.payload).map_err(server)?;
    let always = answer.pointer("/data/config/sync_always");
    Ok(always.and_then(serde_json::Value::as_bool).unwrap_or(false))
}

/// The server's clock; `None` where its answer bears no time.
pub async fn server_time(wire: &Wire) -> Result<Option<Timestamp>, ModelFault> {
    let subject = format!("STREAM.INFO.{}", crate::streams::MODEL);
    let answer: serde_json::Value = wire.jetstream.request(subject, &()).await.map_err(server)?;
    let text = answer.pointer("/ts").and_then(serde_json::Value::as_str);
    Ok(text.and_then(Timestamp::parse_rfc3339))
}
