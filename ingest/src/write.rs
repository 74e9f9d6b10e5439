//! Writes batches of one org into one target, for as long as it takes.
//!
//! An outage holds the batch. A refusal of data is narrowed down to single rows; everything else
//! commits. Only then are messages acknowledged: those without a refused row with the proof of the
//! COMMIT, the others (see [`crate::settle`]) when their letters are stored as well.

use crate::{
    bisect::Bisection, counters, gather::Turns, gathered::Gathered, keep::Keeper, settle,
    target::Target,
};
use domain::{Row, Work, failpoint, ledger::Fates, merge::tidy};
use nats::{Delivery, publish::Patience, retry::Pauses};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use store::{Committed, Fault, OrgRef, Verdict};
use tokio::sync::mpsc;

/// Tries at once where writers met, before it counts as an outage. The store tried already.
const AGAIN: u32 = 2;

/// What was committed, what was refused.
pub(crate) type Narrowed = Bisection<Work, Committed, Fault>;

/// The writer of one org in one target.
pub(crate) struct OrgWriter {
    pub(crate) target: Arc<Target>,
    pub(crate) org: OrgRef,
    pub(crate) patience: Patience,
    pub(crate) keeper: Keeper,
    batches: mpsc::Receiver<Gathered>,
    turns: Arc<Turns>,
}

/// The process is to stop: what is not acknowledged comes again.
pub(crate) struct Stopping;

/// Why a batch is not written.
enum Interrupted {
    /// The process is to stop.
    Stopping,
    /// An outage, and the batch has many messages: its memory is for orgs that flow.
    Held,
}

impl OrgWriter {
    pub(crate) fn new(
        target: Arc<Target>,
        org: OrgRef,
        batches: mpsc::Receiver<Gathered>,
        turns: Arc<Turns>,
    ) -> Self {
        let patience = target.patience(org.key.as_str());
        let keeper = Keeper::new(target.ack_wait);
        Self { target, org, patience, keeper, batches, turns }
    }

