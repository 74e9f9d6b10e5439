//! Simulators: what they are asked and answer, and which commands each status allows.

use crate::{EntityId, OrgKey, Timestamp, time::rfc3339};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A simulator's number: it is a poller, and this is the poller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SimulatorId(pub i32);

impl fmt::Display for SimulatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for SimulatorId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "a simulator's number is expected, e.g. 1")
    }
}

/// Longest description of a building, in bytes.
pub const MAX_DESCRIPTION: usize = 1 << 20;
/// Longest history that a simulator fills by itself, in hours: a year and a day.
pub const MAX_HISTORY_HOURS: u32 = 366 * 24;
/// Where a simulator may begin: what is older is out of range at every door of the platform.
pub const EARLIEST: Timestamp = match Timestamp::from_micros(946_684_800_000_000) {
    Some(year_2000) => year_2000,
    None => Timestamp::EPOCH,
};
/// Most bytes of JSON that is kept and not read.
pub const MAX_OTHER: usize = 64 << 10;
/// Longest message of a line that somebody adds to the activity log, in bytes.
pub const MAX_NOTE: usize = 4 << 10;
/// Fastest simulated time, in simulated seconds a second.
pub const MAX_SPEED: f64 = 1e6;

/// What a simulator simulates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatorConfig {
    /// The building's description, YAML.
    pub building: String,
    /// Where its randomness begins.
    pub seed: u64,
    /// Hours before its first start that it fills.
    #[serde(default)]
    pub history_hours: u32,
    /// Where it begins instead.
    #[serde(default, with = "rfc3339::option")]
    pub begins: Option<Timestamp>,
    /// Whether it runs as soon as a service finds it; else it waits for `start`.
    #[serde(default)]
    pub autostart: bool,
    /// Where clients of an earlier design want readings to go. It is given back as it came, and nothing
    /// follows from it: readings go to the platform's targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_config: Option<serde_json::Value>,
}

impl SimulatorConfig {
    /// What the description does not say itself.
    pub fn check(&self) -> Result<(), String> {
        if self.building.len() > MAX_DESCRIPTION {
            return Err(format!("the description: at most {MAX_DESCRIPTION} bytes are expected"));
        }
        if self.building.contains('\0') {
            return Err("the description: it holds a NUL character".to_owned());
        }
        if let Some(other) = &self.database_config {
            checked_json("database_config", other)?;
        }
        if self.history_hours > MAX_HISTORY_HOURS {
            return Err(format!("history_hours: at most {MAX_HISTORY_HOURS} is expected"));
        }
        if self.begins.is_some_and(|begins| begins < EARLIEST) {
            return Err(format!("begins: not before {EARLIEST} is expected"));
        }
        Ok(())
    }

    /// Stands for what the readings depend on.
    pub fn fingerprint(&self) -> u64 {
        crate::subject::fnv1a(format!("{}\n{}", self.seed, self.building).as_bytes())
    }

    /// Stands for all descriptions of a run, where this one follows those that `before` stands for.
    pub fn lineage_after(&self, before: u64, at: Timestamp) -> u64 {
        let text = format!("{before}\n{}\n{}", at.micros(), self.fingerprint());
        crate::subject::fnv1a(text.as_bytes())
    }
}

/// Checks that a database can hold JSON that came from outside.
fn checked_json(what: &str, value: &serde_json::Value) -> Result<(), String> {
    let text = value.to_string();
    if text.len() > MAX_OTHER {
        return Err(format!("{what}: at most {MAX_OTHER} bytes are expected"));
    }
    // JSON writes a NUL in no other way; after a written backslash it would be a text.
    if text.replace("\\\\", "").contains("\\u0000") {
        return Err(format!("{what}: it holds a NUL character"));
    }
    Ok(())
}

/// How a running simulator goes through time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Simulated seconds a second; it never runs ahead of the clock.
    pub speed: f64,
    /// Where it stops by itself.
    #[serde(default, with = "rfc3339::option")]
    pub until: Option<Timestamp>,
}

impl Pace {
    /// With the clock, for ever.
    pub const REAL_TIME: Self = Self { speed: 1.0, until: None };
}

impl Pace {
    /// Whether it can be kept.
    pub fn check(&self) -> Result<(), String> {
        if (1.0..=MAX_SPEED).contains(&self.speed) {
            return Ok(());
        }
        Err(format!("speed: between 1 and {MAX_SPEED} is expected"))
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::REAL_TIME
    }
}

/// What a simulator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing is made.
    Stopped,
    /// It runs and is behind the time at which it should be.
    Filling,
    /// It runs and is where it should be.
    Running,
    /// It runs, and the stream or its database takes nothing; `error_message` says why.
    Waiting,
    /// It can't run before a person did something; `error_message` says what.
    Error,
}

impl Status {
    /// As databases and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Filling => "filling",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Error => "error",
        }
    }
}

/// What a simulator can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Go on.
    Start,
    /// Make nothing more.
    Stop,
    /// Begin anew.
    Reset,
    /// Simulate something else from the next interval on.
    Configure,
}

impl Command {
    /// As people and subjects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reset => "reset",
            Self::Configure => "configure",
        }
    }
}

/// A command that the status does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a simulator that is {} can't be told to {}; allowed now: {}",
    .status.as_str(), .command.as_str(), words(*.status)
)]
pub struct Forbidden {
    /// What it does.
    pub status: Status,
    /// What it was told.
    pub command: Command,
}

fn words(status: Status) -> String {
    let allowed: Vec<_> = status.allowed().iter().map(|command| command.as_str()).collect();
    allowed.join(", ")
}

