//! How long to wait before the next attempt: one schedule for every outage.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// First pause.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: how late, at worst, the end of an outage is noticed (plus jitter).
pub const LONGEST: Duration = Duration::from_secs(5);

/// Pauses that grow to [`LONGEST`], with jitter, without end.
pub struct Pauses(backon::ExponentialBackoff);

impl Default for Pauses {
    fn default() -> Self {
        let builder = ExponentialBuilder::default()
            .with_min_delay(FIRST)
            .with_max_delay(LONGEST)
            .with_jitter()
            .without_max_times();
        Self(builder.build())
    }
}

impl Pauses {
    /// The next pause, for who waits by other means.
    pub fn next_pause(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST)
    }

    /// Waits the next pause; `false` where the process is to stop.
    pub async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let pause = self.next_pause();
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}
