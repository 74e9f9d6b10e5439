//! Normalize: reads `RAW`, stores readings in `TELEMETRY` and letters in `DEAD`, then acknowledges.
//!
//! One task decodes and normalizes, so at most one device's payload is spread out in memory; what
//! comes of it is stored by a few tasks while the next messages are worked on. The order of
//! storing does not matter: versions were born in `RAW`.

mod batch;
mod clocks;
mod keep;
mod news;
mod store;
mod strangers;

use crate::Shared;
use batch::Work;
use clocks::Clocks;
use domain::{Clock, SystemClock, failpoint, normalize::TimeLimits};
use keep::ask_for_time;
use nats::{
    CancellationToken, Delivery, Reader, consume::Durable, inspect::NORMALIZE, publish::Patience,
    streams::RAW,
};
use news::News;
use rules::{Known, Normalized, NotYet, Stored, Strangers, normalize_message};
use std::{sync::Arc, time::Duration};
use store::store;
use strangers::Aside;
pub(crate) use strangers::register;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pieces of work that are being stored while the next is worked on.
const MAX_IN_FLIGHT: usize = 3;

/// Runs until the door is closed; ends when what is on its way is stored, or will come again.
pub(crate) async fn run(shared: Shared, limits: TimeLimits, door_closed: CancellationToken) {
    let mut durable = Durable::new(RAW, NORMALIZE.to_owned(), "raw.>".to_owned());
    durable.ack_wait = shared.ack_wait;
    let patience = Patience { shutdown: door_closed, ..shared.patience("normalize") };
    let reader = Reader::new(shared.wire.clone(), durable, patience);
    let (aside, clocks) = (Aside::new(shared.clone()), Clocks::default());
    let mut normalizer = Normalizer { shared: shared.clone(), limits, reader, aside, clocks };
    let room = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let news = News::default();
    tokio::spawn(news.clone().run(shared.clone()));
    loop {
        let permit = permits(&room, 1).await;
        let Some(work) = normalizer.next_work().await else { break };
        tokio::spawn(finish(shared.clone(), news.clone(), work, permit));
    }
    drop(permits(&room, MAX_IN_FLIGHT as u32).await);
    normalizer.hand_back().await;
}

async fn permits(room: &Arc<Semaphore>, n: u32) -> OwnedSemaphorePermit {
    room.clone().acquire_many_owned(n).await.expect("the semaphore is never closed")
}

struct Normalizer {
    shared: Shared,
    limits: TimeLimits,
    reader: Reader,
    /// Messages that wait until what they speak of is registered.
    aside: Aside,
    clocks: Clocks,
}

impl Normalizer {
    /// Waits for a message, then takes what else is there, as far as it fits. `None`: stopping.
    async fn next_work(&mut self) -> Option<Work> {
        let mut work = Work::default();
        let mut next = tokio::select! {
            biased;
            delivery = self.aside.next() => Some((delivery, true)),
            delivery = self.reader.next() => Some((delivery?, false)),
        };
        while let Some((delivery, created)) = next {
            match self.normalize(&delivery, created).await? {
                Ok(normalized) => {
                    self.tell(&normalized);
                    work.add(delivery, normalized);
                }
                Err(strangers) => self.aside.put(delivery, strangers).await,
            }
            next = if work.is_full() { None } else { self.try_next() };
            tokio::task::yield_now().await;
        }
        Some(work)
    }

    fn try_next(&mut self) -> Option<(Delivery, bool)> {
        let back = self.aside.try_next().map(|delivery| (delivery, true));
        back.or_else(|| self.reader.try_next().map(|delivery| (delivery, false)))
    }

    /// What the messages said of time, for the metrics.
    fn tell(&mut self, normalized: &Normalized) {
        let mut late = 0;
        for ((_, group), told) in normalized.groups.iter().zip(&normalized.told) {
            late += told.late;
            if let Some(device) = &group.device {
                self.clocks.note(device, *told);
            }
        }
        if late > 0 {
            self.shared.counters.late(late);
        }
    }

    /// `Err`: something is to be registered first. `created`: it was, as far as it can be. `None`:
    /// stopping.
    async fn normalize(
        &mut self,
        delivery: &Delivery,
        created: bool,
    ) -> Option<Result<Normalized, Strangers>> {
        let mut settled = created;
        loop {
            match self.attempt(delivery, settled, created) {
                Ok(normalized) => return Some(Ok(normalized)),
                Err(NotYet::Create(strangers)) => return Some(Err(strangers)),
                // The door that took the message may have known more than is known here yet.
                Err(NotYet::Unsettled) => {}
            }
            let patience = self.shared.patience("normalize");
            if !self.shared.directory.caught_up(&self.shared.wire, &patience).await {
                return None;
            }
            settled = true;
        }
    }

    /// Returns what was delivered ahead: the next instance need not wait until it is given up.
    async fn hand_back(mut self) {
        let ahead: Vec<Delivery> =
            std::iter::from_fn(|| self.try_next().map(|(delivery, _)| delivery)).collect();
        // Unsubscribed first: what is handed back must not be delivered here again.
        drop(self.reader);
        for delivery in ahead {
            delivery.hand_back(Duration::ZERO).await;
        }
    }

    /// One look at the directory for the whole message.
    fn attempt(
        &self,
        delivery: &Delivery,
        settled: bool,
        created: bool,
    ) -> Result<Normalized, NotYet> {
        let directory = self.shared.directory.read();
        let known = Known { directory: &directory, limits: self.limits, settled, created };
        let (position, subject) = (delivery.position(), delivery.subject());
        let stored = Stored { position, subject, body: delivery.payload() };
        normalize_message(stored, known, SystemClock.now())
    }
}

/// Stores what came of the messages and acknowledges them. Where it can't before the process
/// stops, they come again.
async fn finish(shared: Shared, news: News, mut work: Work, permit: OwnedSemaphorePermit) {
    let _room = permit;
    let parts = work.take_parts();
    let storing = store(&shared, parts, std::mem::take(&mut work.letters));
    let stored = tokio::select! {
        stored = storing => stored,
        never = ask_for_time(&work.deliveries, shared.ack_wait) => match never {},
    };
    let Ok(stored) = stored else { return };
    failpoint::hit(failpoint::BEFORE_RAW_ACK);
    news.tell(std::mem::take(&mut work.presences));
    for delivery in work.deliveries {
        delivery.ack(&stored).await;
    }
}
