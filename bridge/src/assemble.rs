//! Gateways' reports that come in parts: follows `CHUNKS`, ends each transaction once, and sees to
//! it that its end is done. Any instance goes on where another stopped: all of it stands in the
//! stream.

mod finish;

use crate::Shared;
use domain::{
    Clock, Hold, SystemClock,
    chunk::{End, Limits, Name, Outcome, Transactions, Wish},
};
use finish::finish;
use futures_util::{StreamExt, stream};
use nats::{
    PublishFault,
    chunks::{self, ChunkReader, Found, What},
    publish::{self, Patience},
    retry::Pauses,
    streams::CHUNKS,
};
use std::{sync::PoisonError, time::Duration};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// How often transactions are looked at while nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest time between two looks that counts: a process that was frozen saw nothing come.
const LONGEST_TICK: Duration = Duration::from_secs(2);
/// A stream server that does not answer for so long is none.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The door is told of overrun gateways once in so many messages.
const OVERRUN_EVERY: u64 = 64;
/// What is done at once.
const AT_ONCE: usize = 32;
/// Holds during which no part can come: no broker, or a door that waits.
const CLOSED: [&str; 2] = ["mqtt", "raw"];

/// Runs until shutdown; what is under way then is taken up by whoever runs next. Begins when `may_go` says that the door has looked at what is there.
pub(crate) async fn run(shared: Shared, limits: Limits, may_go: oneshot::Receiver<()>) {
    if may_go.await.is_err() {
        return;
    }
    let patience = shared.patience("chunks");
    let mut pauses = Pauses::default();
    let mut clock = Connected { time: Duration::ZERO, seen: Instant::now() };
    loop {
        let mut assembler = Assembler {
            shared: shared.clone(),
            patience: patience.clone(),
            transactions: Transactions::new(limits),
            clock: &mut clock,
            seen: 0,
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

/// Time in which parts could come: broker and stream are there, and this process lives.
struct Connected {
    time: Duration,
    seen: Instant,
}

impl Connected {
    /// Time goes on where the stream has just answered and no door waits.
    fn tick(&mut self, shared: &Shared, answered: bool) {
        let passed = self.seen.elapsed().min(LONGEST_TICK);
        self.seen = Instant::now();
        let closed = |hold: &Hold| CLOSED.contains(&&*hold.what);
        if answered && !shared.holds.list().iter().any(closed) {
            self.time += passed;
        }
    }
}

struct Assembler<'c> {
    shared: Shared,
    patience: Patience,
    transactions: Transactions,
    clock: &'c mut Connected,
    /// The last sequence that was read.
    seen: u64,
}

/// What became of a wish.
enum Done {
    Removed,
    /// The record of an end, where we were the one who wrote it.
    Ended {
        name: Name,
        end: End,
        stored: Option<u64>,
        forgotten: bool,
    },
    /// An end was seen to; the sequence of its mark.
    Finished {
        name: Name,
        mark: u64,
    },
    /// Stopping.
    Left,
}

impl Assembler<'_> {
    /// Reads `CHUNKS` from its beginning, and does what is to be done as soon as all of it is known.
    async fn follow(&mut self) -> PublishFault {
        let mut reader = match ChunkReader::open(&self.shared.wire).await {
            Ok(reader) => reader,
            Err(fault) => return fault,
        };
        self.patience.moving();
        let mut known;
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
            if let Some(found) = found {
                known = found.pending == 0;
                self.seen = found.sequence;
                if let Err(fault) = self.take(found).await {
                    return fault;
                }
            } else {
                // Time goes on here alone: where the stream has just answered.
                let last = chunks::last_sequence(&self.shared.wire);
                let answer = timeout(ANSWER_LIMIT, last).await;
                let last = answer.ok().and_then(Result::ok);
                self.clock.tick(&self.shared, last.is_some());
                let Some(last) = last else { continue };
                known = self.seen >= last;
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
            Some(What::End(name)) => match chunks::read_end(&self.shared.wire, sequence).await? {
                Some(end) => self.transactions.end(&name, sequence, end, false, clock),
                // Done and forgotten since: what it named can only be known by reading anew.
                None => return Err(anew()),
            },
            Some(What::Done(name)) => self.transactions.done(&name, sequence, clock),
            None => tracing::warn!(sequence, "CHUNKS holds a message that is not ours"),
        }
        // Also while more comes than is caught up with: that is when it matters.
        if sequence % OVERRUN_EVERY == 0 {
            self.tell_overrun();
        }
        let (open, bytes) = self.transactions.size();
        metrics::gauge!("haystack_bridge_transactions_open").set(open as f64);
        metrics::gauge!("haystack_bridge_transactions_open_bytes").set(bytes as f64);
        Ok(())
    }

    /// Tells the door of which gateways no part is to be taken.
    fn tell_overrun(&self) {
        let overrun = self.transactions.overrun();
        *self.shared.overrun.write().unwrap_or_else(PoisonError::into_inner) = overrun;
    }

    async fn work(&mut self) -> Result<(), PublishFault> {
        let mut wishes = self.transactions.wishes(SystemClock.now(), self.clock.time);
        self.tell_overrun();
        if wishes.is_empty() {
            return Ok(());
        }
        // What is whole does not wait for what is not.
        wishes.sort_by_key(|wish| {
            !matches!(
                wish,
                Wish::End { end, .. } | Wish::Finish { end, .. } if end.outcome == Outcome::Complete
            )
        });
        let (shared, patience) = (self.shared.clone(), self.patience.clone());
        let each = wishes.into_iter().map(|wish| fulfil(&shared, &patience, wish));
        let mut done = stream::iter(each.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some(done) = done.next().await {
            let clock = self.clock.time;
            match done? {
                Done::Removed | Done::Left => {}
                Done::Ended { name, end, stored, forgotten } => {
                    if forgotten {
                        self.transactions.forgotten(&name);
                    }
                    if let Some(sequence) = stored {
                        self.transactions.end(&name, sequence, end, true, clock);
                    }
                }
                Done::Finished { name, mark } => self.transactions.done(&name, mark, clock),
            }
        }
        Ok(())
    }
}

/// A reader that has lost its place begins anew.
fn anew() -> PublishFault {
    PublishFault::Later("an end went while it was read; reading anew".to_owned())
}

async fn fulfil(shared: &Shared, patience: &Patience, wish: Wish) -> Result<Done, PublishFault> {
    let wire = &shared.wire;
    match wish {
        Wish::Remove(sequences) => {
            publish::remove(wire, CHUNKS, &sequences).await?;
            Ok(Done::Removed)
        }
        Wish::End { name, end, before } => {
            publish::remove(wire, CHUNKS, &before).await?;
            let forgotten = !before.is_empty();
            // Whatever fails, the reader is opened anew and finds out.
            let stored = match chunks::write_end(wire, &name, &end).await {
                Ok(stored) => {
                    let outcome = end.outcome.as_str();
                    metrics::counter!("haystack_bridge_transactions_total", "outcome" => outcome)
                        .increment(1);
                    Some(stored.sequence())
                }
                // Somebody else has ended it: the record is to come.
                Err(PublishFault::Conflict) => None,
                Err(fault) => return Err(fault),
            };
            Ok(Done::Ended { name, end, stored, forgotten })
        }
        Wish::Finish { name, sequence, end } => {
            // Stopping: whoever runs next goes on.
            let Ok(()) = finish(shared, patience, &name, sequence, &end).await else {
                return Ok(Done::Left);
            };
            match chunks::mark_done(wire, &name, sequence).await {
                Ok(stored) => Ok(Done::Finished { name, mark: stored.sequence() }),
                // Somebody else did, and may have forgotten it since.
                Err(PublishFault::Conflict) => Err(anew()),
                Err(fault) => Err(fault),
            }
        }
    }
}
