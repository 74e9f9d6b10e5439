//! Replays as they are kept: a record each in a bucket, written by compare-and-set, so that whoever works on
//! one and whoever stops it never overwrite each other.

use crate::{
    Wire,
    counter::{Counter, CounterFault, allocate, last},
    streams::REPLAYS,
};
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use domain::{replay::Replay, version::MAX_REVISION};

/// Why a replay can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    /// Somebody else wrote it in between.
    #[error("replay {0} was changed by somebody else in between")]
    Conflict(u16),
    /// All numbers are used.
    #[error("all {MAX_REVISION} numbers of replays are used: a row's version has no room for more")]
    NoNumber,
    /// The server is away or refuses.
    #[error("replays: {0}")]
    Server(String),
}

fn server(error: impl std::fmt::Display) -> ReplayFault {
    ReplayFault::Server(error.to_string())
}

impl From<CounterFault> for ReplayFault {
    fn from(fault: CounterFault) -> Self {
        server(fault)
    }
}

/// A replay and the revision of its record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The replay.
    pub replay: Replay,
    /// What a writer must expect.
    pub revision: u64,
}

async fn bucket(wire: &Wire) -> Result<Store, ReplayFault> {
    wire.jetstream.get_key_value(REPLAYS).await.map_err(server)
}

/// Begins a replay under a number of its own, which is filled in.
pub async fn begin(wire: &Wire, mut replay: Replay) -> Result<Kept, ReplayFault> {
    let number = allocate(wire, Counter::Revision, 1).await?.start;
    replay.id =
        u16::try_from(number).ok().filter(|id| *id <= MAX_REVISION).ok_or(ReplayFault::NoNumber)?;
    let body = serde_json::to_vec(&replay).map_err(server)?;
    let made = bucket(wire).await?.create(replay.id.to_string(), body.into()).await;
    made.map(|revision| Kept { replay, revision }).map_err(server)
}

/// One replay; `None`: there is none of that number.
pub async fn get(wire: &Wire, id: u16) -> Result<Option<Kept>, ReplayFault> {
    let found = bucket(wire).await?.entry(id.to_string()).await.map_err(server)?;
    let Some(found) = found.filter(|found| found.operation == Operation::Put) else {
        return Ok(None);
    };
    let replay = serde_json::from_slice(&found.value).map_err(server)?;
    Ok(Some(Kept { replay, revision: found.revision }))
}

/// Writes a replay where its record is as it was seen.
pub async fn put(wire: &Wire, kept: Kept) -> Result<Kept, ReplayFault> {
    let Kept { replay, revision } = kept;
    let body = serde_json::to_vec(&replay).map_err(server)?;
    let written = bucket(wire).await?.update(replay.id.to_string(), body.into(), revision).await;
    match written {
        Ok(revision) => Ok(Kept { replay, revision }),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
            Err(ReplayFault::Conflict(replay.id))
        }
        Err(error) => Err(server(error)),
    }
}

/// Tries of a change, each lost to the bridge that works on the replay.
const TRIES: u32 = 20;

/// Why a replay was not changed.
#[derive(Debug, thiserror::Error)]
pub enum NotSo {
    /// There is none of that number.
    #[error("there is no such replay; `haystack replay list` names them")]
    Gone,
    /// Where it stands forbids it.
    #[error("{0}")]
    Refused(String),
    /// It could not be read or written.
    #[error(transparent)]
    Fault(#[from] ReplayFault),
}

/// Changes a replay by what it is at that moment.
pub async fn change(
    wire: &Wire,
    id: u16,
    change: impl Fn(&mut Replay) -> Result<(), String>,
) -> Result<Replay, NotSo> {
    for _ in 0..TRIES {
        let mut kept = get(wire, id).await?.ok_or(NotSo::Gone)?;
        change(&mut kept.replay).map_err(NotSo::Refused)?;
        match put(wire, kept).await {
            Ok(kept) => return Ok(kept.replay),
            Err(ReplayFault::Conflict(_)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Err(ReplayFault::Conflict(id).into())
}

/// The number of the newest replay; 0 where there was none.
pub async fn newest(wire: &Wire) -> Result<u16, ReplayFault> {
    Ok(last(wire, Counter::Revision).await?.try_into().unwrap_or(MAX_REVISION).min(MAX_REVISION))
}
