//! The register of targets: one record, written by compare-and-set. What a registered target has not applied
//! stays in its stream; a detached one is waited for no more.

use crate::{Wire, model::ModelFault, streams::TARGETS};
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use domain::{TargetName, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The key of the record.
const KEY: &str = "all";
/// Tries of a change, each lost to another writer.
const TRIES: u32 = 20;

/// A target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Since when it is known.
    #[serde(with = "domain::time::rfc3339")]
    pub since: Timestamp,
    /// Whether it keeps device messages as they came.
    pub archives: bool,
    /// It was let go, for good.
    #[serde(default)]
    pub detached: Option<Detached>,
    /// What the last comparison with the primary found.
    #[serde(default)]
    pub compared: Option<Compared>,
}

/// That a target was let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// When.
    #[serde(with = "domain::time::rfc3339")]
    pub at: Timestamp,
    /// Who did it, e.g. `user:3 Ada`.
    pub by: String,
}

/// What a comparison with the primary found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// When.
    #[serde(with = "domain::time::rfc3339")]
    pub at: Timestamp,
    /// Whether both held the same.
    pub equal: bool,
}

/// All targets, by name.
pub type Register = BTreeMap<TargetName, Registered>;

fn server(error: impl std::fmt::Display) -> ModelFault {
    ModelFault::Server(format!("targets: {error}"))
}

async fn bucket(wire: &Wire) -> Result<Store, ModelFault> {
    let bucket = wire.jetstream.get_key_value(TARGETS).await;
    bucket.map_err(|error| server(format!("{error}; `haystack migrate` makes the register")))
}

async fn read(store: &Store) -> Result<(Register, u64), ModelFault> {
    let found = store.entry(KEY).await.map_err(server)?;
    match found.filter(|found| found.operation == Operation::Put) {
        None => Ok((Register::new(), 0)),
        Some(found) => Ok((serde_json::from_slice(&found.value).map_err(server)?, found.revision)),
    }
}

/// All targets that were ever registered and not forgotten.
pub async fn list(wire: &Wire) -> Result<Register, ModelFault> {
    Ok(read(&bucket(wire).await?).await?.0)
}

/// Changes the register by what it is at that moment; `change` says whether it did. An unchanged register is
/// not written.
pub async fn change(
    wire: &Wire,
    change: impl Fn(&mut Register) -> Result<bool, String>,
) -> Result<Result<Register, String>, ModelFault> {
    let store = bucket(wire).await?;
    for _ in 0..TRIES {
        let (mut register, revision) = read(&store).await?;
        match change(&mut register) {
            Err(why) => return Ok(Err(why)),
            Ok(false) => return Ok(Ok(register)),
            Ok(true) => {}
        }
        let body = serde_json::to_vec(&register).map_err(server)?;
        match store.update(KEY, body.into(), revision).await {
            Ok(_) => return Ok(Ok(register)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
            Err(error) => return Err(server(error)),
        }
    }
    Err(server("others change it all the time; try again"))
}

/// Makes a target known, or says of a known one whether it archives. Gives what is known of it.
pub async fn register(
    wire: &Wire,
    name: &TargetName,
    archives: bool,
    now: Timestamp,
) -> Result<Registered, ModelFault> {
    let fresh = || Registered { since: now, archives, detached: None, compared: None };
    let enter = |register: &mut Register| {
        let known = register.contains_key(name);
        let entry = register.entry(name.clone()).or_insert_with(fresh);
        let changed = !known || (entry.archives != archives && entry.detached.is_none());
        entry.archives = archives;
        Ok(changed)
    };
    let register = change(wire, enter).await?.map_err(server)?;
    register.get(name).cloned().ok_or_else(|| server("the entry is gone"))
}

/// Lets a target go: the streams wait for it no more. An error says why it can't be.
pub async fn detach(
    wire: &Wire,
    name: &TargetName,
    detached: Detached,
) -> Result<Result<(), String>, ModelFault> {
    let let_go = |register: &mut Register| {
        let known: Vec<&str> = register.keys().map(TargetName::as_str).collect();
        let none = format!("there is no target {name}; known are {}", known.join(", "));
        let entry = register.get_mut(name).ok_or(none)?;
        let news = entry.detached.is_none();
        if news {
            entry.detached = Some(detached.clone());
        }
        Ok(news)
    };
    Ok(change(wire, let_go).await?.map(drop))
}

/// Takes a target back. It gets what the streams still have, and the rest from another target.
pub async fn attach(
    wire: &Wire,
    name: &TargetName,
    now: Timestamp,
) -> Result<Result<(), String>, ModelFault> {
    let take_back = |register: &mut Register| {
        let entry = register.get_mut(name).ok_or_else(|| format!("there is no target {name}"))?;
        let news = entry.detached.take().is_some();
        if news {
            (entry.since, entry.compared) = (now, None);
        }
        Ok(news)
    };
    Ok(change(wire, take_back).await?.map(drop))
}

/// Notes what a comparison found.
pub async fn note_compared(
    wire: &Wire,
    name: &TargetName,
    compared: Compared,
) -> Result<(), ModelFault> {
    let note = |register: &mut Register| {
        Ok(register.get_mut(name).map(|entry| entry.compared = Some(compared)).is_some())
    };
    change(wire, note).await?.map(drop).map_err(server)
}
