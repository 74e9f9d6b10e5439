//! Storing what comes of messages of `RAW`, and the proof that all of it is stored.

use super::batch::Part;
use crate::Shared;
use domain::{Letter, Proof};
use futures_util::{StreamExt, TryStreamExt, stream};
use nats::{
    envelope,
    publish::{Outgoing, Stopped, until_stored},
};

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
    let letters = stream::iter(letters)
        .map(|letter| store_letter(shared, letter))
        .buffer_unordered(MAX_LETTERS_IN_FLIGHT)
        .try_collect::<()>();
    tokio::try_join!(parts, letters)?;
    Ok(AllStored(()))
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
