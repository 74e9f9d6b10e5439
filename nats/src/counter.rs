//! Numbers that are allocated once and never used again, by compare-and-set beside `MODEL`.

use crate::{Wire, streams::COUNTERS};
use async_nats::jetstream::kv::CreateErrorKind;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Attempts before a crowded counter gives up; each loses only to somebody who won.
const MAX_ATTEMPTS: usize = 100;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Org ids.
    Org,
    /// Entity ids.
    Entity,
    /// Poller ids, and so simulators'.
    Poller,
    /// User ids.
    User,
    /// Asset ids.
    Asset,
    /// Replays' numbers, which are revisions.
    Revision,
    /// Jobs' numbers.
    Job,
}

impl Counter {
    fn key(self) -> &'static str {
        match self {
            Self::Org => "org",
            Self::Entity => "entity",
            Self::Poller => "poller",
            Self::User => "user",
            Self::Asset => "asset",
            Self::Revision => "revision",
            Self::Job => "job",
        }
    }
}

/// Why no number was allocated.
#[derive(Debug, thiserror::Error)]
#[error("can't allocate {0:?} ids: {1}")]
pub struct CounterFault(Counter, String);

/// Allocates `count` numbers in a row, the first ever being 1. A crash after this leaves a gap.
pub async fn allocate(
    wire: &Wire,
    counter: Counter,
    count: u32,
) -> Result<Range<i32>, CounterFault> {
    let fault = |why: String| CounterFault(counter, why);
    let store = wire.jetstream.get_key_value(COUNTERS).await.map_err(|e| fault(e.to_string()))?;
    for _ in 0..MAX_ATTEMPTS {
        let entry = store.entry(counter.key()).await.map_err(|e| fault(e.to_string()))?;
        let (last, revision) = match &entry {
            Some(entry) => (parse(&entry.value).map_err(fault)?, entry.revision),
            None => (0, 0),
        };
        let next = i32::try_from(i64::from(last) + i64::from(count))
            .map_err(|_| fault("all of them are used".to_owned()))?;
        let value = next.to_string().into();
        let written = store.update(counter.key(), value, revision).await;
        match written {
            Ok(_) => return Ok(last + 1..next + 1),
            Err(error)
                if error.kind()
                    == async_nats::jetstream::kv::UpdateErrorKind::WrongLastRevision => {}
            Err(error) => return Err(fault(error.to_string())),
        }
    }
    Err(fault(format!("{MAX_ATTEMPTS} others were faster")))
}

/// The last number that was allocated; 0: none.
pub async fn last(wire: &Wire, counter: Counter) -> Result<i32, CounterFault> {
    let fault = |why: String| CounterFault(counter, why);
    let store = wire.jetstream.get_key_value(COUNTERS).await.map_err(|e| fault(e.to_string()))?;
    let value = store.get(counter.key()).await.map_err(|e| fault(e.to_string()))?;
    value.map_or(Ok(0), |value| parse(&value).map_err(fault))
}

/// The number that belongs to a name: allocated by whoever asks first, and given to all who ask again.
pub async fn claim(wire: &Wire, counter: Counter, name: &str) -> Result<i32, CounterFault> {
    let fault = |why: String| CounterFault(counter, why);
    let store = wire.jetstream.get_key_value(COUNTERS).await.map_err(|e| fault(e.to_string()))?;
    let digest = Sha256::digest(name);
    let key = format!("{}.{digest:x}", counter.key());
    if let Some(value) = store.get(&key).await.map_err(|e| fault(e.to_string()))? {
        return parse(&value).map_err(fault);
    }
    let number = allocate(wire, counter, 1).await?.start;
    match store.create(&key, number.to_string().into()).await {
        Ok(_) => Ok(number),
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
            let value = store.get(&key).await.map_err(|e| fault(e.to_string()))?;
            let value = value.ok_or_else(|| fault(format!("{key} is gone")))?;
            parse(&value).map_err(fault)
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

fn parse(value: &[u8]) -> Result<i32, String> {
    let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    text.parse().map_err(|_| format!("the counter holds {text:?}, not a number"))
}
