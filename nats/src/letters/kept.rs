//! What letters are about, kept beside them when its stream lets go of it.
//!
//! While the stream has the message, a letter copies no bytes. Before messages leave, the trimmer puts what
//! is needed to try a letter again into `DEAD`, under a subject that says which letter it belongs to. The
//! letter itself stays as it is, so nobody who works on it meanwhile is in the way.

use super::{DEAD, Filed, Filter, dead, later, newest, page};
use crate::{
    PublishFault, Wire,
    consume::read_placed,
    envelope,
    publish::{self, Outgoing},
    streams::RAW,
};
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use domain::{
    Letter, Position, Reason, Stage, Timestamp,
    letter::{KEPT, Source},
    raw::Pack,
    subject::Subject,
};

/// Header: where the message stood, as `{sequence} {microseconds}`.
const STOOD: &str = "Haystack-Stood";
/// Letters that are looked at in one go.
const PAGE: usize = 1_000;

/// What a letter is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Where its message stands, or stood.
    pub position: Position,
    /// The message.
    pub body: Bytes,
    /// What in the message.
    pub row: usize,
}

/// What a letter is about, from its stream or from what was kept; `None`: it is gone.
pub async fn original(wire: &Wire, letter: &Letter) -> Result<Option<Original>, PublishFault> {
    let Source { stream, sequence, row } = &letter.source;
    if let Some((position, body)) = read_placed(wire, stream, *sequence).await? {
        return Ok(Some(Original { position, body, row: *row as usize }));
    }
    let Some((_, position, body)) = kept(wire, letter).await? else { return Ok(None) };
    let row = if alone(letter) { 0 } else { *row as usize };
    Ok(Some(Original { position, body, row }))
}

/// Whether one entry of its pack is kept, and not the whole message.
fn alone(letter: &Letter) -> bool {
    letter.source.stream == RAW && letter.reason != Reason::Undecodable
}

/// Whether a letter that was refused by a database says itself what the row was.
fn says_it_itself(letter: &Letter) -> bool {
    letter.stage == Stage::Assemble || (letter.stage == Stage::Ingest && letter.row.is_some())
}

fn subject(letter: &Letter) -> String {
    let org = letter.org.as_ref().map(|org| org.as_str().to_owned());
    Subject::Dead { stage: KEPT.to_owned(), org, source: letter.about() }.to_string()
}

async fn kept(
    wire: &Wire,
    letter: &Letter,
) -> Result<Option<(u64, Position, Bytes)>, PublishFault> {
    let found = match dead(wire).await?.direct_get_last_for_subject(subject(letter)).await {
        Ok(found) => found,
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(later(error)),
    };
    let stood = found.headers.get(STOOD).map(|value| value.as_str().to_owned());
    let position = stood.and_then(|text| {
        let (sequence, micros) = text.split_once(' ')?;
        let stored_at = Timestamp::from_micros(micros.parse().ok()?)?;
        Some(Position { sequence: sequence.parse().ok()?, stored_at })
    });
    Ok(position.map(|position| (found.sequence, position, found.payload)))
}

/// Keeps what letters need of a stream's messages up to a sequence; how much there was to keep. Done twice,
/// it keeps it once.
pub async fn keep(wire: &Wire, stream: &str, until: u64) -> Result<usize, PublishFault> {
    let (mut until_letter, mut after, mut count) = (newest(wire).await?, 0, 0);
    loop {
        let page = page(wire, &Filter::default(), (after, until_letter), (PAGE, PAGE)).await?;
        for Filed { number, letter } in page.letters {
            let letter = letter.map_err(|why| {
                later(format!("letter {number} can't be read, so its message must stay: {why}"))
            })?;
            let goes = letter.source.stream == stream && letter.source.sequence <= until;
            // One that stands for many keeps none of their bytes: that is what the quota is for.
            if goes && letter.many.is_empty() && !says_it_itself(&letter) {
                count += usize::from(keep_one(wire, &letter).await?);
            }
        }
        if let Some(next) = page.next {
            after = next;
            continue;
        }
        // One that was tried again meanwhile has another number now.
        let newest = newest(wire).await?;
        if newest <= until_letter {
            return Ok(count);
        }
        (after, until_letter) = (until_letter, newest);
    }
}

async fn keep_one(wire: &Wire, letter: &Letter) -> Result<bool, PublishFault> {
    let Source { stream, sequence, .. } = &letter.source;
    let Some((position, body)) = read_placed(wire, stream, *sequence).await? else {
        return Ok(false);
    };
    put(wire, letter, position, body).await
}

/// Keeps for a letter what it is about, out of a message that its stream has no more.
pub async fn keep_part(
    wire: &Wire,
    letter: &Letter,
    position: Position,
    body: &[u8],
) -> Result<(), PublishFault> {
    let Source { stream, sequence, .. } = &letter.source;
    if read_placed(wire, stream, *sequence).await?.is_none() {
        put(wire, letter, position, Bytes::copy_from_slice(body)).await?;
    }
    Ok(())
}

/// Puts what a letter is about into `DEAD`; `false`: the message has no such part.
async fn put(
    wire: &Wire,
    letter: &Letter,
    position: Position,
    body: Bytes,
) -> Result<bool, PublishFault> {
    let body = if alone(letter) {
        let entry = envelope::decode_borrowed::<Pack<'_>>(&body)
            .ok()
            .and_then(|pack| pack.entries.into_iter().nth(letter.source.row as usize));
        let Some(entry) = entry else { return Ok(false) };
        envelope::encode(&Pack { entries: vec![entry] })
    } else {
        body
    };
    let stood = format!("{} {}", position.sequence, position.stored_at.micros());
    let message = Outgoing::expecting(subject(letter), 0, body).header(STOOD, &stood);
    match publish::publish(wire, message).await {
        Ok(_) | Err(PublishFault::Conflict) => Ok(true),
        Err(fault) => Err(fault),
    }
}

/// Takes away what was kept for a letter that is gone.
pub async fn forget(wire: &Wire, letter: &Letter) -> Result<(), PublishFault> {
    match kept(wire, letter).await? {
        Some((number, ..)) => publish::remove(wire, DEAD, &[number]).await,
        None => Ok(()),
    }
}
