//! Long work as it is kept: a numbered record each in a bucket, written by compare-and-set, so that whoever works on
//! one and whoever stops it never overwrite each other.

use crate::{
    Wire,
    counter::{Counter, CounterFault, allocate, last},
};
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use domain::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

/// A kind of record.
pub trait Record: Serialize + DeserializeOwned + Clone + Send {
    /// What people call it.
    const NAME: &str;
    /// Where it is kept.
    const BUCKET: &str;
    /// Where its numbers come from.
    const COUNTER: Counter;
    /// The last number that it may have.
    const MOST: u32;

    /// Its number.
    fn number(&self) -> u32;
    /// Gives it its number.
    fn set_number(&mut self, number: u32);
    /// Nothing is left to do, and nobody can make it go on.
    fn is_over(&self) -> bool;
    /// Takes it for a worker; `false`: somebody works on it, or nobody is to.
    fn take(&mut self, worker: &str, now: Timestamp) -> bool;
}

/// Why a record can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordFault {
    /// Somebody else wrote it in between.
    #[error("{0} {1} was changed by somebody else in between")]
    Conflict(&'static str, u32),
    /// All numbers are used.
    #[error("all {1} numbers of {0}s are used")]
    NoNumber(&'static str, u32),
    /// The server is away or refuses.
    #[error("{0}s: {1}")]
    Server(&'static str, String),
}

fn server<R: Record>(error: impl std::fmt::Display) -> RecordFault {
    RecordFault::Server(R::NAME, error.to_string())
}

/// A record and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<R> {
    /// The record.
    pub record: R,
    /// What a writer must expect.
    pub revision: u64,
}

async fn bucket<R: Record>(wire: &Wire) -> Result<Store, RecordFault> {
    wire.jetstream.get_key_value(R::BUCKET).await.map_err(server::<R>)
}

/// Keeps a new one under a number of its own, which is filled in.
pub async fn begin<R: Record>(wire: &Wire, mut record: R) -> Result<Kept<R>, RecordFault> {
    let allocated: Result<_, CounterFault> = allocate(wire, R::COUNTER, 1).await;
    let number = allocated.map_err(server::<R>)?.start;
    let number = u32::try_from(number).ok().filter(|number| *number <= R::MOST);
    record.set_number(number.ok_or(RecordFault::NoNumber(R::NAME, R::MOST))?);
    let body = serde_json::to_vec(&record).map_err(server::<R>)?;
    let made = bucket::<R>(wire).await?.create(record.number().to_string(), body.into()).await;
    made.map(|revision| Kept { record, revision }).map_err(server::<R>)
}

/// One of them; `None`: there is none of that number, or a later release wrote it.
pub async fn get<R: Record>(wire: &Wire, number: u32) -> Result<Option<Kept<R>>, RecordFault> {
    let found = bucket::<R>(wire).await?.entry(number.to_string()).await.map_err(server::<R>)?;
    let Some(found) = found.filter(|found| found.operation == Operation::Put) else {
        return Ok(None);
    };
    match serde_json::from_slice(&found.value) {
        Ok(record) => Ok(Some(Kept { record, revision: found.revision })),
        Err(error) => {
            // Of a later release: it is that one's to do.
            tracing::debug!(what = R::NAME, number, %error, "a record can't be read");
            Ok(None)
        }
    }
}

/// Writes one where it is as it was seen.
pub async fn put<R: Record>(wire: &Wire, kept: Kept<R>) -> Result<Kept<R>, RecordFault> {
    let Kept { record, revision } = kept;
    let body = serde_json::to_vec(&record).map_err(server::<R>)?;
    let key = record.number().to_string();
    match bucket::<R>(wire).await?.update(key, body.into(), revision).await {
        Ok(revision) => Ok(Kept { record, revision }),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
            Err(RecordFault::Conflict(R::NAME, record.number()))
        }
        Err(error) => Err(server::<R>(error)),
    }
}

/// Forgets one.
pub async fn forget<R: Record>(wire: &Wire, number: u32) -> Result<(), RecordFault> {
    bucket::<R>(wire).await?.purge(number.to_string()).await.map_err(server::<R>)
}

/// Tries of a change, each lost to whoever works on it.
const TRIES: u32 = 20;

/// Why one was not changed.
#[derive(Debug, thiserror::Error)]
pub enum NotSo {
    /// There is none of that number.
    #[error("there is no {0} {1}; `haystack {0} list` names them")]
    Gone(&'static str, u32),
    /// Where it stands forbids it.
    #[error("{0}")]
    Refused(String),
    /// It could not be read or written.
    #[error(transparent)]
    Fault(#[from] RecordFault),
}

/// Changes one by what it is at that moment.
pub async fn change<R: Record>(
    wire: &Wire,
    number: u32,
    change: impl Fn(&mut R) -> Result<(), String>,
) -> Result<R, NotSo> {
    for _ in 0..TRIES {
        let mut kept = get::<R>(wire, number).await?.ok_or(NotSo::Gone(R::NAME, number))?;
        change(&mut kept.record).map_err(NotSo::Refused)?;
        match put(wire, kept).await {
            Ok(kept) => return Ok(kept.record),
            Err(RecordFault::Conflict(..)) => {}
            Err(fault) => return Err(fault.into()),
        }
    }
    Err(RecordFault::Conflict(R::NAME, number).into())
}

/// The number of the newest; 0 where there was none.
pub async fn newest<R: Record>(wire: &Wire) -> Result<u32, RecordFault> {
    let last = last(wire, R::COUNTER).await.map_err(server::<R>)?;
    Ok(u32::try_from(last).unwrap_or(0).min(R::MOST))
}

/// Numbers behind the newest whose records may not be kept yet.
const IN_THE_MAKING: u32 = 50;

/// The first that nobody works on, taken for a worker. `first_open`: those below it are over.
pub async fn take<R: Record>(
    wire: &Wire,
    worker: &str,
    now: Timestamp,
    first_open: &mut u32,
) -> Result<Option<Kept<R>>, RecordFault> {
    let (newest, mut all_over) = (newest::<R>(wire).await?, true);
    for number in *first_open..=newest {
        let found = get::<R>(wire, number).await?;
        // A new one gets its number a moment before it is kept; one that is gone leaves a gap.
        let gap = number + IN_THE_MAKING < newest;
        all_over &= found.as_ref().map_or(gap, |kept| kept.record.is_over());
        if all_over {
            *first_open = number + 1;
        }
        let Some(mut kept) = found else { continue };
        if !kept.record.take(worker, now) {
            continue;
        }
        match put(wire, kept).await {
            Ok(kept) => return Ok(Some(kept)),
            // Another worker was faster.
            Err(RecordFault::Conflict(..)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Ok(None)
}