    /// Writes until the process is to stop.
    pub(crate) async fn run(mut self) {
        let shutdown = self.target.shutdown.clone();
        loop {
            self.turns.offer();
            let batch = tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    // One may have been on its way here.
                    if let Ok(batch) = self.batches.try_recv() {
                        hand_back(batch.deliveries).await;
                    }
                    return;
                }
                batch = self.batches.recv() => batch,
            };
            let Some(batch) = batch else { return };
            if let Err(Stopping) = self.store(batch).await {
                return;
            }
        }
    }

    async fn store(&mut self, mut batch: Gathered) -> Result<(), Stopping> {
        let mut narrowed = Narrowed::new(std::mem::take(&mut batch.work));
        let narrowing = self.narrow(&mut batch, &mut narrowed).await;
        let written = match narrowing {
            Ok(()) => self.note(&mut batch, &mut narrowed).await,
            Err(interrupted) => Err(interrupted),
        };
        if let Err(interrupted) = written {
            hand_back(batch.deliveries).await;
            return match interrupted {
                Interrupted::Stopping => Err(Stopping),
                // What was committed comes again too, and changes nothing.
                Interrupted::Held => Ok(()),
            };
        }
        settle::settle(self, batch, narrowed).await?;
        self.flowing();
        Ok(())
    }

    /// Tries until every row is committed or shown to be refused.
    async fn narrow(
        &mut self,
        batch: &mut Gathered,
        narrowed: &mut Narrowed,
    ) -> Result<(), Interrupted> {
        let (mut pauses, mut seen, mut asked_again) = (Pauses::default(), 0, false);
        loop {
            self.try_all(batch, narrowed).await?;
            if let Some(fault) = doubted(batch, narrowed) {
                let why = format!("all rows are refused, so it may be the table: {}", fault.reason);
                self.doubt(batch, narrowed, &mut pauses, &why).await?;
                (seen, asked_again) = (0, false);
                continue;
            }
            // A row refused before its neighbours were taken may have met a table that has been
            // mended since: it is to blame only where it is refused after that, too.
            if !narrowed.refused.is_empty() && !asked_again {
                narrowed.doubt();
                (seen, asked_again) = (0, true);
                continue;
            }
            let refused = narrowed.refused[seen..].iter().flat_map(|(work, _)| &work.rows);
            let mut rows: Vec<Row> = refused.filter_map(|row| batch.fall_back(row)).collect();
            if rows.is_empty() {
                return Ok(());
            }
            seen = narrowed.refused.len();
            tidy(&mut rows);
            narrowed.add(Work { rows, ..Work::default() });
        }
    }

    /// Notes the messages, where that was not done with the rows: those were written in parts.
    async fn note(
        &mut self,
        batch: &mut Gathered,
        narrowed: &mut Narrowed,
    ) -> Result<(), Interrupted> {
        if narrowed.stored.iter().any(|committed| committed.counts().noted) {
            return Ok(());
        }
        failpoint::hit(failpoint::BEFORE_LEDGER);
        let mut fates = Fates::default();
        narrowed.stored.iter().for_each(|committed| fates += committed.counts().fates);
        fates.dead += narrowed.refused.iter().map(|(work, _)| work.rows.len() as u64).sum::<u64>();
        let page = batch.closing_page(fates);
        // Without rows nothing can be refused for what it says.
        if let Ok(committed) = self.attempt(batch, &Work { page, ..Work::default() }).await? {
            narrowed.stored.push(committed);
        }
        Ok(())
    }

    async fn try_all(
        &mut self,
        batch: &Gathered,
        narrowed: &mut Narrowed,
    ) -> Result<(), Interrupted> {
        while let Some(work) = narrowed.next() {
            match self.attempt(batch, work).await? {
                Ok(committed) => narrowed.store(committed),
                Err(fault) => narrowed.refuse(fault),
            }
        }
        Ok(())
    }

    /// Commits a piece of work, or gives back why its data is refused. Waits out everything else.
    async fn attempt(
        &mut self,
        batch: &Gathered,
        work: &Work,
    ) -> Result<Result<Committed, Fault>, Interrupted> {
        let (mut pauses, mut again) = (Pauses::default(), 0);
        loop {
            let fault = match self.write(batch, work).await {
                Ok(committed) => {
                    self.flowing();
                    return Ok(Ok(committed));
                }
                Err(fault) => fault,
            };
            match fault.verdict {
                // Deletions have no data that a table could refuse: then it is the table.
                Verdict::Data if !work.rows.is_empty() => return Ok(Err(fault)),
                Verdict::Again if again < AGAIN => again += 1,
                _ => {
                    self.turns.hold(true);
                    let pause = self.patience.pause(&mut pauses, &fault.reason);
                    if !self.keeper.keep(&batch.deliveries, pause).await {
                        return Err(Interrupted::Stopping);
                    }
                    if batch.deliveries.len() > 1 {
                        return Err(Interrupted::Held);
                    }
                }
            }
        }
    }

    async fn write(&mut self, batch: &Gathered, work: &Work) -> Result<Committed, Fault> {
        let (target, org) = (&self.target, &self.org);
        let gate = if self.turns.held() { &target.retries } else { &target.writes };
        let write = async {
            let _permit = gate.acquire().await;
            let begun = Instant::now();
            (target.writer.write(org, work).await, begun.elapsed())
        };
        let (written, took) = self.keeper.keep(&batch.deliveries, write).await;
        if written.is_ok() {
            counters::committed(&target.name, &org.key, work.rows.len(), took);
        }
        written
    }

    /// Holds rows of which none was taken, and takes other rows in, as witnesses: where those
    /// commit, the refused ones are to blame.
    async fn doubt(
        &mut self,
        batch: &mut Gathered,
        narrowed: &mut Narrowed,
        pauses: &mut Pauses,
        why: &str,
    ) -> Result<(), Interrupted> {
        narrowed.doubt();
        self.turns.hold(true);
        let may_grow = self.target.limits.admit(batch.size, crate::batching::Size::default());
        if may_grow {
            self.turns.offer();
        }
        let pause = self.patience.pause(pauses, why);
        let news = async {
            tokio::select! {
                biased;
                // None: the gatherer is gone, and with it every witness.
                witnesses = self.batches.recv(), if may_grow => {
                    witnesses.map(Some).ok_or(Interrupted::Stopping)
                }
                waited = pause => if waited { Ok(None) } else { Err(Interrupted::Stopping) },
            }
        };
        if let Some(witnesses) = self.keeper.keep(&batch.deliveries, news).await? {
            narrowed.add(batch.absorb(witnesses));
        }
        Ok(())
    }

    fn flowing(&mut self) {
        self.turns.hold(false);
        self.patience.moving();
    }
}

/// Somebody else gets them at once.
pub(crate) async fn hand_back(deliveries: Vec<Delivery>) {
    for delivery in deliveries {
        delivery.hand_back(Duration::ZERO).await;
    }
}

/// Why the table is doubted, not the rows: none was taken. Somebody may have added a constraint or
/// changed a column's type. What no text column of any table takes needs no witness: a NUL; nor does a row
/// that was to blame before and is tried again.
fn doubted<'n>(batch: &Gathered, narrowed: &'n Narrowed) -> Option<&'n Fault> {
    if narrowed.stored.iter().any(|committed| committed.counts().offered > 0) {
        return None;
    }
    let nul = |row: &Row| row.values.s.as_ref().is_some_and(|text| text.contains('\0'));
    let retried = |row: &Row| batch.brought(row.version).any(|at| batch.retried.contains_key(&at));
    let to_blame = |row: &Row| nul(row) || retried(row);
    let doubtful = narrowed.refused.iter().find(|(work, _)| !work.rows.iter().any(to_blame));
    doubtful.map(|(_, fault)| fault)
}
