//! How much of a replay may be on its way to the targets: so much that live readings behind it are not late.
//! Pure.

use domain::OrgKey;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Least that may be on its way, in readings and removals: one full pack of small messages.
const LEAST: u64 = 4_096;
/// Most.
const MOST: u64 = 200_000;
/// A replay takes this part of the time by which live readings may be late.
const SHARE: u32 = 4;

/// A piece that is on its way.
#[derive(Debug)]
struct Sent {
    org: OrgKey,
    sequence: u64,
    amount: u64,
    at: Instant,
}

/// What is on its way, and how much may be.
#[derive(Debug)]
pub(super) struct Flow {
    sent: VecDeque<Sent>,
    window: u64,
    /// How long a piece should take until all targets have it.
    aim: Duration,
}

impl Flow {
    /// `lag`: how late live readings may be.
    pub(super) fn new(lag: Duration) -> Self {
        Self { sent: VecDeque::new(), window: 2 * LEAST, aim: lag / SHARE }
    }

    /// A piece is in the stream; its last message there.
    pub(super) fn send(&mut self, org: OrgKey, sequence: u64, amount: u64, now: Instant) {
        self.sent.push_back(Sent { org, sequence, amount, at: now });
    }

    /// Orgs of which something is on its way.
    pub(super) fn orgs(&self) -> Vec<OrgKey> {
        let mut orgs: Vec<OrgKey> = self.sent.iter().map(|sent| sent.org.clone()).collect();
        orgs.sort_unstable();
        orgs.dedup();
        orgs
    }

    /// All targets that are there have an org's messages up to a sequence.
    pub(super) fn applied(&mut self, org: &OrgKey, done: u64, now: Instant) {
        let (mut window, aim) = (self.window, self.aim);
        self.sent.retain(|sent| {
            let there = sent.org == *org && sent.sequence <= done;
            if there {
                let in_time = now.saturating_duration_since(sent.at) <= aim;
                window = if in_time { window + sent.amount / 2 } else { window - window / 4 };
            }
            !there
        });
        self.window = window.clamp(LEAST, MOST);
    }

    /// Whether another piece may be sent.
    pub(super) fn has_room(&self) -> bool {
        let on_its_way: u64 = self.sent.iter().map(|sent| sent.amount).sum();
        on_its_way == 0 || on_its_way < self.window
    }

    /// Readings and removals after which a piece is sent.
    pub(super) fn piece(&self) -> u64 {
        self.window / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAG: Duration = Duration::from_secs(2);

    fn org() -> OrgKey {
        OrgKey::parse("demo").unwrap()
    }

    /// Sends all it may to a database that takes so many a second, for ten seconds; the longest time that a
    /// piece took, and how many were taken.
    fn run(per_second: u64) -> (Duration, u64) {
        let (mut flow, begun, step) = (Flow::new(LAG), Instant::now(), Duration::from_millis(10));
        let (mut sequence, mut total, mut taken, mut worst) = (0, 0, 0, Duration::ZERO);
        let mut ends: VecDeque<(u64, u64, Instant)> = VecDeque::new();
        for tick in 0..1_000u32 {
            let now = begun + step * tick;
            while flow.has_room() {
                let amount = flow.piece();
                (sequence, total) = (sequence + 1, total + amount);
                flow.send(org(), sequence, amount, now);
                ends.push_back((sequence, total, now));
            }
            taken = total.min(taken + per_second / 100);
            while let Some((done, _, at)) =
                ends.front().copied().filter(|(_, end, _)| *end <= taken)
            {
                ends.pop_front();
                worst = worst.max(now - at);
                flow.applied(&org(), done, now);
            }
        }
        (worst, taken)
    }

    #[test]
    fn a_database_is_kept_busy_and_nothing_waits_for_long() {
        for per_second in [20_000, 60_000, 300_000] {
            let (worst, taken) = run(per_second);
            assert!(worst < LAG, "{per_second} a second: {worst:?}");
            assert!(taken >= 9 * per_second, "{per_second} a second: {taken} taken");
        }
    }

    #[test]
    fn one_org_that_stands_still_holds_what_is_behind_it() {
        let (mut flow, now) = (Flow::new(LAG), Instant::now());
        flow.send(org(), 7, 3 * LEAST, now);
        assert!(!flow.has_room());
        flow.applied(&OrgKey::parse("other").unwrap(), 99, now);
        flow.applied(&org(), 6, now);
        assert!(!flow.has_room());
        flow.applied(&org(), 7, now);
        assert!(flow.has_room() && flow.orgs().is_empty());
    }
}
