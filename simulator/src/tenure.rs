//! Whether a lease is still ours.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long the lease is ours, as far as we know: a process that was frozen wakes up with requests
/// that somebody else has answered since.
pub(crate) struct Tenure {
    renewed: Mutex<Instant>,
    lasts: Duration,
}

impl Tenure {
    /// A lease that was asked for at that time.
    pub(crate) fn new(asked: Instant, lasts: Duration) -> Self {
        Self { renewed: Mutex::new(asked), lasts }
    }

    /// How long it lasts.
    pub(crate) fn lasts(&self) -> Duration {
        self.lasts
    }

    /// It was renewed by a request of that time.
    pub(crate) fn renew(&self, at: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Whether nobody else can have the lease.
    pub(crate) fn holds(&self) -> bool {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.lasts
    }
}
