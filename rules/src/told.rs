//! What the moments in a message tell of its device's clock. What a device had kept for later looks like a clock
//! that is behind.

use domain::Timestamp;

/// A reading that came so long after its moment is late. It is stored like any other.
const LATE_MICROS: i64 = 10 * 60 * 1_000_000;

/// What a message told of its device's clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// From the time of receipt to the newest moment in the message, in microseconds; negative:
    /// behind. `None` where the device tells no time.
    pub ahead_micros: Option<i64>,
    /// Readings that were late.
    pub late: usize,
}

impl Told {
    /// By the moments of a message's readings.
    pub(crate) fn by(received_at: Timestamp, moments: impl Iterator<Item = Timestamp>) -> Self {
        let mut told = Self::default();
        for moment in moments {
            let ahead = moment.micros() - received_at.micros();
            told.ahead_micros = told.ahead_micros.max(Some(ahead));
            told.late += usize::from(ahead < -LATE_MICROS);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_by_its_newest_moment() {
        let at = |seconds: i64| Timestamp::EPOCH.plus_micros(seconds * 1_000_000);
        let told = Told::by(at(10_000), [at(1), at(9_399), at(9_400), at(10_005)].into_iter());
        assert_eq!(told, Told { ahead_micros: Some(5_000_000), late: 2 });
        assert_eq!(Told::by(at(0), [].into_iter()), Told::default());
    }
}
