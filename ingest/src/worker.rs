//! One org's readings into one target: a gatherer and a writer, side by side.
//!
//! In memory are at most the batch being written, the next one being gathered, and one fetch.

use crate::{
    gather::{Gatherer, Turns},
    keep::Keeper,
    target::Target,
    write::OrgWriter,
};
use domain::subject::telemetry_of;
use nats::{Reader, consume::Durable, inspect::ingest_consumer, streams::TELEMETRY};
use std::{sync::Arc, time::Duration};
use store::OrgRef;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Gathered batches that wait for the writer. It asks for one when it is free, so none waits long.
const BATCHES_WAITING: usize = 1;

/// Longest wait for a stream server that does not take the last acknowledgements.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Moves readings until the process is to stop.
pub(crate) async fn run(target: Arc<Target>, org: OrgRef) {
    let name = ingest_consumer(&target.name, &org.key);
    let mut durable = Durable::new(TELEMETRY, name, telemetry_of(&org.key)).one_ahead();
    durable.ack_wait = target.ack_wait;
    let patience = target.patience(&format!("{}/stream", org.key));
    let reader = Reader::new(target.wire.clone(), durable, patience);
    let turns = Turns::new();
    let (full, batches) = mpsc::channel(BATCHES_WAITING);
    let (room, shutdown) = (target.room.clone(), target.shutdown.clone());
    let keeper = Keeper::new(target.ack_wait);
    let (limits, first) = (target.limits, target.is_primary);
    let gatherer = Gatherer::new(reader, limits, turns.clone(), room, shutdown, keeper, first);
    // A task of its own: reading messages and feeding the database each take a core.
    // Without a writer nobody would take what it keeps: it goes when this function goes.
    let gathering = AbortOnDropHandle::new(tokio::spawn(gatherer.run(full)));
    let wire = target.wire.clone();
    // Ends when the process is to stop or the gatherer is gone; the gatherer hands back the rest.
    OrgWriter::new(target, org, batches, turns).run().await;
    if let Err(error) = gathering.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
    // The last acknowledgements leave before the process does.
    let _ = tokio::time::timeout(LAST_WORDS, wire.client.flush()).await;
}
