//! Doing what an end says: the whole into `RAW`, or what came into `DEAD`; then the parts go.
//! Done twice, it changes nothing.

use crate::Shared;
use domain::{
    Batch, Clock, Letter, Reason, Stage, SystemClock,
    chunk::{End, Ended, Name, Outcome, whole},
    failpoint,
    letter::{Attachment, Source},
    raw::{ASSEMBLED, Pack, RawMessage},
    subject::Subject,
};
use nats::{
    PublishFault, chunks, envelope,
    publish::{Outgoing, Patience, Stopped, until_stored},
    retry::Pauses,
    streams::CHUNKS,
};

/// The door and instance under which assembled reports enter `RAW`.
const DOOR: (&str, &str) = ("mqtt", "chunks");
/// Who tells targets of ends.
const SOURCE: &str = "chunks";
/// Bytes of parts in one letter; what is more stands in the next.
const LETTER_BYTES: usize = 8 << 20;

/// A part as it came.
struct Came {
    index: u32,
    body: bytes::Bytes,
}

pub(super) async fn finish(
    shared: &Shared,
    patience: &Patience,
    name: &Name,
    sequence: u64,
    end: &End,
) -> Result<(), Stopped> {
    failpoint::hit(failpoint::BEFORE_ASSEMBLED);
    // Parts are removed last: where some are gone, all else was done before.
    if let Some(came) = read(shared, patience, end).await? {
        store(shared, patience, name, sequence, end, &came).await?;
    }
    // On record in every target: that it ended, and how.
    let batch = Batch { transactions: vec![Ended::new(name, sequence, end)], ..Batch::default() };
    let subject = Subject::Telemetry { org: name.org.to_string(), source: SOURCE.to_owned() };
    let id = format!("chunks/{sequence}");
    let message = Outgoing::new(subject.to_string(), &id, envelope::encode(&batch));
    until_stored(&shared.wire, message, patience).await?;
    failpoint::hit(failpoint::BEFORE_PARTS_REMOVED);
    held(patience, || chunks::remove_parts(&shared.wire, name, end)).await?;
    failpoint::hit(failpoint::BEFORE_END_DONE);
    Ok(())
}

/// Tries until it works, and says so.
async fn held<T, F>(patience: &Patience, mut attempt: impl FnMut() -> F) -> Result<T, Stopped>
where
    F: Future<Output = Result<T, PublishFault>>,
{
    let mut pauses = Pauses::default();
    loop {
        match attempt().await {
            Ok(done) => {
                patience.moving();
                return Ok(done);
            }
            Err(fault) => {
                if !patience.pause(&mut pauses, &fault.to_string()).await {
                    return Err(Stopped);
                }
            }
        }
    }
}

async fn read(
    shared: &Shared,
    patience: &Patience,
    end: &End,
) -> Result<Option<Vec<Came>>, Stopped> {
    let mut came = Vec::with_capacity(end.parts.len());
    for part in &end.parts {
        let body = held(patience, || chunks::read_part(&shared.wire, part.sequence)).await?;
        let Some(body) = body else { return Ok(None) };
        came.push(Came { index: part.index, body });
    }
    Ok(Some(came))
}

