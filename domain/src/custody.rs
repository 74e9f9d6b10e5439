//! Where readings are: what ingest services are asked, and what they answer.

use crate::{EntityId, OrgKey, Timestamp};
use serde::{Deserialize, Serialize};

/// Where ingest services answer: name and id of their service.
pub const SERVICE: (&str, &str) = ("ingest", "custody");
/// What they can be asked.
pub const VERBS: [&str; 4] = ["trace", "gaps", "ledger", "verify"];

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Where the reading of an entity at a moment is.
    Reading {
        /// Whose.
        entity: EntityId,
        /// When.
        at: Timestamp,
    },
    /// What became of a message: `RAW-{sequence}-{index}`, `TELEMETRY-{sequence}`.
    Message {
        /// Its name.
        name: String,
    },
    /// What a request to the API brought.
    Request {
        /// Its id.
        id: String,
    },
    /// What is missing of an org's points.
    Gaps {
        /// Whose.
        org: OrgKey,
        /// From this moment.
        from: Timestamp,
        /// Up to this one.
        to: Timestamp,
    },
    /// Whether all targets hold the same of an org.
    Verify {
        /// Which.
        org: OrgKey,
    },
    /// Whether everything is accounted for.
    Ledger {
        /// Hours that are told: from this one,
        from: Timestamp,
        /// up to this one.
        to: Timestamp,
        /// Count rows, however long it takes.
        rows: bool,
        /// Look into each message of `RAW`, however long it takes.
        #[serde(default)]
        entries: bool,
    },
}

impl Ask {
    /// The last token of its subject.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Reading { .. } | Self::Message { .. } | Self::Request { .. } => VERBS[0],
            Self::Gaps { .. } => VERBS[1],
            Self::Ledger { .. } => VERBS[2],
            Self::Verify { .. } => VERBS[3],
        }
    }
}

/// The answer, as JSON: a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The list.
    pub json: String,
}
