//! Announcements of what a target did with messages of `TELEMETRY`, by sequence. They are not
//! stored: whoever waits for one falls back on the consumer's position.

use crate::{
    Wire, envelope,
    inspect::{ConsumerState, ingest_consumer, is_missing},
    model::ModelFault,
    publish::{PublishFault, look_back},
    streams::{DEAD, TELEMETRY},
};
use async_nats::{Subscriber, jetstream::stream::DirectGetErrorKind};
use domain::{Letter, OrgKey, Stage, TargetName, Timestamp, subject::Subject};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

/// Letters that are looked at, at most, to find those about one message.
const LETTERS_BACK: u64 = 2_000;

/// What became of some messages in one target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Every row is committed (or was superseded).
    pub committed: Vec<u64>,
    /// At least one row was set aside; the rest is committed.
    pub dead: Vec<u64>,
}

/// Announces an outcome; a lost announcement costs its waiter a look at the consumer.
pub async fn announce(wire: &Wire, target: &TargetName, org: &OrgKey, outcome: &Outcome) {
    let subject = Subject::Outcome { target: target.to_string(), org: org.to_string() };
    let Ok(body) = rmp_serde::to_vec(outcome) else { return };
    let _ = wire.client.publish(subject.to_string(), body.into()).await;
}

/// Reads an announcement.
pub fn read(body: &[u8]) -> Result<Outcome, rmp_serde::decode::Error> {
    rmp_serde::from_slice(body)
}

/// Hears what one target announces.
pub struct Announcements(Subscriber);

impl Announcements {
    /// Listens from now on.
    pub async fn of(wire: &Wire, target: &TargetName) -> Result<Self, ModelFault> {
        let subject = format!("outcome.{}.*", domain::subject::encode(target.as_str()));
        let heard = wire.client.subscribe(subject).await;
        heard.map(Self).map_err(|error| ModelFault::Server(error.to_string()))
    }

    /// The next one; `None` where the connection is closed.
    pub async fn next(&mut self) -> Option<Outcome> {
        loop {
            let message = self.0.next().await?;
            if let Ok(outcome) = read(&message.payload) {
                return Some(outcome);
            }
        }
    }
}

/// How far a target is with an org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Everything up to this sequence is done.
    pub done: u64,
    /// When the oldest message was stored that is not done; `None` where all are.
    pub waiting_since: Option<Timestamp>,
}

/// Asks how far a target is with an org. `None`: it has not begun with it.
pub async fn position(
    wire: &Wire,
    target: &TargetName,
    org: &OrgKey,
) -> Result<Option<Position>, ModelFault> {
    let server = |error: String| ModelFault::Server(error);
    let stream = wire.jetstream.get_stream_no_info(TELEMETRY).await;
    let stream = stream.map_err(|error| server(error.to_string()))?;
    let info = match stream.consumer_info(ingest_consumer(target, org)).await {
        Ok(info) => info,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(server(error.to_string())),
    };
    let state = ConsumerState::new(&info);
    if state.lag() == 0 {
        return Ok(Some(Position { done: state.done, waiting_since: None }));
    }
    let filter = domain::subject::telemetry_of(org);
    let next = stream.direct_get_next_for_subject(filter, Some(state.done + 1)).await;
    let waiting_since = match next {
        Ok(message) => Timestamp::from_nanos(message.time.unix_timestamp_nanos()),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => None,
        Err(error) => return Err(server(error.to_string())),
    };
    Ok(Some(Position { done: state.done, waiting_since }))
}

/// Letters of a target about one message of an org, published by `producer`.
pub async fn letters_about(
    wire: &Wire,
    target: &TargetName,
    org: &OrgKey,
    producer: &str,
    sequence: u64,
) -> Result<Vec<Letter>, PublishFault> {
    let subject = Subject::Dead {
        stage: Stage::Ingest.as_str().to_owned(),
        org: Some(org.to_string()),
        source: producer.to_owned(),
    };
    let mut letters = Vec::new();
    look_back(wire, DEAD, &subject.to_string(), LETTERS_BACK, |_, body| {
        let letter = envelope::decode::<Letter>(body).ok();
        let about = |letter: &Letter| {
            letter.source.sequence == sequence && letter.target.as_ref() == Some(target)
        };
        letters.extend(letter.filter(about));
    })
    .await?;
    Ok(letters)
}
