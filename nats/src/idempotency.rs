//! What was done under which `Idempotency-Key`, for a day.

use crate::{Wire, streams::IDEMPOTENCY};
use async_nats::jetstream::kv;
use domain::Timestamp;
use serde::{Deserialize, Serialize};

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// SHA-256 of the body that came with it first, in hexadecimal.
    pub body: String,
    /// When it came first.
    pub made_at: Timestamp,
    /// A number that was allocated for it.
    #[serde(default)]
    pub number: Option<i32>,
    /// When something was published for it, or was to be.
    #[serde(default)]
    pub tried: Vec<Timestamp>,
    /// The stream's sequence of what was published for it, once that is known.
    #[serde(default)]
    pub sequence: Option<u64>,
}

/// A key that somebody uses, and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// What is known of it.
    pub entry: Entry,
    /// The entry's revision.
    pub revision: u64,
    /// Whether nobody had used it.
    pub fresh: bool,
}

/// The bucket can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("idempotency keys: {0}")]
pub struct IdempotencyFault(String);

fn fault(error: impl std::fmt::Display) -> IdempotencyFault {
    IdempotencyFault(error.to_string())
}

/// Tries of a claim, each lost to somebody who wrote the same key.
const TRIES: usize = 5;

/// Takes a key for this entry, or gives what somebody took it for.
pub async fn claim(wire: &Wire, key: &str, entry: &Entry) -> Result<Claimed, IdempotencyFault> {
    let bucket = wire.jetstream.get_key_value(IDEMPOTENCY).await.map_err(fault)?;
    let body = serde_json::to_vec(entry).map_err(fault)?;
    for _ in 0..TRIES {
        if let Some(found) = bucket.entry(key).await.map_err(fault)?
            && found.operation == kv::Operation::Put
        {
            let entry = serde_json::from_slice(&found.value).map_err(fault)?;
            return Ok(Claimed { entry, revision: found.revision, fresh: false });
        }
        match bucket.create(key, body.clone().into()).await {
            Ok(revision) => return Ok(Claimed { entry: entry.clone(), revision, fresh: true }),
            Err(error) if error.kind() == kv::CreateErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault(error)),
        }
    }
    Err(fault("others were faster"))
}

/// Notes what became of it. Where somebody noted something meanwhile, that stays; what is noted then.
pub async fn note(wire: &Wire, key: &str, claimed: &Claimed) -> Result<Claimed, IdempotencyFault> {
    let bucket = wire.jetstream.get_key_value(IDEMPOTENCY).await.map_err(fault)?;
    let body = serde_json::to_vec(&claimed.entry).map_err(fault)?;
    match bucket.update(key, body.into(), claimed.revision).await {
        Ok(revision) => Ok(Claimed { revision, ..claimed.clone() }),
        Err(error) if error.kind() == kv::UpdateErrorKind::WrongLastRevision => {
            let found = bucket.entry(key).await.map_err(fault)?;
            let found = found.filter(|found| found.operation == kv::Operation::Put);
            let found = found.ok_or_else(|| fault("a key that was just there is gone"))?;
            let entry = serde_json::from_slice(&found.value).map_err(fault)?;
            Ok(Claimed { entry, revision: found.revision, fresh: false })
        }
        Err(error) => Err(fault(error)),
    }
}
