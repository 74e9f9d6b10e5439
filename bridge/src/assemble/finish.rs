//! Doing what an end says: the whole into `RAW`, or what came into `DEAD`; then the parts go.
//! Done twice, it changes nothing.

use crate::Shared;
use domain::{
    Batch, Clock, Letter, Reason, Stage, SystemClock,
    chunk::{End, Ended, Name, Outcome, whole},
    failpoint,
    letter::{Attachment, Source},
    raw::{ASSEMBLED, MAX_PAYLOAD, Pack, RawMessage},
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
/// A report of more is not put together: three times what a message may be, for base64 and what is
/// around each piece.
const MAX_BYTES: u64 = 3 * MAX_PAYLOAD as u64;
/// Bytes of parts in one letter; what is more stands in the next.
const LETTER_BYTES: usize = 8 << 20;

pub(super) async fn finish(
    shared: &Shared,
    patience: &Patience,
    name: &Name,
    sequence: u64,
    end: &End,
) -> Result<(), Stopped> {
    failpoint::hit(failpoint::BEFORE_ASSEMBLED);
    let refused = match end.outcome {
        Outcome::Complete if end.bytes > MAX_BYTES => {
            Some((Reason::TransactionRefused, format!("{} bytes in all", end.bytes)))
        }
        Outcome::Complete => store(shared, patience, sequence, end).await?,
        Outcome::Expired => Some((Reason::TransactionExpired, end.why.clone())),
        Outcome::Superseded => Some((Reason::TransactionSuperseded, end.why.clone())),
    };
    if let Some(refused) = refused {
        set_aside(shared, patience, name, sequence, end, refused).await?;
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

/// Stores the whole; or why the parts make none.
async fn store(
    shared: &Shared,
    patience: &Patience,
    sequence: u64,
    end: &End,
) -> Result<Option<(Reason, String)>, Stopped> {
    let mut came = Vec::with_capacity(end.parts.len());
    for part in &end.parts {
        let body = held(patience, || chunks::read_part(&shared.wire, part.sequence)).await?;
        // Parts are removed last: where some are gone, all else was done before.
        let Some(body) = body else { return Ok(None) };
        came.push(body);
    }
    // Parts are written by doors alone; one that can't be read all the same is no part of a whole.
    let messages: Vec<RawMessage<'_>> =
        came.iter().filter_map(|body| envelope::decode_borrowed(body).ok()).collect();
    let pack = match assembled(shared, patience, end, &messages).await? {
        Ok(pack) => pack,
        Err(why) => return Ok(Some((Reason::TransactionRefused, why))),
    };
    let (door, instance) = DOOR;
    let (door, instance) = (door.to_owned(), instance.to_owned());
    let subject = Subject::Raw { door, instance }.to_string();
    let message = Outgoing::new(subject, &format!("chunks/{sequence}"), envelope::encode(&pack));
    until_stored(&shared.wire, message, patience).await?;
    Ok(None)
}

/// The whole as one message, as if it had come so with the first part. The inner error is why the
/// parts make no whole.
async fn assembled(
    shared: &Shared,
    patience: &Patience,
    end: &End,
    messages: &[RawMessage<'_>],
) -> Result<Result<Pack<'static>, String>, Stopped> {
    let Some(first) = messages.first().filter(|_| messages.len() == end.parts.len()) else {
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
    let payloads = messages.iter().map(|message| &*message.payload);
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

/// What came goes into as many letters as it needs, one after the other.
async fn set_aside(
    shared: &Shared,
    patience: &Patience,
    name: &Name,
    sequence: u64,
    end: &End,
    (reason, why): (Reason, String),
) -> Result<(), Stopped> {
    let (seen, total, missing) = (end.parts.len(), end.total, end.missing());
    let missing = if missing.is_empty() { String::new() } else { format!("; missing {missing}") };
    let transaction = &name.transaction;
    let letter = |row: u32, attachments: Vec<Attachment>| Letter {
        stage: Stage::Assemble,
        target: None,
        source: Source { stream: CHUNKS.to_owned(), sequence, row },
        org: Some(name.org.clone()),
        sender: name.gateway.to_string(),
        reason,
        detail: format!(
            "transaction {transaction:?}: {why}; {seen} of {total} parts came{missing}"
        ),
        row: None,
        origin: None,
        revision: 0,
        attempts: 1,
        at: SystemClock.now(),
        attachments,
        many: Vec::new(),
        taken_for: None,
        waiting: None,
        dropped: None,
    };
    let (mut row, mut lot, mut bytes) = (0, Vec::new(), 0);
    for part in &end.parts {
        let body = held(patience, || chunks::read_part(&shared.wire, part.sequence)).await?;
        // Parts are removed last: where some are gone, all else was done before.
        let Some(body) = body else { return Ok(()) };
        // One that can't be read is kept as it stands.
        let payload = envelope::decode_borrowed::<RawMessage<'_>>(&body)
            .map_or_else(|_| body.to_vec(), |message| message.payload.to_vec());
        if bytes + payload.len() > LETTER_BYTES && !lot.is_empty() {
            send(shared, patience, letter(row, std::mem::take(&mut lot))).await?;
            (row, bytes) = (row + 1, 0);
        }
        bytes += payload.len();
        lot.push(Attachment { name: format!("part {}", part.index), bytes: payload });
    }
    send(shared, patience, letter(row, lot)).await
}

async fn send(shared: &Shared, patience: &Patience, letter: Letter) -> Result<(), Stopped> {
    let body = envelope::encode_named(&letter);
    let message = Outgoing::new(letter.subject().to_string(), &letter.id(), body);
    until_stored(&shared.wire, message, patience).await?;
    shared.counters.letter(letter.reason);
    Ok(())
}
