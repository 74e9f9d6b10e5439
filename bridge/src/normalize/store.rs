//! Storing what comes of messages of `RAW`, and the proof that all of it is stored.

use super::batch::Part;
use crate::Shared;
use domain::{Letter, Proof};
use futures_util::{StreamExt, TryStreamExt, stream};
use nats::{
    envelope,
    publish::{Outgoing, Stopped, until_stored},
    retry::Pauses,
};
use std::collections::BTreeMap;

/// Messages for `TELEMETRY` that one piece of work has on their way at once.
const MAX_PARTS_IN_FLIGHT: usize = 16;
/// Letters that one piece of work has on their way at once.
const MAX_LETTERS_IN_FLIGHT: usize = 256;

/// Every reading is in `TELEMETRY` and every letter in `DEAD`, each on disk. Made here alone.
pub(super) struct AllStored(());

impl Proof for AllStored {}

/// Stores everything, however long it takes.
pub(super) async fn store(
    shared: &Shared,
    parts: Vec<Part>,
    letters: Vec<Letter>,
) -> Result<AllStored, Stopped> {
    let parts = stream::iter(parts)
        .map(|part| store_part(shared, part))
        .buffer_unordered(MAX_PARTS_IN_FLIGHT)
        .try_collect::<()>();
    tokio::try_join!(parts, store_letters(shared, letters))?;
    Ok(AllStored(()))
}

/// Each by itself; what is past its sender's quota, in one that stands for many.
async fn store_letters(shared: &Shared, letters: Vec<Letter>) -> Result<(), Stopped> {
    let (mut alone, mut past) = (Vec::new(), BTreeMap::<String, Vec<Letter>>::new());
    for letter in letters {
        // Where nobody can tell, the letter lies by itself.
        if shared.quota.admits(&shared.wire, &letter).await.unwrap_or(true) {
            alone.push(letter);
        } else {
            past.entry(letter.subject().to_string()).or_default().push(letter);
        }
    }
    stream::iter(alone)
        .map(|letter| store_letter(shared, letter))
        .buffer_unordered(MAX_LETTERS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    stream::iter(past.into_values())
        .map(|letters| async move { put_together(shared, &letters).await })
        .buffer_unordered(MAX_PARTS_IN_FLIGHT)
        .try_collect()
        .await
}

async fn put_together(shared: &Shared, letters: &[Letter]) -> Result<(), Stopped> {
    let (patience, mut pauses) = (shared.patience("normalize/DEAD"), Pauses::default());
    while let Err(fault) = nats::letters::put_together(&shared.wire, letters).await {
        if !patience.pause(&mut pauses, &fault.to_string()).await {
            return Err(Stopped);
        }
    }
    patience.moving();
    for letter in letters {
        shared.counters.letter(letter.reason);
    }
    Ok(())
}

async fn store_part(shared: &Shared, part: Part) -> Result<(), Stopped> {
    let Part { org, readings, message } = part;
    until_stored(&shared.wire, message, &shared.patience(format!("normalize/{org}"))).await?;
    shared.counters.normalized(readings);
    Ok(())
}

async fn store_letter(shared: &Shared, letter: Letter) -> Result<(), Stopped> {
    let body = envelope::encode_named(&letter);
    let message = Outgoing::new(letter.subject().to_string(), &letter.id(), body);
    until_stored(&shared.wire, message, &shared.patience("normalize/DEAD")).await?;
    shared.counters.letter(letter.reason);
    Ok(())
}
