//! After everything is committed or refused: acknowledgements, letters, announcements.
//!
//! A message of which a row was refused (or which can't be read) is *hurt*: it is acknowledged
//! when its letters are stored too, so whoever stops in between leaves it to come again.

use crate::{
    every::Every,
    gathered::Gathered,
    letter::{self, Place},
    write::{Narrowed, OrgWriter, Stopping, hand_back},
};
use domain::{Batch, Clock, Letter, Position, Row, SystemClock, failpoint};
use nats::{
    Delivery, Fsynced, PublishFault,
    consume::read_again,
    envelope,
    letters::Retried,
    outcome::{self, Outcome},
    publish::{Outgoing, publish},
    retry::Pauses,
    streams::TELEMETRY,
};
use std::collections::BTreeSet;
use store::{Committed, Fault};

/// A row refused alone, and the messages that brought it.
struct Refused {
    row: Row,
    fault: Fault,
    from: Vec<Message>,
}

/// A message that brought a refused row.
struct Message {
    position: Position,
    producer: String,
    /// Of which row, refused before, it is another attempt.
    retried: Option<Retried>,
}

/// Acknowledges what is whole, writes letters about the rest, then acknowledges that.
pub(crate) async fn settle(
    writer: &mut OrgWriter,
    mut batch: Gathered,
    narrowed: Narrowed,
) -> Result<(), Stopping> {
    failpoint::hit(failpoint::BEFORE_TELEMETRY_ACK);
    let committed = Every::of(narrowed.stored);
    let mut hurt: BTreeSet<usize> = batch.unreadable.iter().map(|(at, _)| *at).collect();
    let mut refused = Vec::new();
    for (work, fault) in narrowed.refused {
        for row in work.rows {
            hurt.extend(batch.brought(row.version));
            refused.push(about(&batch, row, fault.clone()));
        }
    }
    let names = (&writer.target.name, &writer.org);
    let now = SystemClock.now();
    let unreadable = batch
        .unreadable
        .iter()
        .map(|(at, why)| letter::unreadable(names, &batch.deliveries[*at], why, now));
    let unreadable: Vec<Letter> = unreadable.collect();
    let stored = batch.size.rows.saturating_sub(refused.len());
    writer.target.counters.stored(&writer.target.name, stored);

    let (hurt, whole) = apart(std::mem::take(&mut batch.deliveries), &hurt);
    drop(batch);
    if let Some(committed) = &committed {
        acknowledge_whole(writer, whole, committed).await;
    }
    if !hurt.is_empty() {
        let Ok(letters) = write_letters(writer, &hurt, refused, unreadable).await else {
            hand_back(hurt).await;
            return Err(Stopping);
        };
        acknowledge_hurt(writer, hurt, committed.as_ref(), letters).await;
    }
    Ok(())
}

fn about(batch: &Gathered, row: Row, fault: Fault) -> Refused {
    let message = |at: usize| {
        let delivery = &batch.deliveries[at];
        let retried = batch.retried.get(&at).cloned();
        Message { position: delivery.position(), producer: letter::producer(delivery), retried }
    };
    let mut from: Vec<Message> = batch.brought(row.version).map(message).collect();
    // The first message that has the row names the letter, whatever the batch.
    from.sort_by_key(|message| message.position.sequence);
    Refused { row, fault, from }
}

/// The hurt deliveries and the whole ones.
fn apart(deliveries: Vec<Delivery>, hurt: &BTreeSet<usize>) -> (Vec<Delivery>, Vec<Delivery>) {
    let mut parts = (Vec::new(), Vec::with_capacity(deliveries.len()));
    for (at, delivery) in deliveries.into_iter().enumerate() {
        if hurt.contains(&at) { parts.0.push(delivery) } else { parts.1.push(delivery) }
    }
    parts
}

async fn acknowledge_whole(
    writer: &OrgWriter,
    deliveries: Vec<Delivery>,
    committed: &Every<Committed>,
) {
    let sequences = sequences(&deliveries);
    for delivery in deliveries {
        delivery.ack(committed).await;
    }
    announce(writer, Outcome { committed: sequences, dead: Vec::new() }).await;
}

async fn acknowledge_hurt(
    writer: &OrgWriter,
    deliveries: Vec<Delivery>,
    committed: Option<&Every<Committed>>,
    letters: Every<Fsynced>,
) {
    let sequences = sequences(&deliveries);
    for delivery in deliveries {
        match committed {
            Some(committed) => delivery.ack(&(committed, &letters)).await,
            None => delivery.ack(&letters).await,
        }
    }
    announce(writer, Outcome { committed: Vec::new(), dead: sequences }).await;
}

fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.position().sequence).collect()
}

async fn announce(writer: &OrgWriter, outcome: Outcome) {
    let target = &writer.target;
    if !(outcome.committed.is_empty() && outcome.dead.is_empty()) {
        outcome::announce(&target.wire, &target.name, &writer.org.key, &outcome).await;
    }
}

/// Writes the letters; at least one, for hurt messages.
async fn write_letters(
    writer: &mut OrgWriter,
    hurt: &[Delivery],
    refused: Vec<Refused>,
    unreadable: Vec<Letter>,
) -> Result<Every<Fsynced>, Stopping> {
    let mut proofs = Vec::with_capacity(refused.len() + unreadable.len());
    for letter in unreadable {
        proofs.push(post(writer, hurt, letter).await?);
    }
    let mut shelf = Shelf::default();
    for Refused { row, fault, from } in refused {
        let retried = from.iter().find_map(|message| message.retried.clone());
        let place = match retried {
            Some(retried) => retried.into(),
            None => shelf.find(writer, hurt, &row, &from).await?,
        };
        let names = (&writer.target.name, &writer.org);
        let letter = letter::refused(names, place, &row, &fault, SystemClock.now());
        proofs.push(post(writer, hurt, letter).await?);
    }
    Ok(Every::of(proofs).expect("a message is hurt by a refused row or by being unreadable"))
}

/// Puts a letter into `DEAD`, and waits while `DEAD` can't take it.
async fn post(
    writer: &mut OrgWriter,
    hurt: &[Delivery],
    mut letter: Letter,
) -> Result<Fsynced, Stopping> {
    let (id, subject) = (letter.id(), letter.subject().to_string());
    let mut pauses = Pauses::default();
    loop {
        let message = Outgoing::new(&subject, &id, envelope::encode_named(&letter));
        let sent = publish(&writer.target.wire, message);
        match writer.keeper.keep(hurt, sent).await {
            Ok(stored) => {
                writer.target.counters.letter(&writer.target.name, letter.reason);
                return Ok(stored);
            }
            // Its message still holds the row.
            Err(PublishFault::TooLarge) if letter.row.take().is_some() => {}
            Err(fault) => {
                hold(writer, hurt, &mut pauses, &format!("DEAD takes no letter: {fault}")).await?;
            }
        }
    }
}

async fn hold(
    writer: &mut OrgWriter,
    hurt: &[Delivery],
    pauses: &mut Pauses,
    why: &str,
) -> Result<(), Stopping> {
    let pause = writer.patience.pause(pauses, why);
    if writer.keeper.keep(hurt, pause).await { Ok(()) } else { Err(Stopping) }
}

/// The message that was read last: refused rows often come in one.
#[derive(Default)]
struct Shelf(Option<(u64, Option<Batch>)>);

impl Shelf {
    /// Where a refused row stands, by reading its messages again: batches keep none of the bytes.
    async fn find(
        &mut self,
        writer: &mut OrgWriter,
        hurt: &[Delivery],
        row: &Row,
        from: &[Message],
    ) -> Result<Place, Stopping> {
        for message in from {
            let sequence = message.position.sequence;
            let Some(batch) = self.read(writer, hurt, sequence).await? else { continue };
            if let Some((number, device)) = letter::find(batch, message.position, row) {
                let sender = device.map_or(message.producer.clone(), |device| device.to_string());
                return Ok(Place { sequence, row: number, sender, attempts: 0 });
            }
        }
        // Only where the stream was emptied by hand.
        let place = |message: &Message| Place {
            sequence: message.position.sequence,
            row: 0,
            sender: message.producer.clone(),
            attempts: 0,
        };
        let unknown = Place { sequence: 0, row: 0, sender: String::new(), attempts: 0 };
        Ok(from.first().map_or(unknown, place))
    }

    async fn read(
        &mut self,
        writer: &mut OrgWriter,
        hurt: &[Delivery],
        sequence: u64,
    ) -> Result<Option<&Batch>, Stopping> {
        if self.0.as_ref().is_none_or(|(read, _)| *read != sequence) {
            let mut pauses = Pauses::default();
            let body = loop {
                match read_again(&writer.target.wire, TELEMETRY, sequence).await {
                    Ok(body) => break body,
                    Err(fault) => hold(writer, hurt, &mut pauses, &fault.to_string()).await?,
                }
            };
            let batch = body.and_then(|body| envelope::decode(&body).ok());
            self.0 = Some((sequence, batch));
        }
        Ok(self.0.as_ref().and_then(|(_, batch)| batch.as_ref()))
    }
}
