//! Dead letters: what could not be processed, with what is needed to look at it and try again.

use crate::{EntityId, OrgKey, Origin, Revision, RowVersion, TargetName, Timestamp, raw::Sender};
use serde::{Deserialize, Serialize};
use std::fmt;

/// In a subject, the place of the stage of a letter that is not tried again.
pub const DROPPED: &str = "dropped";
/// The same of what letters are about, kept where its stream has let go of it.
pub const KEPT: &str = "kept";

/// The first part of the second token of subjects under which a letter stands for many.
pub const MANY: &str = "many";

/// Whether a subject of `DEAD` is one of letters that are waited for: not dropped, and not what is kept
/// beside one.
pub fn is_filed(subject: &str) -> bool {
    let stage = subject.strip_prefix("dead.").and_then(|rest| rest.split('.').next());
    stage.is_some_and(|stage| stage != DROPPED && stage != KEPT)
}

/// The stream and the sequence of the message that a letter of this id is about, and what in it.
pub fn about_of(id: &str) -> Option<(&str, u64, u32)> {
    let mut parts = id.split('/').skip(2);
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

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

impl std::str::FromStr for Stage {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Assemble, Self::Normalize, Self::Ingest];
        let known = all.into_iter().find(|stage| stage.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no stage; there are assemble, normalize, ingest"))
    }
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

impl std::str::FromStr for Reason {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is no reason; there are {all}")
        })
    }
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::UnknownDevice,
        Self::NotJson,
        Self::TooLarge,
        Self::TooComplex,
        Self::WrongType,
        Self::NothingMapped,
        Self::UnknownMetric,
        Self::TimeOutOfRange,
        Self::UnknownProfile,
        Self::Undecodable,
        Self::NotAStatus,
        Self::NotAPart,
        Self::TransactionExpired,
        Self::TransactionSuperseded,
        Self::TransactionRefused,
        Self::RefusedByDatabase,
    ];

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
    /// For whom an unknown sender was taken by the first redrive that gave readings: every later one
    /// takes it for the same, or two values would have one version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_for: Option<Sender>,
    /// It was tried again, and its target has not told yet what became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Somebody decided that it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<Dropped>,
    /// It stands for all of these: what its sender has set aside past the quota. The rest of the letter is
    /// about the last one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub many: Vec<Place>,
}

/// A message that a letter for many is about: sequence, what in it, and when it was accepted, in microseconds.
pub type Place = (u64, u32, i64);

/// The place of a letter that may be put together with others; `None`: it may not.
pub fn place_of(letter: &Letter) -> Option<Place> {
    let Source { sequence, row, .. } = letter.source;
    let alone = letter.stage == Stage::Normalize && letter.attempts <= 1;
    letter.origin.filter(|_| alone).map(|origin| (sequence, row, origin.accepted_at.micros()))
}

/// Where what is tried again stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// In `TELEMETRY`.
    pub sequence: u64,
    /// Where it fails, its letter stands behind this number of `DEAD`.
    pub behind: u64,
}

/// Why a letter is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Who decided it, e.g. `user:3 Ada`.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
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
        let note = match (&self.dropped, &self.waiting) {
            (Some(_), _) => "/dropped".to_owned(),
            (None, Some(waiting)) => format!("/waiting/{}", waiting.sequence),
            (None, None) => String::new(),
        };
        format!("{}/{}{note}", self.about(), self.attempts)
    }

    /// One that stands for many like it.
    #[must_use]
    pub fn together(&self, many: Vec<Place>) -> Self {
        Self { many, ..self.clone() }
    }

    /// How many messages it is about.
    pub fn messages(&self) -> usize {
        self.many.len().max(1)
    }

    /// The letters that it stands for.
    pub fn apart(&self, places: &[Place]) -> Vec<Self> {
        let alone = |&(sequence, row, accepted_at): &Place| {
            let accepted_at = Timestamp::from_micros(accepted_at)?;
            let index = u16::try_from(row).ok()?;
            let origin = Origin { sequence, index, accepted_at, ..self.origin? };
            let source = Source { sequence, row, ..self.source.clone() };
            Some(Self { source, origin: Some(origin), many: Vec::new(), ..self.clone() })
        };
        places.iter().filter_map(alone).collect()
    }

    /// Whether it is about a message of a stream, or about something in it.
    pub fn is_about(&self, stream: &str, sequence: u64, row: Option<u32>) -> bool {
        let is = |its_sequence: u64, its_row: u32| {
            let all = self.reason == Reason::Undecodable;
            its_sequence == sequence && row.is_none_or(|row| row == its_row || all)
        };
        self.source.stream == stream
            && (is(self.source.sequence, self.source.row)
                || self.many.iter().any(|(sequence, row, _)| is(*sequence, *row)))
    }

    /// What it is about: the same however often it is tried again.
    pub fn about(&self) -> String {
        let target = self.target.as_ref().map_or("-", TargetName::as_str);
        let Source { stream, sequence, row } = &self.source;
        format!("{}/{target}/{stream}/{sequence}/{row}", self.stage.as_str())
    }

    /// The same, tried once more in vain.
    #[must_use]
    pub fn again(&self, reason: Reason, detail: String, at: Timestamp) -> Self {
        let attempts = self.attempts.saturating_add(1);
        Self { reason, detail, at, attempts, waiting: None, ..self.clone() }
    }

    /// The refused row that it names itself: its key and version. `None`: it names none.
    pub fn refused_row(&self) -> Option<(EntityId, Timestamp, RowVersion)> {
        let row: serde_json::Value = serde_json::from_str(self.row.as_deref()?).ok()?;
        let entity = EntityId(row["entity_id"].as_i64()?.try_into().ok()?);
        let ts = Timestamp::parse_rfc3339(row["ts"].as_str()?)?;
        let version = RowVersion::new(&self.origin?, Revision(self.revision)).ok()?;
        Some((entity, ts, version))
    }

    /// The subject it is filed under.
    pub fn subject(&self) -> crate::subject::Subject {
        crate::subject::Subject::Dead {
            stage: match (&self.dropped, &*self.many) {
                (Some(_), _) => DROPPED.to_owned(),
                (None, []) => self.stage.as_str().to_owned(),
                (None, _) => format!("{MANY}-{}", self.stage.as_str()),
            },
            org: self.org.as_ref().map(|org| org.as_str().to_owned()),
            source: self.sender.clone(),
        }
    }
}
