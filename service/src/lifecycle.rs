//! From start to stop: signals, tasks, and how long a stop may take.

use std::{future::Future, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long draining may take after the first signal.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(9);

/// One process's life. Tasks run until the token is cancelled, and are waited for.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Lifecycle {
    /// A task that the stop waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// A part of this life that may end before it; its tasks are waited for, too.
    #[must_use]
    pub fn part(&self) -> Self {
        Self { shutdown: self.shutdown.child_token(), tasks: self.tasks.clone() }
    }

    /// Cancels on SIGTERM and SIGINT.
    pub fn stop_on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("stopping");
            shutdown.cancel();
        });
        Ok(())
    }

    /// Waits for the token, then for the tasks, at most [`DRAIN_LIMIT`]. `false`: some task did
    /// not end in time; what it held comes again.
    pub async fn drained(&self) -> bool {
        self.shutdown.cancelled().await;
        self.tasks.close();
        tokio::time::timeout(DRAIN_LIMIT, self.tasks.wait()).await.is_ok()
    }
}
