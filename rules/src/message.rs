//! One message of `RAW`: every entry of its pack becomes readings, a letter, or both. Pure.

use crate::{
    entry::{Known, NotYet, Outcome, Strangers, normalize_entry},
    told::Told,
};
use domain::{
    Group, Letter, OrgKey, Origin, OriginStream, Position, Reason, Stage, Timestamp,
    letter::Source,
    normalize::Fault,
    presence::Presence,
    raw::{MAX_PACK_ENTRIES, Pack, RawMessage},
};
use nats::{envelope, streams::RAW};

/// A letter names the first, and at this stage only, attempt: whoever normalizes the message again
/// writes the same letter.
const FIRST_ATTEMPT: u32 = 1;

/// A message of `RAW` and where it stands.
#[derive(Clone, Copy)]
pub struct Stored<'b> {
    /// Where it stands, and when it was stored.
    pub position: Position,
    /// Its subject.
    pub subject: &'b str,
    /// Its body.
    pub body: &'b [u8],
}

/// What comes of one message of `RAW`.
#[derive(Debug, Default, PartialEq)]
pub struct Normalized {
    /// Readings, in the order of the entries.
    pub groups: Vec<(OrgKey, Group)>,
    /// What each of them says of its device's clock.
    pub told: Vec<Told>,
    /// Which devices are there.
    pub presences: Vec<(OrgKey, Presence)>,
    /// What is set aside.
    pub letters: Vec<Letter>,
}

/// Normalizes all entries; `now` is for the letters.
pub fn normalize_message(
    stored: Stored<'_>,
    known: Known<'_>,
    now: Timestamp,
) -> Result<Normalized, NotYet> {
    let pack = match unpack(stored.body) {
        Ok(pack) => pack,
        Err(fault) => return Ok(undecodable(stored, fault, now)),
    };
    let mut normalized = Normalized::default();
    let mut strangers = Strangers::default();
    for (index, entry) in (0..).zip(&pack.entries) {
        let origin = origin(stored.position, index);
        let Outcome { group, told, presence, fault } = match normalize_entry(entry, origin, known) {
            Ok(outcome) => outcome,
            // All of the message's are registered together.
            Err(NotYet::Create(more)) => {
                strangers.add(more);
                continue;
            }
            Err(unsettled) => return Err(unsettled),
        };
        normalized.told.extend(group.is_some().then_some(told));
        normalized.groups.extend(group);
        normalized.presences.extend(presence);
        normalized.letters.extend(fault.map(|fault| about_entry(entry, origin, fault, now)));
    }
    if strangers.is_empty() { Ok(normalized) } else { Err(NotYet::Create(strangers)) }
}

/// Normalizes one entry, whoever its sender is taken for.
pub fn normalize_one(
    entry: &RawMessage<'_>,
    origin: Origin,
    known: Known<'_>,
    now: Timestamp,
) -> Result<Normalized, NotYet> {
    let Outcome { group, told, presence, fault } = normalize_entry(entry, origin, known)?;
    Ok(Normalized {
        told: group.is_some().then_some(told).into_iter().collect(),
        groups: group.into_iter().collect(),
        presences: presence.into_iter().collect(),
        letters: fault.map(|fault| about_entry(entry, origin, fault, now)).into_iter().collect(),
    })
}

fn unpack(body: &[u8]) -> Result<Pack<'_>, Fault> {
    let undecodable = |detail| Fault { reason: Reason::Undecodable, detail };
    let pack: Pack<'_> =
        envelope::decode_borrowed(body).map_err(|fault| undecodable(fault.to_string()))?;
    let entries = pack.entries.len();
    if entries > MAX_PACK_ENTRIES {
        // The place of an entry has ten bits in a version.
        let detail = format!("a pack of {entries} entries, at most {MAX_PACK_ENTRIES} are read");
        return Err(undecodable(detail));
    }
    Ok(pack)
}

fn origin(position: Position, index: u16) -> Origin {
    let Position { sequence, stored_at: accepted_at } = position;
    Origin { stream: OriginStream::Raw, sequence, index, accepted_at }
}

fn about_entry(entry: &RawMessage<'_>, origin: Origin, fault: Fault, now: Timestamp) -> Letter {
    let org = entry.sender.as_ref().map(|sender| sender.org.clone());
    letter(org, entry.name.to_string(), origin, fault, now)
}

/// The message as a whole can't be read: its letter is about row 0.
fn undecodable(stored: Stored<'_>, fault: Fault, now: Timestamp) -> Normalized {
    let origin = origin(stored.position, 0);
    let letter = letter(None, stored.subject.to_owned(), origin, fault, now);
    Normalized { letters: vec![letter], ..Normalized::default() }
}

fn letter(
    org: Option<OrgKey>,
    sender: String,
    origin: Origin,
    fault: Fault,
    now: Timestamp,
) -> Letter {
    let Fault { reason, detail } = fault;
    let (sequence, row) = (origin.sequence, origin.index.into());
    Letter {
        stage: Stage::Normalize,
        target: None,
        source: Source { stream: RAW.to_owned(), sequence, row },
        org,
        sender,
        reason,
        detail,
        row: None,
        origin: Some(origin),
        revision: 0,
        attempts: FIRST_ATTEMPT,
        at: now,
        attachments: Vec::new(),
        many: Vec::new(),
        taken_for: None,
        waiting: None,
        dropped: None,
    }
}

#[cfg(test)]
mod tests;
