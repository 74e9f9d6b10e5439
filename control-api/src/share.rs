//! What one caller may take of what there is for all.

use crate::caller::Who;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How many places each caller has taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<Who, usize>>>);

/// A place, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Shares,
    who: Who,
}

impl Shares {
    /// Takes one, unless the caller has as many as it may.
    pub(crate) fn take(&self, who: &Who, most: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_caller = taken.entry(who.clone()).or_default();
        if *of_caller >= most {
            return None;
        }
        *of_caller += 1;
        Some(Place { shares: self.clone(), who: who.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_caller) = taken.get_mut(&self.who) {
            *of_caller -= 1;
            if *of_caller == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::access::UserId;

    #[test]
    fn each_caller_has_places_of_its_own_and_gets_them_back() {
        let (shares, one, other) = (Shares::default(), Who::User(UserId(1)), Who::User(UserId(2)));
        let first = shares.take(&one, 2).unwrap();
        let second = shares.take(&one, 2).unwrap();
        assert!(shares.take(&one, 2).is_none());
        let others = shares.take(&other, 2);
        assert!(others.is_some());
        drop(first);
        assert!(shares.take(&one, 2).is_some());
        drop((second, others));
        assert!(shares.0.lock().unwrap().is_empty());
    }
}
