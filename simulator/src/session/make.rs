//! Readings: made, published, saved, counted.

use super::{Gap, Over, Session};
use domain::{Timestamp, failpoint, simulator::EventType};
use serde_json::json;
use std::sync::atomic::Ordering;

impl Session {
    pub(super) async fn make(&mut self, now: Timestamp) -> Result<(), Over> {
        let mut memory = self.memory.clone();
        // A new description waits for a boundary of its own.
        let until = if self.waits_to_adopt() {
            memory.at.plus_micros(self.simulated.interval())
        } else {
            self.timing.due(now)
        };
        // A large building takes a while, and leases are renewed beside it.
        let produce = || self.simulated.produce(&mut memory, until.min(now));
        let Some(produced) = tokio::task::block_in_place(produce) else { return Ok(()) };
        let link = self.link(self.saved.run, memory.at, None);
        if !self.publish(&produced.batch, link).await {
            return Ok(());
        }
        failpoint::hit(failpoint::BEFORE_STATE_SAVE);
        let from = self.memory.at;
        self.memory = memory;
        self.count(from, now, produced.readings as u64, produced.intervals);
        self.save().await.map(drop)
    }

    /// Counts and logs what was stored.
    fn count(&mut self, from: Timestamp, now: Timestamp, readings: u64, intervals: u32) {
        self.made.readings += readings;
        self.made.messages += 1;
        self.shared.counters.readings.fetch_add(readings, Ordering::Relaxed);
        self.shared.counters.messages.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("haystack_simulator_readings_total").increment(readings);
        metrics::counter!("haystack_simulator_messages_total").increment(1);
        let (to, behind) = (self.memory.at, self.behind(now));
        let seconds = (self.timing.due(now).micros() - to.micros()) as f64 / 1e6;
        metrics::gauge!("haystack_simulator_behind_seconds", "simulator" => self.saved.id.to_string())
            .set(seconds.max(0.0));
        // Faster than the clock nothing was missing: it only goes on.
        let paced = self.timing.pace.speed > 1.0;
        if !paced && (intervals > 1 || behind || self.gap.is_some()) {
            let gap = self.gap.get_or_insert(Gap { from, readings: 0 });
            gap.readings += readings;
        }
        let details = json!({ "from": from.to_string(), "to": to.to_string(),
            "readings": readings, "intervals": intervals });
        let each = self.gap.is_none() && !paced;
        if each || self.log.progress_due(now) {
            let text = format!("{readings} readings up to {to}");
            self.note(EventType::Generation, text, details);
        }
        if !behind {
            self.close_gap();
        }
    }

    pub(super) fn close_gap(&mut self) {
        let Some(gap) = self.gap.take() else { return };
        self.made.gaps += 1;
        metrics::counter!("haystack_simulator_gap_fills_total").increment(1);
        let (from, to) = (gap.from.to_string(), self.memory.at.to_string());
        let text = format!("filled {from} to {to}: {} readings", gap.readings);
        let details = json!({ "from": from, "to": to, "readings": gap.readings });
        self.note(EventType::GapFill, text, details);
    }

    /// Whether more than the interval that is due next is missing.
    pub(crate) fn behind(&self, now: Timestamp) -> bool {
        self.memory.at.plus_micros(self.simulated.interval()) <= self.timing.due(now)
    }
}
