//! Reads one org's telemetry for one target and makes batches of it, while the batch before is
//! being written.

use crate::{
    batching::{self, Limits, Moment, Step},
    gathered::{Gathered, Message},
    keep::Keeper,
};
use domain::Row;
use nats::{CancellationToken, Delivery, Reader};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Messages of one fetch.
const FETCH_MESSAGES: usize = 1_000;
/// Bytes of one fetch. A larger message comes alone, by the reader's own request.
const FETCH_BYTES: usize = 512 << 10;
/// How much larger messages are in memory than on the wire: a small reading is some twenty bytes
/// there and a [`Row`] here.
const EXPANSION: usize = size_of::<Row>() / 20;
/// Memory of one fetch, in KiB.
const FETCH_ROOM: u32 = ((EXPANSION * FETCH_BYTES) >> 10) as u32;

/// The writer's side: it hands out a turn when it waits for a batch, and says when it is held.
pub(crate) struct Turns {
    turns: Semaphore,
    held: AtomicBool,
}

impl Turns {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { turns: Semaphore::new(0), held: AtomicBool::new(false) })
    }

    /// Whether the org is held. Then it leaves the memory that all orgs of the target share to
    /// those that flow, and tries with one message at a time.
    pub(crate) fn held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// The writer waits for a batch.
    pub(crate) fn offer(&self) {
        if self.turns.available_permits() == 0 {
            self.turns.add_permits(1);
        }
    }

    fn free(&self) -> bool {
        self.turns.available_permits() > 0
    }

    /// Waits until the writer is free. Never closed, so acquiring can't fail.
    async fn wait(&self) {
        drop(self.turns.acquire().await);
    }

    /// Waits for the turn and takes it.
    async fn take(&self) {
        if let Ok(turn) = self.turns.acquire().await {
            turn.forget();
        }
    }
}

/// Makes batches.
pub(crate) struct Gatherer {
    reader: Reader,
    limits: Limits,
    turns: Arc<Turns>,
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
    keeper: Keeper,
    /// Whether this is for the first target: senders wait for its COMMIT.
    first: bool,
    /// Fetched and not read yet.
    fetched: VecDeque<Delivery>,
    /// Read, and too large for the batch before.
    carried: Option<Message>,
}

impl Gatherer {
    pub(crate) fn new(
        reader: Reader,
        limits: Limits,
        turns: Arc<Turns>,
        room: Arc<Semaphore>,
        shutdown: CancellationToken,
        keeper: Keeper,
        first: bool,
    ) -> Self {
        let (fetched, carried) = (VecDeque::new(), None);
        Self { reader, limits, turns, room, shutdown, keeper, first, fetched, carried }
    }

    /// Makes batches until the process is to stop or nobody takes them.
    pub(crate) async fn run(mut self, batches: mpsc::Sender<Gathered>) {
        loop {
            let mut batch = Gathered::default();
            if self.gather(&mut batch).await.is_none() {
                return self.hand_back(batch).await;
            }
            let batch = batch.finish();
            let turn = self.keeper.keep(&batch.deliveries, self.turns.take());
            tokio::select! {
                () = self.shutdown.cancelled() => return self.hand_back(batch).await,
                () = turn => {}
            }
            if let Err(mpsc::error::SendError(batch)) = batches.send(batch).await {
                return self.hand_back(batch).await;
            }
        }
    }

    /// Everything that was delivered and will not be written here: somebody else gets it at once.
    async fn hand_back(&mut self, batch: Gathered) {
        let carried = self.carried.take().map(|message| message.delivery);
        let fetched = std::mem::take(&mut self.fetched);
        for delivery in batch.deliveries.into_iter().chain(carried).chain(fetched) {
            delivery.hand_back(Duration::ZERO).await;
        }
        while let Some(delivery) = self.reader.try_next() {
            delivery.hand_back(Duration::ZERO).await;
        }
    }

    /// Fills a batch; `None`: stop.
    async fn gather(&mut self, batch: &mut Gathered) -> Option<()> {
        let first = match self.carried.take() {
            Some(message) => message,
            None => Message::read(self.next().await?),
        };
        let mut drained = first.delivery.pending() == 0;
        let (begun, under_load) = (Instant::now(), !self.turns.free());
        batch.add(first);
        while self.take_fetched(batch) {
            let mut permit = self.permit();
            let moment = Moment {
                drained,
                room: permit.is_some(),
                writer_free: self.turns.free(),
                under_load,
                waited_for: self.first && batch.waited_for,
                age: begun.elapsed(),
            };
            match batching::step(batch.size, &self.limits, moment) {
                Step::Go => break,
                Step::Fetch => {
                    drained = self.fetch().await;
                    batch.room.extend(permit.take());
                }
                Step::Wait(limit) => {
                    let room = permit.is_some();
                    drop(permit);
                    if let Some(news) = self.wait(batch, room, limit).await? {
                        drained = news.pending() == 0;
                        self.fetched.push_back(news);
                    }
                }
            }
        }
        Some(())
    }

    async fn next(&mut self) -> Option<Delivery> {
        match self.fetched.pop_front() {
            Some(delivery) => Some(delivery),
            None => self.reader.next().await,
        }
    }

    /// Moves what was fetched into the batch; `false` where one does not fit any more.
    fn take_fetched(&mut self, batch: &mut Gathered) -> bool {
        while let Some(delivery) = self.fetched.pop_front() {
            let message = Message::read(delivery);
            if !self.limits.admit(batch.size, message.size) {
                self.carried = Some(message);
                return false;
            }
            batch.add(message);
        }
        true
    }

    /// Memory for one more fetch, where there is some.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if self.turns.held() {
            return None;
        }
        self.room.clone().try_acquire_many_owned(FETCH_ROOM).ok()
    }

    /// Fetches what is there; whether that was all.
    async fn fetch(&mut self) -> bool {
        let found = self.reader.fetch(FETCH_MESSAGES, FETCH_BYTES).await;
        let drained = found.last().is_none_or(|last| last.pending() == 0);
        self.fetched.extend(found);
        drained
    }

    /// Waits for the writer, a message (given back) or the limit. `None`: stop.
    async fn wait(
        &mut self,
        batch: &Gathered,
        room: bool,
        limit: Option<Duration>,
    ) -> Option<Option<Delivery>> {
        let Self { reader, turns, shutdown, keeper, .. } = self;
        let lingers = limit.is_some();
        let expired = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let news = async {
            tokio::select! {
                () = shutdown.cancelled() => None,
                () = expired => Some(None),
                () = turns.wait(), if !lingers => Some(None),
                next = reader.next(), if room => next.map(Some),
            }
        };
        keeper.keep(&batch.deliveries, news).await
    }
}
