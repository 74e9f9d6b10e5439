//! The end of a transaction, as it is recorded: once, whoever sees it first.

use super::part::{Digest, Facts};
use crate::{DeviceId, Timestamp};
use serde::{Deserialize, Serialize};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All parts came.
    Complete,
    /// Some did not come in time, or others needed the room.
    Expired,
    /// A part contradicted them.
    Superseded,
}

impl Outcome {
    /// As databases and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }
}

impl std::str::FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Complete, Self::Expired, Self::Superseded];
        let known = all.into_iter().find(|outcome| outcome.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no outcome of a transaction"))
    }
}

/// A part where it stands in `CHUNKS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartAt {
    /// Its number.
    pub index: u32,
    /// Its sequence.
    pub sequence: u64,
}

impl PartAt {
    /// A part at that place.
    pub fn new(index: u32, sequence: u64) -> Self {
        Self { index, sequence }
    }
}

/// The record of an end. What it names is removed when its outcome is done; nothing else is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How.
    pub outcome: Outcome,
    /// Why, for people.
    pub why: String,
    /// How many parts there were to be.
    pub total: u32,
    /// The parts that came, by their numbers.
    pub parts: Vec<PartAt>,
    /// SHA-256 of the data of each of these parts.
    pub contents: Vec<Digest>,
    /// Bytes of all of them, without their copies.
    pub bytes: u64,
    /// Sequences of further copies of them.
    pub copies: Vec<u64>,
    /// SHA-256 of the whole in hexadecimal, where the gateway gave it.
    pub digest: Option<String>,
    /// When the first part was received.
    pub began_at: Timestamp,
    /// When this was written.
    pub ended_at: Timestamp,
}

impl End {
    /// Whether a part can only be a copy of one of these. Only where the gateway gave a digest: without
    /// it, another report may say the same.
    pub fn knows(&self, index: u32, facts: &Facts) -> bool {
        let same = facts.total == self.total
            && facts.digest.is_some_and(|digest| self.digest == Some(digest.to_string()));
        let at = self.parts.iter().position(|part| part.index == index);
        let content = at.and_then(|at| self.contents.get(at));
        self.outcome == Outcome::Complete && same && content == Some(&facts.content)
    }

    /// Every sequence that it names.
    pub fn sequences(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.sequence).chain(self.copies.iter().copied())
    }

    /// Numbers of the parts that did not come, as ranges: `3, 7-9`.
    pub fn missing(&self) -> String {
        missing(self.total, self.parts.iter().map(|part| part.index))
    }
}

/// The end of a transaction as every target keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The gateway.
    pub gateway: DeviceId,
    /// What the gateway calls it.
    pub transaction: String,
    /// Where the record of the end stands in `CHUNKS`.
    pub sequence: u64,
    /// How many parts there were to be.
    pub expected: u32,
    /// How many came.
    pub seen: u32,
    /// Numbers of those that did not, as ranges.
    pub missing: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, for people.
    pub reason: String,
    /// SHA-256 of the whole in hexadecimal, where the gateway gave it.
    pub sha256: Option<String>,
    /// When the first part was received.
    pub began_at: Timestamp,
    /// When the end was written.
    pub ended_at: Timestamp,
}

impl Ended {
    /// Of the record at that sequence.
    pub fn new(name: &super::Name, sequence: u64, end: &End) -> Self {
        Self {
            gateway: name.gateway.clone(),
            transaction: name.transaction.clone(),
            sequence,
            expected: end.total,
            seen: end.parts.len() as u32,
            missing: end.missing(),
            outcome: end.outcome,
            reason: end.why.clone(),
            sha256: end.digest.clone(),
            began_at: end.began_at,
            ended_at: end.ended_at,
        }
    }
}

/// Numbers below `total` that are not among `there` (ascending), as ranges; at most a few.
pub fn missing(total: u32, there: impl IntoIterator<Item = u32>) -> String {
    const RANGES: usize = 20;
    let mut ranges: Vec<String> = Vec::new();
    let mut next = 0;
    for index in there.into_iter().chain([total]) {
        match index.saturating_sub(next) {
            0 => {}
            1 => ranges.push(next.to_string()),
            _ => ranges.push(format!("{next}-{}", index - 1)),
        }
        next = index + 1;
    }
    if ranges.len() > RANGES {
        ranges.truncate(RANGES);
        ranges.push("…".to_owned());
    }
    ranges.join(", ")
}
