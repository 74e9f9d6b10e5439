//! Waiting for the primary's COMMIT of what was published: by what ingest announces, and, where an
//! announcement is lost, by how far its consumer is.

use domain::{Clock, OrgKey, SystemClock, TargetName};
use nats::{CancellationToken, Wire, outcome};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// Announcements that are kept for those who ask a moment later: a message is often committed before
/// its publisher knows its sequence.
const REMEMBERED: usize = 16_384;
/// When it is looked at first: a COMMIT is announced sooner, but what was done long ago is not.
const LOOK_FIRST: Duration = Duration::from_millis(100);
/// How often the consumer is looked at while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same while a primary is behind and nobody waits: until it has caught up.
const LOOK_BEHIND: Duration = Duration::from_secs(1);
/// Pause where the announcements can't be heard.
const DEAF: Duration = Duration::from_millis(500);

/// What became of a message in the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// All of it is committed.
    Committed,
    /// Something of it was set aside, or that is to be looked up.
    Doubtful,
}

/// Clones share it.
#[derive(Clone)]
pub(crate) struct Outcomes(Arc<Inner>);

struct Inner {
    wire: Wire,
    primary: TargetName,
    known: Mutex<Known>,
    news: Notify,
}

#[derive(Default)]
struct Known {
    fates: HashMap<u64, Fate>,
    /// The same in the order in which they came, to forget the oldest.
    order: VecDeque<u64>,
    orgs: BTreeMap<OrgKey, Org>,
}

/// How the primary stands with an org.
struct Org {
    /// Requests that wait.
    waiting: usize,
    /// Everything up to this sequence is done.
    done: u64,
    /// How old the oldest message is that is not done, when that was looked at.
    lag: Duration,
    looked: Option<Instant>,
    /// Somebody looks from time to time.
    watched: bool,
}

impl Known {
    fn note(&mut self, sequence: u64, fate: Fate) {
        if self.fates.insert(sequence, fate).is_none() {
            self.order.push_back(sequence);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.fates.remove(&oldest);
        }
    }

    fn fate(&self, org: &OrgKey, sequence: u64) -> Option<Fate> {
        let done = || self.orgs.get(org).is_some_and(|org| org.done >= sequence);
        self.fates.get(&sequence).copied().or_else(|| done().then_some(Fate::Doubtful))
    }
}

impl Outcomes {
    pub(crate) fn new(wire: Wire, primary: TargetName) -> Self {
        let (known, news) = (Mutex::default(), Notify::new());
        Self(Arc::new(Inner { wire, primary, known, news }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change is one call: a poisoned lock still guards whole maps.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears announcements until shutdown.
    pub(crate) async fn listen(self, shutdown: CancellationToken) {
        let hearing = async {
            loop {
                if let Ok(mut heard) =
                    outcome::Announcements::of(&self.0.wire, &self.0.primary).await
                {
                    while let Some(outcome) = heard.next().await {
                        self.take(outcome);
                    }
                }
                tokio::time::sleep(DEAF).await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = hearing => {}
        }
    }

    fn take(&self, outcome: outcome::Outcome) {
        let mut known = self.known();
        for sequence in outcome.committed {
            known.note(sequence, Fate::Committed);
        }
        for sequence in outcome.dead {
            known.note(sequence, Fate::Doubtful);
        }
        drop(known);
        self.0.news.notify_waiters();
    }

    /// Waits until the primary is done with a message; `None`: not within `limit`.
    pub(crate) async fn wait(&self, org: &OrgKey, sequence: u64, limit: Duration) -> Option<Fate> {
        let _waiting = self.enter(org);
        let waiting = async {
            loop {
                let news = self.0.news.notified();
                tokio::pin!(news);
                // Registered before looking, so that what is announced in between is heard.
                news.as_mut().enable();
                if let Some(fate) = self.known().fate(org, sequence) {
                    return fate;
                }
                news.await;
            }
        };
        tokio::time::timeout(limit, waiting).await.ok()
    }

    /// By how much the primary was behind with an org when somebody looked last, just now; `None` where
    /// nobody had a reason to look.
    pub(crate) fn lag(&self, org: &OrgKey) -> Option<Duration> {
        let known = self.known();
        let org = known.orgs.get(org)?;
        let fresh = org.looked.is_some_and(|at| at.elapsed() < 2 * LOOK_BEHIND);
        fresh.then_some(org.lag)
    }

    /// Counts a request that waits, and lets somebody look while there is one.
    fn enter(&self, org: &OrgKey) -> Waiting {
        let mut known = self.known();
        let blank =
            || Org { waiting: 0, done: 0, lag: Duration::ZERO, looked: None, watched: false };
        let entry = known.orgs.entry(org.clone()).or_insert_with(blank);
        entry.waiting += 1;
        if !std::mem::replace(&mut entry.watched, true) {
            tokio::spawn(self.clone().watch(org.clone()));
        }
        Waiting { outcomes: self.clone(), org: org.clone() }
    }

    /// Looks at the consumer from time to time, as long as somebody waits or it is behind.
    async fn watch(self, org: OrgKey) {
        let mut pause = LOOK_FIRST;
        loop {
            tokio::time::sleep(pause).await;
            let looked = outcome::position(&self.0.wire, &self.0.primary, &org).await;
            let mut known = self.known();
            let Some(entry) = known.orgs.get_mut(&org) else { return };
            if let Ok(position) = looked {
                let now = SystemClock.now();
                let since = position.and_then(|position| position.waiting_since);
                let lag = since.map_or(0, |since| (now.micros() - since.micros()).max(0));
                entry.lag = Duration::from_micros(lag.unsigned_abs());
                entry.done = position.map_or(entry.done, |position| position.done);
                entry.looked = Some(Instant::now());
            }
            if entry.waiting == 0 && entry.lag < LOOK_BEHIND {
                entry.watched = false;
                return;
            }
            pause = if entry.waiting == 0 { LOOK_BEHIND } else { LOOK_EVERY };
            drop(known);
            self.0.news.notify_waiters();
        }
    }
}

/// A request that waits, until it is dropped.
struct Waiting {
    outcomes: Outcomes,
    org: OrgKey,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(org) = self.outcomes.known().orgs.get_mut(&self.org) {
            org.waiting -= 1;
        }
    }
}
