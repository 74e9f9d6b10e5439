//! Keeps deliveries ours while something takes long: tells the stream that they are in work.

use nats::Delivery;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The stream hears of a delivery so often in the time that it waits. Gatherer and writer each may
/// let a part pass before the other's clock starts, so it is more than twice.
const PER_WAIT: u32 = 3;

/// A clock for one group of deliveries after another.
pub(crate) struct Keeper {
    every: Duration,
    due: Instant,
}

impl Keeper {
    /// A clock for deliveries that the stream gives up after `ack_wait`.
    pub(crate) fn new(ack_wait: Duration) -> Self {
        let every = ack_wait / PER_WAIT;
        Self { every, due: Instant::now() + every }
    }

    /// Does something, and asks the stream for more time for the deliveries meanwhile.
    pub(crate) async fn keep<T>(
        &mut self,
        deliveries: &[Delivery],
        work: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(self.due) => {}
            }
            for delivery in deliveries {
                delivery.in_progress().await;
            }
            self.due = Instant::now() + self.every;
        }
    }
}
