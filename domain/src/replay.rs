//! History processed again: which messages, by which rules, and how far it is.
//!
//! A replay's number is the revision of what it gives: it replaces what the same messages gave before, and
//! nothing that came later.

use crate::{DeviceId, OrgKey, Timestamp, TypeId};
use serde::{Deserialize, Serialize};

/// Which messages of `RAW` are processed again, and by which version of their device types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Those that were accepted at this moment or later.
    pub from: Timestamp,
    /// Those that were accepted before this moment.
    pub to: Timestamp,
    /// Those of this org.
    pub org: Option<OrgKey>,
    /// Those of devices of this type.
    pub device_type: Option<TypeId>,
    /// Those of this device, or of this gateway.
    pub device: Option<DeviceId>,
    /// By which rules.
    pub rules: Rules,
}

impl Spec {
    /// Whether both may be about one message.
    pub fn meets(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        self.from < other.to
            && other.from < self.to
            && same(self.org.as_ref(), other.org.as_ref())
            && same(self.device_type.as_ref(), other.device_type.as_ref())
            && same(self.device.as_ref(), other.device.as_ref())
    }
}

/// By which version of its device type a message is normalized again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rules {
    /// By the one that is in force when the replay reads it.
    InForce,
    /// By the one that was its own when it came: what an undo does.
    Own,
    /// By this one.
    Version(u32),
}

/// Where a replay stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A bridge works on it, or will.
    Running,
    /// Somebody stopped it; it goes on where it was.
    Stopped,
    /// All of it is in `TELEMETRY`.
    Done,
    /// It can't go on, and why.
    Failed(String),
}

/// What came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Messages of devices that were looked at.
    pub looked_at: u64,
    /// Those that the replay is about.
    pub taken: u64,
    /// Readings that were published.
    pub readings: u64,
    /// Keys that another version gave and this one does not.
    pub removals: u64,
    /// Messages, or parts of them, that could not be normalized.
    pub failed: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self {
            looked_at: self.looked_at + more.looked_at,
            taken: self.taken + more.taken,
            readings: self.readings + more.readings,
            removals: self.removals + more.removals,
            failed: self.failed + more.failed,
        }
    }
}

/// A replay, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Its number, the revision of what it gives.
    pub id: u16,
    /// What it does.
    pub spec: Spec,
    /// The replay that it takes back.
    pub undoes: Option<u16>,
    /// Who began it.
    pub by: String,
    /// When.
    pub began_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// Everything up to this sequence of `RAW` is done; 0: it has not begun.
    pub done: u64,
    /// The first sequence that it is about; 0: not known yet.
    pub first: u64,
    /// The last sequence that it is about.
    pub last: u64,
    /// What came of it.
    pub counts: Counts,
    /// What went wrong last with some message.
    pub last_failure: Option<String>,
    /// Who works on it.
    pub owner: Option<String>,
    /// When its owner last said so.
    pub touched_at: Timestamp,
    /// Why it rests: what it waits for.
    pub waits: Option<String>,
}

impl Replay {
    /// One that begins; its number is given to it where it is kept.
    pub fn new(spec: Spec, undoes: Option<u16>, by: String, now: Timestamp) -> Self {
        Self {
            id: 0,
            spec,
            undoes,
            by,
            began_at: now,
            state: State::Running,
            done: 0,
            first: 0,
            last: 0,
            counts: Counts::default(),
            last_failure: None,
            owner: None,
            touched_at: now,
            waits: None,
        }
    }

    /// Lets it rest where it is; an error says why it can't.
    pub fn stop(&mut self) -> Result<(), String> {
        match self.state {
            State::Running => {
                (self.state, self.owner) = (State::Stopped, None);
                Ok(())
            }
            State::Stopped => Ok(()),
            State::Done | State::Failed(_) => Err(format!("replay {} is over", self.id)),
        }
    }

    /// Lets it go on; an error says why it can't.
    pub fn resume(&mut self) -> Result<(), String> {
        match self.state {
            State::Stopped | State::Failed(_) => {
                (self.state, self.owner) = (State::Running, None);
                Ok(())
            }
            State::Running => Ok(()),
            State::Done => Err(format!("replay {} is done", self.id)),
        }
    }

    /// How much of it is done, from 0 to 1.
    pub fn share(&self) -> f64 {
        if self.state == State::Done {
            return 1.0;
        }
        let all = (self.last + 1).saturating_sub(self.first);
        let done = (self.done + 1).saturating_sub(self.first).min(all);
        if self.first == 0 || self.done < self.first { 0.0 } else { done as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_done_goes_from_nothing_to_all() {
        let (from, to) = (Timestamp::EPOCH, Timestamp::MAX);
        let rules = Rules::InForce;
        let spec = Spec { from, to, org: None, device_type: None, device: None, rules };
        let mut replay = Replay::new(spec, None, String::new(), Timestamp::EPOCH);
        assert!(replay.share() < 1e-9, "it has not begun");
        (replay.first, replay.last) = (11, 20);
        for (done, share) in [(0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0)] {
            replay.done = done;
            assert!((replay.share() - share).abs() < 1e-9, "{done}: {}", replay.share());
        }
    }
}
