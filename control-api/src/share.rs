//! What one caller, and all callers of one org together, may take of what there is for everybody.

use crate::caller::{Caller, May, Who};
use domain::{OrgId, OrgKey};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// As whose something counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Caller(Who),
    /// All who have to do with this org alone.
    Org(OrgId),
    /// All devices of it.
    Devices(OrgKey),
}

impl Whose {
    /// The org of whoever has to do with one alone.
    fn org(caller: &Caller) -> Option<Self> {
        match &caller.may {
            May::Device(org, _) => Some(Self::Devices(org.clone())),
            May::Orgs(orgs) if orgs.len() == 1 => orgs.keys().next().map(|org| Self::Org(*org)),
            May::All | May::Orgs(_) => None,
        }
    }
}

/// How much one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Most {
    /// One caller.
    pub(crate) caller: usize,
    /// All of one org.
    pub(crate) org: usize,
}

impl Most {
    /// Of so much in all: half of it one caller, three quarters one org.
    pub(crate) fn of(all: usize) -> Self {
        Self { caller: (all / 2).max(1), org: (all / 4 * 3).max(1) }
    }
}

/// How many places each has taken.
#[derive(Debug, Clone)]
pub(crate) struct Shares {
    taken: Arc<Mutex<HashMap<Whose, usize>>>,
    most: Most,
}

/// Places, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shares: Shares,
    held: Vec<Whose>,
    size: usize,
}

impl Shares {
    pub(crate) fn new(most: Most) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// Takes a place, unless the caller or its org has as many as it may.
    pub(crate) fn take(&self, caller: &Caller) -> Option<Place> {
        self.take_many(caller, 1)
    }

    /// The same of several places at once.
    pub(crate) fn take_many(&self, caller: &Caller, size: usize) -> Option<Place> {
        let mut place = Place { shares: self.clone(), held: Vec::new(), size };
        self.take_one(Whose::Caller(caller.who.clone()), self.most.caller, &mut place)?;
        if let Some(org) = Whose::org(caller) {
            self.take_one(org, self.most.org, &mut place)?;
        }
        Some(place)
    }

    fn take_one(&self, whose: Whose, most: usize, place: &mut Place) -> Option<()> {
        let mut taken = locked(&self.taken);
        let count = taken.get(&whose).copied().unwrap_or(0) + place.size;
        if count > most {
            return None;
        }
        taken.insert(whose.clone(), count);
        place.held.push(whose);
        Some(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = locked(&self.shares.taken);
        for whose in &self.held {
            if let Some(count) = taken.get_mut(whose) {
                *count -= self.size;
                if *count == 0 {
                    taken.remove(whose);
                }
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places for which one waits: whoever has all of its own hinders nobody else.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<Whose, Arc<Semaphore>>>,
    width: usize,
}

/// Lanes that are remembered before those that nobody is in are forgotten.
const MAX_LANES: usize = 1_000;

impl Lanes {
    /// Lanes that are so wide each.
    pub(crate) fn new(width: usize) -> Self {
        Self { lanes: Mutex::default(), width: width.max(1) }
    }

    /// Waits for a place in the lane of the caller's org, or of the caller; `None`: not in time.
    pub(crate) async fn enter(
        &self,
        caller: &Caller,
        patience: Duration,
    ) -> Option<OwnedSemaphorePermit> {
        let whose = Whose::org(caller).unwrap_or_else(|| Whose::Caller(caller.who.clone()));
        let lane = {
            let mut lanes = locked(&self.lanes);
            if lanes.len() > MAX_LANES {
                lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            }
            lanes.entry(whose).or_insert_with(|| Arc::new(Semaphore::new(self.width))).clone()
        };
        tokio::time::timeout(patience, lane.acquire_owned()).await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::access::{Rights, UserId};
    use std::collections::BTreeMap;

    fn caller(user: i32, orgs: &[i32]) -> Caller {
        let orgs = orgs.iter().map(|org| (OrgId(*org), Rights::default()));
        let may = May::Orgs(orgs.collect::<BTreeMap<_, _>>());
        Caller { who: Who::User(UserId(user)), name: String::new(), may }
    }

    #[test]
    fn a_caller_and_an_org_have_places_of_their_own_and_get_them_back() {
        let shares = Shares::new(Most { caller: 2, org: 3 });
        let (one, two, other) = (caller(1, &[7]), caller(2, &[7]), caller(3, &[8]));
        let first = shares.take(&one).unwrap();
        let second = shares.take(&one).unwrap();
        assert!(shares.take(&one).is_none(), "as many as one may have");
        let third = shares.take(&two).unwrap();
        assert!(shares.take(&two).is_none(), "as many as the org may have");
        let others = shares.take(&other);
        assert!(others.is_some());
        drop(first);
        assert!(shares.take(&two).is_some());
        drop((second, third, others));
        assert!(shares.taken.lock().unwrap().is_empty());
        assert!(shares.take_many(&one, 3).is_none() && shares.taken.lock().unwrap().is_empty());
        let large = shares.take_many(&one, 2);
        assert!(large.is_some() && shares.take(&one).is_none());
        assert!(shares.take_many(&two, 2).is_none(), "more than the org has left");
        drop(large);
        assert!(shares.taken.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn whoever_fills_its_lane_waits_alone() {
        let lanes = Lanes::new(1);
        let (one, other) = (caller(1, &[7]), caller(2, &[8]));
        let held = lanes.enter(&one, Duration::from_millis(1)).await;
        assert!(held.is_some());
        assert!(lanes.enter(&one, Duration::from_millis(1)).await.is_none());
        assert!(lanes.enter(&other, Duration::from_millis(1)).await.is_some());
        drop(held);
        assert!(lanes.enter(&one, Duration::from_millis(1)).await.is_some());
    }
}
