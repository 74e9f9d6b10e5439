//! Keeps the stream from delivering again what is only held.

use nats::Delivery;
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, interval_at};

/// The stream hears of what is held so often in the time that it waits.
const ASK_PER_WAIT: u32 = 3;

/// Asks for more time, without end. `ack_wait` is how long the stream waits.
pub(super) async fn ask_for_time(deliveries: &[Delivery], ack_wait: Duration) -> Infallible {
    let every = ack_wait / ASK_PER_WAIT;
    let mut again = interval_at(Instant::now() + every, every);
    loop {
        again.tick().await;
        for delivery in deliveries {
            delivery.in_progress().await;
        }
    }
}
