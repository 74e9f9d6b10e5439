//! Which way to write an org's next rows. Fresh rows hardly ever conflict and go straight into the
//! table; a redelivered backlog conflicts every time, and each failed try costs a tenth.

use domain::OrgId;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Most batches in a row that go through staging after a conflict.
const LONGEST_PENALTY: u32 = 16;

/// What the last batches of an org met. The default tries the straight way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hint {
    penalty: u32,
    left: u32,
}

impl Hint {
    /// Whether the next batch goes through staging at once.
    pub(crate) fn stage(self) -> bool {
        self.left > 0
    }

    /// The straight way worked.
    pub(crate) fn straight(&mut self) {
        *self = Self::default();
    }

    /// The straight way met a row that was there.
    pub(crate) fn conflict(&mut self) {
        self.penalty = (self.penalty * 2).clamp(1, LONGEST_PENALTY);
        self.left = self.penalty;
    }

    /// A batch went through staging by the hint. While rows are found that were there already, the
    /// backlog is not through.
    pub(crate) fn staged(&mut self, all_new: bool) {
        if all_new {
            self.left = self.left.saturating_sub(1);
        }
    }
}

/// Hints by org.
#[derive(Debug, Default)]
pub(crate) struct Hints(Mutex<HashMap<OrgId, Hint>>);

impl Hints {
    pub(crate) fn get(&self, org: OrgId) -> Hint {
        let hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hints.get(&org).copied().unwrap_or_default()
    }

    pub(crate) fn change(&self, org: OrgId, change: impl FnOnce(&mut Hint)) {
        let mut hints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(hints.entry(org).or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_stays_in_staging_until_it_is_through() {
        let mut hint = Hint::default();
        hint.conflict();
        hint.staged(false);
        hint.staged(false);
        assert!(hint.stage());
        hint.staged(true);
        assert!(!hint.stage());
    }

    #[test]
    fn repeated_conflicts_wait_longer_and_one_success_forgets_them() {
        let mut hint = Hint::default();
        for _ in 0..9 {
            hint.conflict();
        }
        assert_eq!(hint, Hint { penalty: LONGEST_PENALTY, left: LONGEST_PENALTY });
        hint.straight();
        assert_eq!(hint, Hint::default());
    }
}
