//! What may leave a stream of readings, and when: decided from numbers alone.

use serde::{Deserialize, Serialize};

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Its first sequence; behind `last` where it is empty.
    pub first: u64,
    /// Its last sequence.
    pub last: u64,
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes it may hold before it refuses.
    pub limit: u64,
}

/// How full a stream may be, in percent of its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Above it, what everybody has applied goes before its time.
    pub high: u8,
    /// Down to it.
    pub low: u8,
}

impl Marks {
    /// From the high mark alone.
    pub fn below(high: u8) -> Self {
        let high = high.min(100);
        Self { high, low: high.saturating_sub(10) }
    }
}

impl Held {
    /// Whether it is fuller than the high mark.
    pub fn is_high(&self, marks: Marks) -> bool {
        self.limit > 0 && self.bytes > share(self.limit, marks.high)
    }

    /// Up to which sequence everything may go where its newest messages are still looked at: `most` of them,
    /// but no more than a quarter of what the stream may hold.
    pub fn but_the_newest(&self, most: u64) -> u64 {
        let quarter = u128::from(self.messages) * u128::from(self.limit / 4);
        let fit = quarter / u128::from(self.bytes.max(1));
        self.last.saturating_sub(most.min(fit as u64))
    }

    /// Bytes of the messages up to a sequence, as far as they are alike.
    pub fn bytes_up_to(&self, sequence: u64) -> u64 {
        let all = (self.last + 1).saturating_sub(self.first);
        let part = (sequence + 1).saturating_sub(self.first).min(all);
        if all == 0 {
            0
        } else {
            (u128::from(self.bytes) * u128::from(part) / u128::from(all)) as u64
        }
    }

    /// Bytes of the messages behind a sequence.
    pub fn bytes_behind(&self, sequence: u64) -> u64 {
        self.bytes - self.bytes_up_to(sequence)
    }

    /// Up to which sequence its messages may go; `None`: none may.
    ///
    /// `applied`: everything up to it is done with by all who need it. `aged`: everything up to it is older
    /// than the history that is kept.
    pub fn cut(&self, applied: u64, aged: u64, marks: Marks) -> Option<u64> {
        let mut cut = aged;
        if self.is_high(marks) {
            let over = self.bytes - share(self.limit, marks.low).min(self.bytes);
            let all = u128::from((self.last + 1).saturating_sub(self.first));
            let part = all * u128::from(over) / u128::from(self.bytes.max(1));
            cut = cut.max(self.first.saturating_add(part as u64).saturating_sub(1));
        }
        let cut = cut.min(applied).min(self.last);
        (cut >= self.first && self.messages > 0).then_some(cut)
    }
}

fn share(limit: u64, percent: u8) -> u64 {
    (u128::from(limit) * u128::from(percent) / 100) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MARKS: Marks = Marks { high: 80, low: 70 };

    fn held(first: u64, last: u64, bytes: u64) -> Held {
        Held { first, last, messages: (last + 1).saturating_sub(first), bytes, limit: 1_000 }
    }

    #[test]
    fn what_is_old_and_applied_goes() {
        let held = held(11, 110, 100);
        assert_eq!(held.cut(200, 40, MARKS), Some(40));
        assert_eq!(held.cut(30, 40, MARKS), Some(30));
        assert_eq!(held.cut(200, 500, MARKS), Some(110));
        assert_eq!(held.cut(200, 10, MARKS), None);
        assert_eq!(held.cut(0, 500, MARKS), None, "a target that has applied nothing");
        assert_eq!(super::Held { messages: 0, ..held }.cut(200, 500, MARKS), None);
    }

    #[test]
    fn above_the_mark_what_is_young_goes_too_but_never_what_is_not_applied() {
        let held = held(1, 100, 900);
        assert_eq!(held.cut(100, 0, MARKS), Some(22), "200 of 900 bytes, of 100 messages");
        assert_eq!(held.cut(10, 0, MARKS), Some(10));
        assert_eq!(held.cut(0, 0, MARKS), None);
        assert_eq!(held.bytes_up_to(50), 450);
    }

    #[test]
    fn the_newest_stay_as_far_as_there_is_room() {
        assert_eq!(held(1, 100, 100).but_the_newest(10), 90);
        assert_eq!(held(1, 100, 1_000).but_the_newest(64), 75, "a quarter of a thousand bytes");
        assert_eq!(held(1, 5, 5).but_the_newest(10), 0);
    }

    proptest! {
        #[test]
        fn nothing_goes_that_somebody_needs(
            first in 1..1_000u64, count in 0..1_000u64, bytes in 0..2_000u64,
            applied in 0..3_000u64, aged in 0..3_000u64, high in 0..120u8,
        ) {
            let held = held(first, first + count - 1, bytes);
            if let Some(cut) = held.cut(applied, aged, Marks::below(high)) {
                prop_assert!(cut <= applied && (held.first..=held.last).contains(&cut));
            }
        }
    }
}
