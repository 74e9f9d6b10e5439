//! One target: what its projection and its workers share.

use crate::{batching::Limits, counters::Counters};
use domain::{Holds, TargetName};
use nats::{CancellationToken, Wire, publish::Patience};
use std::{sync::Arc, time::Duration};
use store::{Database, Login, Writer, connect::BadLogin};
use tokio::sync::{Notify, Semaphore};

/// Transactions at once of workers that flow.
const WRITES: usize = 6;
/// Transactions at once of workers that are held: they never take a connection from the others.
const RETRIES: usize = 2;
/// The workers' connections, the projection's, the archive's, and one to spare.
const CONNECTIONS: u32 = (WRITES + RETRIES) as u32 + 3;
/// Most messages of one batch: two batches and what is fetched stay below the acknowledgements
/// that a consumer may owe (20,000).
const BATCH_MESSAGES: usize = 6_000;
/// Bytes that batches may take beyond the first message of each, over all targets.
const BATCHES_IN_MEMORY: usize = 32 << 20;
/// The least share of that a target has.
const LEAST_SHARE: usize = 4 << 20;

/// A target.
pub(crate) struct Target {
    pub(crate) name: TargetName,
    /// Whether it is the one whose COMMIT senders wait for.
    pub(crate) is_primary: bool,
    pub(crate) database: Database,
    pub(crate) writer: Writer,
    pub(crate) wire: Wire,
    pub(crate) holds: Holds,
    pub(crate) shutdown: CancellationToken,
    pub(crate) limits: Limits,
    /// How long the stream waits for an acknowledgement.
    pub(crate) ack_wait: Duration,
    pub(crate) counters: Arc<Counters>,
    /// Memory for batches, in KiB.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) writes: Semaphore,
    pub(crate) retries: Semaphore,
    /// There may be another org.
    pub(crate) orgs_changed: Notify,
}

impl Target {
    /// Connects nobody yet; an error is a mistake in the configuration.
    pub(crate) fn open(
        config: &service::Config,
        name: &TargetName,
        login: &Login,
        wire: Wire,
        holds: Holds,
        shutdown: CancellationToken,
        counters: Arc<Counters>,
    ) -> Result<Self, BadLogin> {
        let limits = store::Limits { connections: CONNECTIONS, ..store::Limits::default() };
        let database = Database::open(login, "haystack-ingest", limits)?;
        let share = (BATCHES_IN_MEMORY / config.targets.len().max(1)).max(LEAST_SHARE);
        Ok(Self {
            name: name.clone(),
            is_primary: config.primary().0 == name,
            writer: Writer::new(database.clone()),
            database,
            wire,
            holds,
            shutdown,
            limits: Limits {
                rows: config.ingest.batch_rows.max(1),
                bytes: config.ingest.batch_bytes.max(1),
                messages: BATCH_MESSAGES,
                linger: Duration::from_millis(config.ingest.linger_ms),
            },
            ack_wait: config.ack_wait(),
            counters,
            room: Arc::new(Semaphore::new(share >> 10)),
            writes: Semaphore::new(WRITES),
            retries: Semaphore::new(RETRIES),
            orgs_changed: Notify::new(),
        })
    }

    /// Where something of this target says what it waits for: `{target}/{what}`.
    pub(crate) fn patience(&self, what: &str) -> Patience {
        Patience {
            holds: self.holds.clone(),
            what: format!("{}/{what}", self.name),
            shutdown: self.shutdown.clone(),
        }
    }
}
