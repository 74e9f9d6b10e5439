//! Device messages as they came, from `RAW` into a target's archive. Apart from readings: where it is
//! held, they flow.

use crate::{keep::Keeper, target::Target};
use domain::{
    Position, failpoint,
    raw::{MAX_PACK_ENTRIES, Pack, RawMessage},
};
use nats::{
    Delivery, Reader, consume::Durable, envelope, inspect::archive_consumer, retry::Pauses,
    streams::RAW,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::archive::{self, EXPIRE_ROWS, Entry};
use tokio::time::{sleep_until, timeout_at};

/// Most bytes of messages in one transaction, beyond its first message.
const BATCH_BYTES: usize = 4 << 20;
/// Most messages of `RAW` in one.
const BATCH_MESSAGES: usize = 1_000;
/// How long messages may gather: nobody waits for the archive, and few large transactions are cheap.
const GATHER: Duration = Duration::from_secs(1);
/// How often what is too old is looked for.
const EXPIRE_EVERY: Duration = Duration::from_hours(1);
/// SQLSTATE of a statement that took too long.
const CANCELLED: &str = "57014";
/// The content type of what is no pack of messages: kept whole.
const UNDECODABLE: &str = "application/vnd.haystack.undecodable";

/// Archives until the process is to stop.
pub(crate) async fn run(target: Arc<Target>) {
    let mut durable = Durable::new(RAW, archive_consumer(&target.name), "raw.>".to_owned());
    durable.ack_wait = target.ack_wait;
    let reader =
        Reader::new(target.wire.clone(), durable.one_ahead(), target.patience("archive/stream"));
    let keeper = Keeper::new(target.ack_wait);
    let mut archivist = Archivist { target, reader, keeper };
    while let Some(batch) = archivist.gather().await {
        if archivist.store(batch).await.is_none() {
            return;
        }
    }
}

/// Removes what is too old, as long as the process lives: also where nothing is added any more.
pub(crate) async fn expire(target: Arc<Target>) {
    let mut most = EXPIRE_ROWS;
    while !target.shutdown.is_cancelled() {
        match archive::expire(&target.database, most).await {
            Ok(0) => most = EXPIRE_ROWS,
            Ok(removed) => {
                tracing::debug!(target = %target.name, removed, "removed old messages");
                continue;
            }
            // Large messages take long.
            Err(fault) if fault.sqlstate.as_deref() == Some(CANCELLED) && most > 1 => {
                most = (most / 8).max(1);
                continue;
            }
            // It is no hold: nothing waits for it.
            Err(fault) => {
                tracing::warn!(target = %target.name, %fault, "old messages are not removed");
            }
        }
        let next = tokio::time::Instant::now() + EXPIRE_EVERY;
        tokio::select! {
            () = target.shutdown.cancelled() => return,
            () = sleep_until(next) => {}
        }
    }
}

/// Brings the view of all orgs' values up to date whenever there may be another org. Apart from the
/// projection: somebody who reads the view for long must not hold it up.
pub(crate) async fn history(target: Arc<Target>) {
    const TRY_AGAIN: Duration = Duration::from_secs(2);
    loop {
        tokio::select! {
            () = target.shutdown.cancelled() => return,
            () = target.orgs_changed.notified() => {}
        }
        while let Err(fault) = archive::refresh_history(&target.database).await {
            tracing::debug!(target = %target.name, %fault, "the view of history waits");
            tokio::select! {
                () = target.shutdown.cancelled() => return,
                () = sleep_until(tokio::time::Instant::now() + TRY_AGAIN) => {}
            }
        }
    }
}

/// A pack, and where it stands.
struct Held {
    delivery: Delivery,
    body: bytes::Bytes,
}

struct Archivist {
    target: Arc<Target>,
    reader: Reader,
    keeper: Keeper,
}

impl Archivist {
    /// Waits for a message, then for others for a while, as far as they fit. `None`: stopping; what
    /// was gathered comes again.
    async fn gather(&mut self) -> Option<Vec<Held>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = self.reader.next().await;
        let until = Instant::now() + GATHER;
        while let Some(mut delivery) = next {
            let body = delivery.take_payload();
            bytes += body.len();
            batch.push(Held { delivery, body });
            if bytes >= BATCH_BYTES || batch.len() >= BATCH_MESSAGES {
                return Some(batch);
            }
            next = match timeout_at(until.into(), self.reader.next()).await {
                Ok(next) => next,
                Err(_elapsed) => return Some(batch),
            };
        }
        for Held { delivery, .. } in batch {
            delivery.hand_back(Duration::ZERO).await;
        }
        None
    }

    /// Stores a batch, however long that takes; `None`: stopping.
    async fn store(&mut self, batch: Vec<Held>) -> Option<()> {
        let patience = self.target.patience("archive");
        let mut pauses = Pauses::default();
        let (deliveries, bodies): (Vec<Delivery>, Vec<bytes::Bytes>) =
            batch.into_iter().map(|held| (held.delivery, held.body)).unzip();
        let positions = deliveries.iter().map(Delivery::position);
        let entries: Vec<Entry<'_>> = positions
            .zip(&bodies)
            .zip(&deliveries)
            .flat_map(|((position, body), delivery)| entries(position, body, delivery.subject()))
            .collect();
        loop {
            let writing = archive::write(&self.target.database, &entries);
            match self.keeper.keep(&deliveries, writing).await {
                Ok(committed) => {
                    patience.moving();
                    failpoint::hit(failpoint::BEFORE_ARCHIVE_ACK);
                    let labels = [("target", self.target.name.to_string())];
                    metrics::counter!("haystack_ingest_messages_archived_total", &labels)
                        .increment(entries.len() as u64);
                    for delivery in deliveries {
                        delivery.ack(&committed).await;
                    }
                    return Some(());
                }
                Err(fault) => {
                    let why = fault.to_string();
                    let pause = patience.pause(&mut pauses, &why);
                    if !self.keeper.keep(&deliveries, pause).await {
                        return None;
                    }
                }
            }
        }
    }
}

/// The messages of a pack; what is none is kept as one.
fn entries<'b>(position: Position, body: &'b [u8], subject: &str) -> Vec<Entry<'b>> {
    match envelope::decode_borrowed::<Pack<'b>>(body) {
        Ok(pack) if pack.entries.len() <= MAX_PACK_ENTRIES => (0..)
            .zip(pack.entries)
            .map(|(index, message)| Entry { position, index, message })
            .collect(),
        _ => {
            let message = RawMessage {
                name: subject.to_owned().into(),
                sender: None,
                content_type: UNDECODABLE.into(),
                received_at: position.stored_at,
                session: 0,
                packet_id: 0,
                number: 0,
                payload: body.into(),
            };
            vec![Entry { position, index: 0, message }]
        }
    }
}
