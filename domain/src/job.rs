//! Long work that somebody asked the API for: an ingest service does it, and says how far it is.
//!
//! All of it may be done again from its beginning: whoever takes it over from one that died does so.

use crate::{OrgKey, TargetName, Timestamp, replay::Spec};
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Look what a replay would change.
    Preview(Spec),
    /// Compare all targets.
    Verify {
        /// Of this org alone.
        org: Option<OrgKey>,
        /// Make them equal.
        repair: bool,
        /// Take away what no accepted message explains, too.
        prune: bool,
    },
    /// Take what is in all targets as right.
    Settle,
    /// Fill a target from another.
    Backfill {
        /// What is filled.
        target: TargetName,
        /// From where.
        from: TargetName,
        /// Of this org alone.
        org: Option<OrgKey>,
    },
}

impl What {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Preview(_) => "preview",
            Self::Verify { repair: false, .. } => "verify",
            Self::Verify { .. } => "repair",
            Self::Settle => "settle",
            Self::Backfill { .. } => "backfill",
        }
    }

    /// The org that it is about alone.
    pub fn org(&self) -> Option<&OrgKey> {
        match self {
            Self::Preview(spec) => spec.org.as_ref(),
            Self::Verify { org, .. } | Self::Backfill { org, .. } => org.as_ref(),
            Self::Settle => None,
        }
    }
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// An ingest service works on it, or will.
    Running,
    /// Somebody stopped it.
    Stopped,
    /// It is done; what it tells, as JSON.
    Done(String),
    /// It could not be done, and why.
    Failed(String),
}

/// A job, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: u32,
    /// What is to be done.
    pub what: What,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub began_at: Timestamp,
    /// Where it stands.
    pub state: State,
    /// How far it is, for people.
    pub progress: String,
    /// Who works on it.
    pub owner: Option<String>,
    /// When its owner last said so.
    pub touched_at: Timestamp,
    /// How often somebody began it.
    #[serde(default)]
    pub attempts: u32,
}

impl Job {
    /// One that begins; its number is given to it where it is kept.
    pub fn new(what: What, by: String, now: Timestamp) -> Self {
        let (state, progress, owner) = (State::Running, String::new(), None);
        Self {
            id: 0,
            what,
            by,
            began_at: now,
            state,
            progress,
            owner,
            touched_at: now,
            attempts: 0,
        }
    }

    /// Ends it where it is; an error says why it can't. What it did so far stays.
    pub fn stop(&mut self) -> Result<(), String> {
        match self.state {
            State::Running => {
                (self.state, self.owner) = (State::Stopped, None);
                Ok(())
            }
            State::Stopped => Ok(()),
            State::Done(_) | State::Failed(_) => Err(format!("job {} is over", self.id)),
        }
    }
}
