//! What the service counts, for `status` and for Prometheus.

use domain::{OrgKey, Reason, TargetName};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A transaction of so many rows was committed.
pub(crate) fn committed(target: &TargetName, org: &OrgKey, rows: usize, took: Duration) {
    let labels = [("target", target.to_string()), ("org", org.to_string())];
    metrics::counter!("haystack_ingest_rows_committed_total", &labels).increment(rows as u64);
    metrics::histogram!("haystack_ingest_batch_rows", &labels).record(rows as f64);
    metrics::histogram!("haystack_ingest_commit_seconds", &labels).record(took);
}

/// Counters since the start of the process.
pub(crate) struct Counters {
    stored: BTreeMap<TargetName, AtomicU64>,
    letters: AtomicU64,
}

impl Counters {
    pub(crate) fn new<'a>(targets: impl Iterator<Item = &'a TargetName>) -> Self {
        let stored = targets.map(|target| (target.clone(), AtomicU64::new(0))).collect();
        Self { stored, letters: AtomicU64::new(0) }
    }

    /// So many rows of acknowledged messages are in the target, or superseded there.
    pub(crate) fn stored(&self, target: &TargetName, rows: usize) {
        if let Some(stored) = self.stored.get(target) {
            stored.fetch_add(rows as u64, Ordering::Relaxed);
        }
    }

    /// A letter was written.
    pub(crate) fn letter(&self, target: &TargetName, reason: Reason) {
        let labels = [("target", target.to_string()), ("reason", reason.to_string())];
        metrics::counter!("haystack_ingest_letters_total", &labels).increment(1);
        self.letters.fetch_add(1, Ordering::Relaxed);
    }

    /// As `status` shows them.
    pub(crate) fn list(&self) -> BTreeMap<String, u64> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let stored =
            self.stored.iter().map(|(name, stored)| (format!("stored.{name}"), read(stored)));
        stored.chain([("letters".to_owned(), read(&self.letters))]).collect()
    }
}
