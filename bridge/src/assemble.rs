//! Gateways' reports that come in parts: follows `CHUNKS`, ends each transaction once, and sees to
//! it that its end is done. Any instance goes on where another stopped: all of it stands in the
//! stream.

mod finish;

use crate::Shared;
use domain::{
    Clock, SystemClock,
    chunk::{End, Limits, Name, Transactions, Wish},
};
use finish::finish;
use nats::{
    PublishFault,
    chunks::{self, ChunkReader, Found, What},
    publish::{Patience, Stopped},
    retry::Pauses,
};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often transactions are looked at while nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A clock that stood still for longer (a process that was frozen) goes on by so much.
const LONGEST_TICK: Duration = Duration::from_secs(2);
/// The hold by which the connection to the broker says that it is none.
const BROKER: &str = "mqtt";

/// Runs until shutdown. What is under way then is taken up by whoever runs next.
pub(crate) async fn run(shared: Shared, limits: Limits) {
    let patience = shared.patience("chunks");
    let mut pauses = Pauses::default();
    let mut clock = Connected { time: Duration::ZERO, seen: Instant::now() };
    loop {
        let mut assembler = Assembler {
            shared: shared.clone(),
            patience: patience.clone(),
            transactions: Transactions::new(limits),
            clock: &mut clock,
        };
        let why = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            why = assembler.follow() => why,
        };
        if !patience.pause(&mut pauses, &why.to_string()).await {
            return;
        }
    }
}

/// Time in which parts could come: while the broker is connected, and this process lives.
struct Connected {
    time: Duration,
    seen: Instant,
}

impl Connected {
    fn tick(&mut self, shared: &Shared) -> Duration {
        let passed = self.seen.elapsed().min(LONGEST_TICK);
        self.seen = Instant::now();
        if !shared.holds.list().iter().any(|hold| hold.what == BROKER) {
            self.time += passed;
        }
        self.time
    }
}

struct Assembler<'c> {
    shared: Shared,
    patience: Patience,
    transactions: Transactions,
    clock: &'c mut Connected,
}

impl Assembler<'_> {
    /// Reads `CHUNKS` from its beginning, and does what is to be done as soon as all of it is known.
    async fn follow(&mut self) -> PublishFault {
        let mut reader = match ChunkReader::open(&self.shared.wire).await {
            Ok(reader) => reader,
            Err(fault) => return fault,
        };
        self.patience.moving();
        let mut known = reader.waiting() == 0;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let found = tokio::select! {
                biased;
                found = reader.next() => match found {
                    Ok(found) => Some(found),
                    Err(fault) => return fault,
                },
                _ = looks.tick() => None,
            };
            self.clock.tick(&self.shared);
            if let Some(found) = found {
                known = found.pending == 0;
                if let Err(fault) = self.take(found).await {
                    return fault;
                }
            }
            if known && let Err(fault) = self.work().await {
                return fault;
            }
        }
    }

    async fn take(&mut self, found: Found) -> Result<(), PublishFault> {
        let Found { sequence, what, .. } = found;
        let clock = self.clock.time;
        match what {
            Some(What::Part { name, at, facts, bytes, received_at }) => {
                self.transactions.part(&name, at, facts, (bytes, received_at), clock);
            }
            Some(What::End(name)) => {
                // Gone: somebody has done and forgotten it since.
                if let Some(end) = chunks::read_end(&self.shared.wire, sequence).await? {
                    self.transactions.end(&name, sequence, end, false, clock);
                }
            }
            Some(What::Done(name)) => self.transactions.done(&name, sequence, clock),
            None => tracing::warn!(sequence, "CHUNKS holds a message that is not ours"),
        }
        let (open, bytes) = self.transactions.size();
        metrics::gauge!("haystack_bridge_transactions_open").set(open as f64);
        metrics::gauge!("haystack_bridge_transactions_open_bytes").set(bytes as f64);
        Ok(())
    }

    async fn work(&mut self) -> Result<(), PublishFault> {
        for wish in self.transactions.wishes(SystemClock.now(), self.clock.time) {
            match wish {
                Wish::Remove(sequences) => {
                    chunks::remove(&self.shared.wire, &sequences).await?;
                }
                Wish::End { name, end, before } => self.end(name, end, before).await?,
                Wish::Finish { name, sequence, end } => {
                    if finish(&self.shared, &self.patience, &name, sequence, &end).await.is_err() {
                        // Stopping: whoever runs next goes on.
                        let Stopped = Stopped;
                        return Ok(());
                    }
                    self.done(&name, sequence).await?;
                }
            }
        }
        Ok(())
    }

    /// Writes the record of an end. Whatever fails, this reader is opened anew and finds out.
    async fn end(&mut self, name: Name, end: End, before: Vec<u64>) -> Result<(), PublishFault> {
        let wire = &self.shared.wire;
        if !before.is_empty() {
            chunks::remove(wire, &before).await?;
            self.transactions.forgotten(&name);
        }
        match chunks::write_end(wire, &name, &end).await {
            Ok(stored) => {
                let outcome = end.outcome.as_str();
                metrics::counter!("haystack_bridge_transactions_total", "outcome" => outcome)
                    .increment(1);
                let (clock, sequence) = (self.clock.time, stored.sequence());
                self.transactions.end(&name, sequence, end, true, clock);
                Ok(())
            }
            // Somebody else has ended it: the record is to come.
            Err(PublishFault::Conflict) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    async fn done(&mut self, name: &Name, sequence: u64) -> Result<(), PublishFault> {
        match chunks::mark_done(&self.shared.wire, name, sequence).await {
            Ok(stored) => {
                self.transactions.done(name, stored.sequence(), self.clock.time);
                Ok(())
            }
            Err(PublishFault::Conflict) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}
