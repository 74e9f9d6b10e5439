//! What the bridge counts, for `status` and for Prometheus.

use domain::Reason;
use metrics::{Counter, Histogram, counter, histogram};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counters since the start of the process.
pub(crate) struct Counters {
    messages: Tally,
    redelivered: Tally,
    repeated: Tally,
    profile_hits: Tally,
    profile_misses: Tally,
    receipts: Tally,
    receipts_dropped: Tally,
    late: Tally,
    readings: Tally,
    letters: AtomicU64,
    payload_bytes: Counter,
    pack_messages: Histogram,
}

/// One number, kept for `status` and told to Prometheus.
struct Tally {
    count: AtomicU64,
    metric: Counter,
}

impl Tally {
    fn new(metric: Counter) -> Self {
        Self { count: AtomicU64::new(0), metric }
    }

    fn add(&self, n: u64) {
        self.count.fetch_add(n, Ordering::Relaxed);
        self.metric.increment(n);
    }
}

impl Counters {
    /// The process's metrics recorder must be there already: handles are taken once.
    pub(crate) fn new() -> Self {
        Self {
            messages: Tally::new(counter!("haystack_bridge_messages_received_total")),
            redelivered: Tally::new(counter!("haystack_bridge_messages_redelivered_total")),
            repeated: Tally::new(counter!("haystack_bridge_messages_repeated_total")),
            profile_hits: Tally::new(
                counter!("haystack_bridge_profile_lookups_total", "found" => "in_memory"),
            ),
            profile_misses: Tally::new(
                counter!("haystack_bridge_profile_lookups_total", "found" => "asked"),
            ),
            receipts: Tally::new(counter!("haystack_bridge_receipts_total")),
            receipts_dropped: Tally::new(counter!("haystack_bridge_receipts_dropped_total")),
            late: Tally::new(counter!("haystack_bridge_readings_late_total")),
            readings: Tally::new(counter!("haystack_bridge_readings_total")),
            letters: AtomicU64::new(0),
            payload_bytes: counter!("haystack_bridge_payload_bytes_total"),
            pack_messages: histogram!("haystack_bridge_pack_messages"),
        }
    }

    /// The broker delivered a message; `again`: not for the first time, as it says.
    pub(crate) fn received(&self, payload_bytes: usize, again: bool) {
        self.messages.add(1);
        self.payload_bytes.increment(payload_bytes as u64);
        if again {
            self.redelivered.add(1);
        }
    }

    /// A redelivered message is one that is known: it bears the moment of the first time.
    pub(crate) fn repeated(&self) {
        self.repeated.add(1);
    }

    /// Who a sender is was known without asking, or not.
    pub(crate) fn profile(&self, known: bool) {
        if known { &self.profile_hits } else { &self.profile_misses }.add(1);
    }

    /// A receipt waits to be sent, or there was no room for it.
    pub(crate) fn receipt(&self, taken: bool) {
        if taken { &self.receipts } else { &self.receipts_dropped }.add(1);
    }

    /// So many readings are of long before they came.
    pub(crate) fn late(&self, readings: usize) {
        self.late.add(readings as u64);
    }

    /// A pack of so many messages is in `RAW`.
    pub(crate) fn packed(&self, messages: usize) {
        self.pack_messages.record(messages as f64);
    }

    /// So many readings are in `TELEMETRY`.
    pub(crate) fn normalized(&self, readings: usize) {
        self.readings.add(readings as u64);
    }

    /// A letter is in `DEAD`.
    pub(crate) fn letter(&self, reason: Reason) {
        counter!("haystack_bridge_letters_total", "reason" => reason.as_str()).increment(1);
        self.letters.fetch_add(1, Ordering::Relaxed);
    }

    /// As `status` shows them.
    pub(crate) fn list(&self) -> BTreeMap<String, u64> {
        let counters = [
            ("messages", &self.messages.count),
            ("redelivered", &self.redelivered.count),
            ("repeated", &self.repeated.count),
            ("profile_hits", &self.profile_hits.count),
            ("profile_misses", &self.profile_misses.count),
            ("receipts", &self.receipts.count),
            ("receipts_dropped", &self.receipts_dropped.count),
            ("late", &self.late.count),
            ("readings", &self.readings.count),
            ("letters", &self.letters),
        ];
        let read =
            |(name, count): (&str, &AtomicU64)| (name.to_owned(), count.load(Ordering::Relaxed));
        counters.map(read).into()
    }
}
