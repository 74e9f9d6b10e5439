//! When the next interval is due. Pure.

use domain::{Timestamp, simulator::Pace};
use std::time::Duration;

/// A simulated clock: it goes on from a moment, at a pace, and never runs ahead of the real one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Timing {
    /// Where simulated time was …
    pub(crate) simulated: Timestamp,
    /// … when it was so late.
    pub(crate) real: Timestamp,
    /// How it goes on.
    pub(crate) pace: Pace,
}

impl Timing {
    /// Up to where readings are due.
    pub(crate) fn due(&self, now: Timestamp) -> Timestamp {
        let due = if self.real_time() {
            now
        } else {
            let passed = (now.micros() - self.real.micros()).max(0) as f64;
            self.simulated.plus_micros((passed * self.pace.speed) as i64).min(now)
        };
        self.pace.until.map_or(due, |until| due.min(until))
    }

    /// How long until `boundary` is due; `None`: never.
    pub(crate) fn until(&self, boundary: Timestamp, now: Timestamp) -> Option<Duration> {
        if self.pace.until.is_some_and(|until| boundary > until) {
            return None;
        }
        let wait = boundary.micros() - now.micros();
        let paced = if self.real_time() {
            0
        } else {
            let ahead = (boundary.micros() - self.simulated.micros()).max(0) as f64;
            (ahead / self.pace.speed) as i64 - (now.micros() - self.real.micros())
        };
        Some(Duration::from_micros(wait.max(paced).max(0) as u64))
    }

    // At the pace of the clock, whatever is past is due at once: a gap is filled, not repeated.
    fn real_time(&self) -> bool {
        self.pace.speed <= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::EPOCH.plus_micros(seconds * 1_000_000)
    }

    #[test]
    fn simulated_time_goes_faster_and_never_ahead() {
        let pace = Pace { speed: 60.0, until: None };
        let timing = Timing { simulated: at(0), real: at(10_000), pace };
        assert_eq!(timing.due(at(10_000)), at(0));
        assert_eq!(timing.due(at(10_010)), at(600));
        assert_eq!(timing.due(at(20_000)), at(20_000));
        assert_eq!(timing.until(at(600), at(10_001)), Some(Duration::from_secs(9)));
        assert_eq!(timing.until(at(30_000), at(29_000)), Some(Duration::from_secs(1_000)));
    }

    #[test]
    fn at_the_pace_of_the_clock_a_gap_is_due_at_once() {
        let timing = Timing { simulated: at(0), real: at(10_000), pace: Pace::REAL_TIME };
        assert_eq!(timing.due(at(10_000)), at(10_000));
        assert_eq!(timing.until(at(900), at(10_000)), Some(Duration::ZERO));
        let until = Timing { pace: Pace { until: Some(at(500)), ..Pace::REAL_TIME }, ..timing };
        assert_eq!(until.due(at(10_000)), at(500));
        assert_eq!(until.until(at(900), at(10_000)), None);
    }
}