impl Status {
    /// The state machine: what may be told in this status. A repeated command changes nothing.
    pub fn allowed(self) -> &'static [Command] {
        use Command::{Configure, Reset, Start, Stop};
        match self {
            Self::Stopped => &[Start, Stop, Reset, Configure],
            Self::Filling | Self::Running | Self::Waiting => &[Start, Stop, Configure],
            Self::Error => &[Stop, Reset, Configure],
        }
    }

    /// Whether the command may be told.
    pub fn allows(self, command: Command) -> Result<(), Forbidden> {
        if self.allowed().contains(&command) {
            Ok(())
        } else {
            Err(Forbidden { status: self, command })
        }
    }
}

/// What a reset throws away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The building's memory and meters; its history stays.
    State,
    /// Its history too, in every target.
    Data,
}

/// A request to a simulator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Go on, at this pace; none: at the pace that it had.
    Start {
        /// How fast, and until when.
        pace: Option<Pace>,
    },
    /// Make nothing more.
    Stop,
    /// Begin anew.
    Reset {
        /// What is thrown away.
        scope: Scope,
        /// Where it begins anew: what is older stays.
        #[serde(default, with = "rfc3339::option")]
        from: Option<Timestamp>,
        /// Must be true: what is thrown away is gone.
        confirm: bool,
    },
    /// Simulate this from the next interval on.
    Configure {
        /// What.
        config: SimulatorConfig,
    },
    /// What it does.
    State,
    /// Whether it is well.
    Health,
    /// Add a line to the activity log.
    Note {
        /// What.
        event_type: EventType,
        /// For people.
        message: String,
        /// For programs.
        details: serde_json::Value,
    },
}

impl Ask {
    /// The last token of the subject that it is asked under.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop => "stop",
            Self::Reset { .. } => "reset",
            Self::Configure { .. } => "configure",
            Self::State => "state",
            Self::Health => "health",
            Self::Note { .. } => "note",
        }
    }

    /// Whether asking it a second time comes to the same.
    pub fn repeatable(&self) -> bool {
        !matches!(self, Self::Reset { .. } | Self::Configure { .. } | Self::Note { .. })
    }
}

/// Whether the activity log can hold a line of somebody else.
pub fn check_note(message: &str, details: &serde_json::Value) -> Result<(), String> {
    if message.trim().is_empty() || message.len() > MAX_NOTE {
        return Err(format!("message: 1 to {MAX_NOTE} bytes are expected"));
    }
    if message.contains('\0') {
        return Err("message: it holds a NUL character".to_owned());
    }
    checked_json("details", details)
}

/// What a simulator says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Which.
    pub simulator_id: SimulatorId,
    /// Its org.
    pub org: OrgKey,
    /// Its name for people.
    pub name: String,
    /// The instance of the simulator service that runs it.
    pub service_name: String,
    /// What it does.
    pub status: Status,
    /// The last interval boundary whose readings are stored.
    #[serde(default, with = "rfc3339::option")]
    pub last_run_timestamp: Option<Timestamp>,
    /// Where it should be by now; none while it is stopped.
    #[serde(default, with = "rfc3339::option")]
    pub due: Option<Timestamp>,
    /// How fast.
    pub pace: Pace,
    /// What each meter shows, by point.
    pub totalizers: BTreeMap<String, f64>,
    /// Points that report.
    pub points: usize,
    /// Minutes between two reports.
    pub interval_minutes: u32,
    /// What it simulates.
    pub config: SimulatorConfig,
    /// Why it waits or can't run.
    pub error_message: Option<String>,
    /// Since a service took it over: readings made, messages published, gaps filled, publishes that the
    /// stream took and how long they took in all (`publishes`, `publish_micros`).
    pub counters: BTreeMap<String, u64>,
    /// When it was saved first.
    #[serde(default, with = "rfc3339::option")]
    pub created_at: Option<Timestamp>,
    /// When it was saved last.
    #[serde(default, with = "rfc3339::option")]
    pub updated_at: Option<Timestamp>,
}

/// What happened to a simulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Readings were made.
    Generation,
    /// A gap was filled.
    GapFill,
    /// Something failed.
    Error,
    /// A service took it over.
    Startup,
    /// A service let it go.
    Shutdown,
    /// It was told to go on.
    Start,
    /// It was told to stop.
    Stop,
    /// It began anew.
    Reset,
    /// It simulates something else.
    Config,
}

impl EventType {
    /// As databases and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::GapFill => "gap_fill",
            Self::Error => "error",
            Self::Startup => "startup",
            Self::Shutdown => "shutdown",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reset => "reset",
            Self::Config => "config",
        }
    }
}

/// One line of a simulator's activity log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Which simulator.
    pub simulator_id: SimulatorId,
    /// When.
    #[serde(with = "rfc3339")]
    pub timestamp: Timestamp,
    /// What.
    pub event_type: EventType,
    /// For people.
    pub message: String,
    /// For programs.
    pub details: serde_json::Value,
}

/// The entities of a simulator by the key that its building gives them.
pub type EntityKeys = BTreeMap<String, EntityId>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_forbids_is_told_with_what_it_allows() {
        assert_eq!(Status::Stopped.allows(Command::Reset), Ok(()));
        let forbidden = Status::Running.allows(Command::Reset).unwrap_err();
        assert_eq!(
            forbidden.to_string(),
            "a simulator that is running can't be told to reset; allowed now: start, stop, \
             configure"
        );
    }

    #[test]
    fn whatever_it_does_it_can_be_stopped() {
        use Status::{Error, Filling, Running, Stopped, Waiting};
        for status in [Stopped, Filling, Running, Waiting, Error] {
            assert_eq!(status.allows(Command::Stop), Ok(()));
        }
    }
}