async fn store(
    shared: &Shared,
    patience: &Patience,
    name: &Name,
    sequence: u64,
    end: &End,
    came: &[Came],
) -> Result<(), Stopped> {
    // Parts are written by doors alone; one that can't be read all the same is kept as it is.
    let messages: Vec<(u32, RawMessage<'_>)> = came
        .iter()
        .filter_map(|part| Some((part.index, envelope::decode_borrowed(&part.body).ok()?)))
        .collect();
    let refused = match end.outcome {
        Outcome::Complete => match assembled(shared, patience, end, &messages).await? {
            Ok(pack) => {
                let (door, instance) = DOOR;
                let (door, instance) = (door.to_owned(), instance.to_owned());
                let subject = Subject::Raw { door, instance }.to_string();
                let id = format!("chunks/{sequence}");
                let message = Outgoing::new(subject, &id, envelope::encode(&pack));
                until_stored(&shared.wire, message, patience).await?;
                return Ok(());
            }
            Err(why) => (Reason::TransactionRefused, why),
        },
        Outcome::Expired => (Reason::TransactionExpired, end.why.clone()),
        Outcome::Superseded => (Reason::TransactionSuperseded, end.why.clone()),
    };
    for letter in letters(name, sequence, end, refused, &messages) {
        let body = envelope::encode_named(&letter);
        let message = Outgoing::new(letter.subject().to_string(), &letter.id(), body);
        until_stored(&shared.wire, message, patience).await?;
        shared.counters.letter(letter.reason);
    }
    Ok(())
}

/// The whole as one message, as if it had come so with the first part. The inner error is why the
/// parts make no whole.
async fn assembled(
    shared: &Shared,
    patience: &Patience,
    end: &End,
    messages: &[(u32, RawMessage<'_>)],
) -> Result<Result<Pack<'static>, String>, Stopped> {
    let Some((_, first)) = messages.first().filter(|_| messages.len() == end.parts.len()) else {
        return Ok(Err("a part can't be read".to_owned()));
    };
    let Some(sender) = &first.sender else { return Ok(Err("nobody sent it".to_owned())) };
    let profile = || shared.directory.read().profile(&sender.org, &sender.profile).cloned();
    if profile().is_none() {
        // The door that took the parts may have known more than is known here yet.
        let mut directory = shared.directory.clone();
        if !directory.caught_up(&shared.wire, patience).await {
            return Err(Stopped);
        }
    }
    let Some(rule) = profile().and_then(|profile| profile.definition.chunk_rule()) else {
        return Ok(Err("its device type is not known, or takes no parts".to_owned()));
    };
    let payloads = messages.iter().map(|(_, message)| &*message.payload);
    Ok(whole::assemble(&rule, payloads).map(|payload| {
        let entry = RawMessage {
            name: first.name.clone().into_owned().into(),
            sender: Some(sender.clone()),
            content_type: ASSEMBLED.into(),
            received_at: end.began_at,
            session: first.session,
            packet_id: first.packet_id,
            number: first.number,
            payload: payload.into(),
        };
        Pack { entries: vec![entry] }
    }))
}

/// What came, in as many letters as it needs.
fn letters(
    name: &Name,
    sequence: u64,
    end: &End,
    (reason, why): (Reason, String),
    messages: &[(u32, RawMessage<'_>)],
) -> Vec<Letter> {
    let mut lots: Vec<Vec<Attachment>> = vec![Vec::new()];
    let mut bytes = 0;
    for (index, message) in messages {
        let attachment =
            Attachment { name: format!("part {index}"), bytes: message.payload.to_vec() };
        bytes += attachment.bytes.len();
        if bytes > LETTER_BYTES && lots.last().is_some_and(|lot| !lot.is_empty()) {
            lots.push(Vec::new());
            bytes = attachment.bytes.len();
        }
        lots.last_mut().expect("there is one from the beginning").push(attachment);
    }
    let (seen, total) = (end.parts.len(), end.total);
    let missing = end.missing();
    let missing = if missing.is_empty() { String::new() } else { format!("; missing {missing}") };
    let transaction = &name.transaction;
    let detail =
        format!("transaction {transaction:?}: {why}; {seen} of {total} parts came{missing}");
    let letter = |(row, attachments): (u32, Vec<Attachment>)| Letter {
        stage: Stage::Assemble,
        target: None,
        source: Source { stream: CHUNKS.to_owned(), sequence, row },
        org: Some(name.org.clone()),
        sender: name.gateway.to_string(),
        reason,
        detail: detail.clone(),
        row: None,
        origin: None,
        revision: 0,
        attempts: 1,
        at: SystemClock.now(),
        attachments,
    };
    (0..).zip(lots).map(letter).collect()
}
