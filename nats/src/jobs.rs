//! Jobs: their records. The bucket forgets them after a while.

use crate::{counter::Counter, records::Record, streams::JOBS};
use domain::{
    Timestamp,
    job::{Job, State},
};

/// One whose owner says nothing for so long is taken over, in microseconds.
const SILENCE: i64 = 15_000_000;

impl Record for Job {
    const NAME: &str = "job";
    const BUCKET: &str = JOBS;
    const COUNTER: Counter = Counter::Job;
    const MOST: u32 = i32::MAX as u32;

    fn number(&self) -> u32 {
        self.id
    }

    fn set_number(&mut self, number: u32) {
        self.id = number;
    }

    fn is_over(&self) -> bool {
        self.state != State::Running
    }

    fn take(&mut self, worker: &str, now: Timestamp) -> bool {
        let silent = now.micros() - self.touched_at.micros() > SILENCE;
        let free = self.state == State::Running && (self.owner.is_none() || silent);
        if free {
            (self.owner, self.touched_at) = (Some(worker.to_owned()), now);
            self.attempts += 1;
        }
        free
    }
}
