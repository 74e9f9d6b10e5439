//! Dead letters: what could not be processed, with what is needed to look at it and try again.

use crate::{OrgKey, Origin, TargetName, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where processing gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From parts in `CHUNKS` to a whole in `RAW`.
    Assemble,
    /// From `RAW` to `TELEMETRY`.
    Normalize,
    /// From `TELEMETRY` into a target.
    Ingest,
}

impl Stage {
    /// As subjects and people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assemble => "assemble",
            Self::Normalize => "normalize",
            Self::Ingest => "ingest",
        }
    }
}

/// Why something can never succeed as it stands. Outages are no reason: they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No device of that name is registered.
    UnknownDevice,
    /// The payload is not JSON.
    NotJson,
    /// The payload has more bytes than a message may.
    TooLarge,
    /// The payload holds more values than one message may.
    TooComplex,
    /// A field is not of the type that the device type says.
    WrongType,
    /// Nothing in the payload is mapped.
    NothingMapped,
    /// A field that no metric maps, where the device type wants to know.
    UnknownMetric,
    /// Before 2000 or too far in the future.
    TimeOutOfRange,
    /// The profile version that was to normalize it is not known.
    UnknownProfile,
    /// The bytes are no envelope of a version that this reader knows.
    Undecodable,
    /// A device's status says neither that it is there nor that it is not.
    NotAStatus,
    /// A gateway that sends parts sent something else.
    NotAPart,
    /// Parts of a gateway's report did not come in time.
    TransactionExpired,
    /// A gateway used a transaction's name again before it was complete, or contradicted itself.
    TransactionSuperseded,
    /// A report's parts make no whole.
    TransactionRefused,
    /// The database refused this row's data (SQLSTATE class 22 or 23).
    RefusedByDatabase,
}

impl Reason {
    /// As letters and filters write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownDevice => "unknown_device",
            Self::NotJson => "not_json",
            Self::TooLarge => "too_large",
            Self::TooComplex => "too_complex",
            Self::WrongType => "wrong_type",
            Self::NothingMapped => "nothing_mapped",
            Self::UnknownMetric => "unknown_metric",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::UnknownProfile => "unknown_profile",
            Self::Undecodable => "undecodable",
            Self::NotAStatus => "not_a_status",
            Self::NotAPart => "not_a_part",
            Self::TransactionExpired => "transaction_expired",
            Self::TransactionSuperseded => "transaction_superseded",
            Self::TransactionRefused => "transaction_refused",
            Self::RefusedByDatabase => "refused_by_database",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The message a letter is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The stream: `RAW`, `CHUNKS` or `TELEMETRY`.
    pub stream: String,
    /// The message's sequence there.
    pub sequence: u64,
    /// What in the message: an entry of a pack, a row of a batch, or a lot of parts.
    pub row: u32,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// Where processing gave up.
    pub stage: Stage,
    /// The target that could not take it, at stage `ingest`.
    pub target: Option<TargetName>,
    /// The message it is about. While the stream has it, the letter copies no bytes.
    pub source: Source,
    /// The org, where it is known.
    pub org: Option<OrgKey>,
    /// Device or producer, as it called itself.
    pub sender: String,
    /// Why.
    pub reason: Reason,
    /// What exactly, for people.
    pub detail: String,
    /// The failed row's key and values as JSON, at stage `ingest`.
    pub row: Option<String>,
    /// The origin that a redrive carries along.
    pub origin: Option<Origin>,
    /// Replay's number that a redrive keeps.
    pub revision: u16,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside.
    pub at: Timestamp,
    /// Bytes that stand nowhere else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// Bytes that a letter keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What they are, e.g. `part 7`.
    pub name: String,
    /// The bytes as they came.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

impl Letter {
    /// Its identity: whoever sets the same thing aside twice writes the same letter.
    pub fn id(&self) -> String {
        let target = self.target.as_ref().map_or("-", TargetName::as_str);
        let Source { stream, sequence, row } = &self.source;
        let (stage, attempt) = (self.stage.as_str(), self.attempts);
        format!("{stage}/{target}/{stream}/{sequence}/{row}/{attempt}")
    }

    /// The subject it is filed under.
    pub fn subject(&self) -> crate::subject::Subject {
        crate::subject::Subject::Dead {
            stage: self.stage.as_str().to_owned(),
            org: self.org.as_ref().map(|org| org.as_str().to_owned()),
            source: self.sender.clone(),
        }
    }
}
