//! When a batch is done: by rows, bytes, messages or time, as a pure function.
//!
//! Idle, a single message goes out at once. While the writer is busy a batch grows for nothing;
//! after that it may linger, so that under load few large transactions do the work of many small
//! ones; not where somebody waits for the COMMIT, who sends nothing more before it. Batches are cut between messages only: a message larger than the limits goes alone.

use std::time::Duration;

/// Most of what one batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Rows; a deletion of one entity counts as one.
    pub(crate) rows: usize,
    /// Bytes of message bodies.
    pub(crate) bytes: usize,
    /// Messages: an acknowledgement each.
    pub(crate) messages: usize,
    /// Longest wait for more under load, from the first message on.
    pub(crate) linger: Duration,
}

/// What a batch holds, or a message would add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    /// Rows.
    pub(crate) rows: usize,
    /// Bytes of message bodies.
    pub(crate) bytes: usize,
    /// Messages.
    pub(crate) messages: usize,
}

impl Size {
    /// Both together.
    #[must_use]
    pub(crate) fn plus(self, more: Self) -> Self {
        Self {
            rows: self.rows + more.rows,
            bytes: self.bytes + more.bytes,
            messages: self.messages + more.messages,
        }
    }
}

impl Limits {
    /// Whether a batch of this size may take that message. An empty one takes any.
    pub(crate) fn admit(&self, batch: Size, message: Size) -> bool {
        let sum = batch.plus(message);
        batch.messages == 0
            || (sum.rows <= self.rows && sum.bytes <= self.bytes && sum.messages <= self.messages)
    }

    fn full(&self, batch: Size) -> bool {
        batch.rows >= self.rows || batch.bytes >= self.bytes || batch.messages >= self.messages
    }
}

/// How things stand while a batch is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on one another")]
pub(crate) struct Moment {
    /// The stream has nothing more that is known of.
    pub(crate) drained: bool,
    /// There is memory for more.
    pub(crate) room: bool,
    /// The writer waits for this batch.
    pub(crate) writer_free: bool,
    /// The writer was busy when the first message came.
    pub(crate) under_load: bool,
    /// Somebody waits for the batch to be committed here.
    pub(crate) waited_for: bool,
    /// Time since the first message came.
    pub(crate) age: Duration,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The batch is done.
    Go,
    /// Take what the stream has.
    Fetch,
    /// Wait for a message (where there is room), for the writer, and at most this long.
    Wait(Option<Duration>),
}

/// Decides.
pub(crate) fn step(batch: Size, limits: &Limits, moment: Moment) -> Step {
    let left = limits.linger.saturating_sub(moment.age);
    if limits.full(batch) {
        Step::Go
    } else if moment.room && !moment.drained {
        Step::Fetch
    } else if !moment.writer_free {
        Step::Wait(None)
    } else if moment.room && moment.under_load && !moment.waited_for && !left.is_zero() {
        Step::Wait(Some(left))
    } else {
        Step::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { rows: 100, bytes: 1_000, messages: 10, linger: Duration::from_millis(50) };
    const IDLE: Moment = Moment {
        drained: true,
        room: true,
        writer_free: true,
        under_load: false,
        waited_for: false,
        age: Duration::ZERO,
    };

    fn size(rows: usize, bytes: usize, messages: usize) -> Size {
        Size { rows, bytes, messages }
    }

    #[test]
    fn idle_a_single_message_goes_at_once() {
        assert_eq!(step(size(1, 10, 1), &LIMITS, IDLE), Step::Go);
    }

    #[test]
    fn a_backlog_is_fetched_until_a_limit_is_reached() {
        for busy in [false, true] {
            let moment = Moment { drained: false, writer_free: !busy, under_load: busy, ..IDLE };
            assert_eq!(step(size(99, 999, 9), &LIMITS, moment), Step::Fetch);
            for full in [size(100, 1, 1), size(1, 1_000, 1), size(1, 1, 10), size(900, 9_000, 1)] {
                assert_eq!(step(full, &LIMITS, moment), Step::Go);
            }
        }
    }

    #[test]
    fn a_batch_grows_while_the_writer_is_busy_however_old_it_is() {
        let age = Duration::from_mins(10);
        let moment = Moment { writer_free: false, under_load: true, age, ..IDLE };
        assert_eq!(step(size(1, 1, 1), &LIMITS, moment), Step::Wait(None));
    }

    #[test]
    fn under_load_it_lingers_no_longer_than_allowed() {
        let aged = |millis| Moment { under_load: true, age: Duration::from_millis(millis), ..IDLE };
        let left = Some(Duration::from_millis(20));
        assert_eq!(step(size(1, 1, 1), &LIMITS, aged(30)), Step::Wait(left));
        assert_eq!(step(size(1, 1, 1), &LIMITS, aged(50)), Step::Go);
    }

    #[test]
    fn what_somebody_waits_for_does_not_linger() {
        let moment = Moment { under_load: true, waited_for: true, ..IDLE };
        assert_eq!(step(size(1, 1, 1), &LIMITS, moment), Step::Go);
        let backlog = Moment { drained: false, ..moment };
        assert_eq!(step(size(1, 1, 1), &LIMITS, backlog), Step::Fetch);
    }

    #[test]
    fn without_room_it_goes_as_soon_as_the_writer_is_free() {
        let moment = Moment { drained: false, room: false, under_load: true, ..IDLE };
        assert_eq!(step(size(1, 1, 1), &LIMITS, moment), Step::Go);
        let busy = Moment { writer_free: false, ..moment };
        assert_eq!(step(size(1, 1, 1), &LIMITS, busy), Step::Wait(None));
    }

    #[test]
    fn a_message_beyond_the_limits_is_admitted_alone() {
        let huge = size(1_000, 1, 1);
        assert!(LIMITS.admit(Size::default(), huge));
        assert!(!LIMITS.admit(size(1, 1, 1), huge));
        assert!(LIMITS.admit(size(50, 500, 5), size(50, 500, 5)));
        assert!(!LIMITS.admit(size(50, 500, 5), size(51, 1, 1)));
        assert!(!LIMITS.admit(size(1, 1, 10), size(1, 1, 1)));
    }
}
