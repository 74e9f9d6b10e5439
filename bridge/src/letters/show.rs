//! What a letter is about, as it came.

use super::away;
use crate::Shared;
use domain::{
    Letter, Stage,
    raw::{Pack, RawMessage},
    recall::{MAX_SHOWN, Message, Shown},
};
use nats::{envelope, letters, micro::Refusal};

pub(super) async fn show(shared: &Shared, mut letter: Letter) -> Result<Shown, Refusal> {
    let message =
        if letter.stage == Stage::Normalize { message(shared, &letter).await? } else { None };
    // An answer has a size.
    let mut room = MAX_SHOWN;
    for attachment in &mut letter.attachments {
        attachment.bytes.truncate(room);
        room -= attachment.bytes.len();
    }
    Ok(Shown { letter, message })
}

async fn message(shared: &Shared, letter: &Letter) -> Result<Option<Message>, Refusal> {
    let found = letters::original(&shared.wire, letter).await;
    let Some(original) = found.map_err(|fault| away(&fault))? else { return Ok(None) };
    let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(&original.body) else { return Ok(None) };
    let entry = pack.entries.get(original.row);
    Ok(entry.map(|entry: &RawMessage<'_>| Message {
        name: entry.name.to_string(),
        content_type: entry.content_type.to_string(),
        received_at: entry.received_at,
        profile: entry
            .sender
            .as_ref()
            .map(|sender| format!("{} version {}", sender.profile.id, sender.profile.version)),
        bytes: entry.payload.len(),
        payload: entry.payload[..entry.payload.len().min(MAX_SHOWN)].to_vec(),
    }))
}
