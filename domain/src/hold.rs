//! What is being held, and why: the answer to "why does nothing move?".

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Something that waits for an outage to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What waits, e.g. `secondary/demo`.
    pub what: String,
    /// What it waits for, in words, without secrets.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// The holds of one process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<Mutex<BTreeMap<String, Hold>>>);

impl Holds {
    /// Says that `what` is held; returns whether that is news (new, or for another reason).
    pub fn hold(&self, what: &str, why: &str, now: Timestamp) -> bool {
        let mut holds = self.lock();
        match holds.get_mut(what) {
            Some(held) if held.why == why => false,
            Some(held) => {
                why.clone_into(&mut held.why);
                true
            }
            None => {
                let hold = Hold { what: what.to_owned(), why: why.to_owned(), since: now };
                holds.insert(what.to_owned(), hold);
                true
            }
        }
    }

    /// Says that `what` moves again; returns whether it was held.
    pub fn release(&self, what: &str) -> bool {
        self.lock().remove(what).is_some()
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Hold> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Hold>> {
        // A panic while the map was locked left it whole: every change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
