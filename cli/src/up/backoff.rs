//! When a child that ended is started again: at once at first, then ever more rarely.

use std::time::Duration;

/// Pause after the first end.
const FIRST: Duration = Duration::from_millis(200);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// Who ran this long is well again: the next end counts as a first.
const WELL: Duration = Duration::from_mins(1);

/// What a child's ends so far say about the next start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    ends: u32,
}

impl Backoff {
    /// The child ended after it had run this long. Gives the pause before the next start.
    pub(crate) fn ended(&mut self, ran: Duration) -> Duration {
        if ran >= WELL {
            self.ends = 0;
        }
        let pause = FIRST.saturating_mul(1 << self.ends.min(16)).min(LONGEST);
        self.ends = self.ends.saturating_add(1);
        pause
    }

    /// Ends in a row.
    pub(crate) fn ends(self) -> u32 {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> =
            (0..10).map(|_| backoff.ended(Duration::ZERO).as_millis() as u64).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(backoff.ends(), 10);
    }

    #[test]
    fn a_child_that_ran_well_starts_afresh() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.ended(Duration::ZERO);
        }
        assert_eq!(backoff.ended(WELL), FIRST);
        assert_eq!(backoff.ended(Duration::ZERO), FIRST * 2);
    }
}
