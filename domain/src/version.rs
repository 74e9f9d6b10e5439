//! Which of two rows for the same key counts: the version order of the merge rule.

use crate::Timestamp;
use serde::{Deserialize, Serialize};

/// The stream in which a reading first entered the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum OriginStream {
    /// A device's message, as it came.
    Raw = 0,
    /// A simulator's or an API client's batch.
    Telemetry = 1,
}

impl From<OriginStream> for u8 {
    fn from(stream: OriginStream) -> u8 {
        stream as u8
    }
}

impl TryFrom<u8> for OriginStream {
    type Error = String;
    fn try_from(code: u8) -> Result<Self, String> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Telemetry),
            _ => Err(format!("unknown origin stream {code}")),
        }
    }
}

/// Where and when a reading first entered the platform. It never changes: normalizing, replay
/// and redrive carry it along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The stream it entered.
    pub stream: OriginStream,
    /// Its message's sequence there.
    pub sequence: u64,
    /// The device message's place inside that message.
    pub index: u16,
    /// When the stream stored that message, cut to microseconds.
    pub accepted_at: Timestamp,
}

/// 0 is live; a replay or its undo takes the next number of the platform.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u16);

/// Sequences that fit into a version: 2³⁹, at a million packs a second some six days, at the
/// measured two thousand some nine years.
pub const MAX_SEQUENCE: u64 = (1 << 39) - 1;
/// Places of a device message inside one pack: 2¹⁰.
pub const MAX_INDEX: u16 = (1 << 10) - 1;
/// Replays the platform can number: 2¹³ − 1.
pub const MAX_REVISION: u16 = (1 << 13) - 1;

/// A row's version as its two columns hold it. The order of the fields is the order in which
/// versions compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowVersion {
    /// Column `accepted_at`.
    pub accepted_at: Timestamp,
    /// Column `version`: sequence · 2²⁴ + index · 2¹⁴ + stream · 2¹³ + revision.
    pub packed: i64,
}

/// A part of a version is larger than its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{part} {value} does not fit into a version (at most {limit})")]
pub struct VersionOverflow {
    part: &'static str,
    value: u64,
    limit: u64,
}

impl RowVersion {
    /// Packs an origin and a revision.
    pub fn new(origin: &Origin, revision: Revision) -> Result<Self, VersionOverflow> {
        let fits = |part, value, limit| {
            if value <= limit { Ok(value) } else { Err(VersionOverflow { part, value, limit }) }
        };
        let sequence = fits("sequence", origin.sequence, MAX_SEQUENCE)?;
        let index = fits("index", origin.index.into(), MAX_INDEX.into())?;
        let revision = fits("revision", revision.0.into(), MAX_REVISION.into())?;
        let packed = sequence << 24 | index << 14 | (origin.stream as u64) << 13 | revision;
        Ok(Self { accepted_at: origin.accepted_at, packed: packed as i64 })
    }

    /// The origin and revision that a row's columns name: from a row to its message.
    pub fn unpack(self) -> (Origin, Revision) {
        let packed = self.packed as u64;
        let stream =
            if packed >> 13 & 1 == 0 { OriginStream::Raw } else { OriginStream::Telemetry };
        let origin = Origin {
            stream,
            sequence: packed >> 24,
            index: (packed >> 14) as u16 & MAX_INDEX,
            accepted_at: self.accepted_at,
        };
        (origin, Revision(packed as u16 & MAX_REVISION))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OriginStream::{Raw, Telemetry};

    fn version(
        at: i64,
        sequence: u64,
        index: u16,
        stream: OriginStream,
        revision: u16,
    ) -> RowVersion {
        let accepted_at = Timestamp::from_micros(at).unwrap();
        RowVersion::new(&Origin { stream, sequence, index, accepted_at }, Revision(revision))
            .unwrap()
    }

    #[test]
    fn versions_compare_in_the_order_of_the_rule() {
        let rising = [
            version(1, 9, 1_023, Telemetry, 8_191),
            version(2, 1, 1_023, Telemetry, 8_191),
            version(2, 2, 0, Telemetry, 8_191),
            version(2, 2, 1, Raw, 8_191),
            version(2, 2, 1, Telemetry, 0),
            version(2, 2, 1, Telemetry, 1),
            version(2, MAX_SEQUENCE, 0, Raw, 0),
        ];
        assert!(rising.is_sorted());
    }

    #[test]
    fn a_row_names_its_message() {
        let version = version(7, MAX_SEQUENCE, MAX_INDEX, Telemetry, MAX_REVISION);
        let (origin, revision) = version.unpack();
        assert_eq!(RowVersion::new(&origin, revision), Ok(version));
        assert!(version.packed > 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let accepted_at = Timestamp::EPOCH;
        let origin = Origin { stream: Raw, sequence: 1, index: 1_024, accepted_at };
        assert!(RowVersion::new(&origin, Revision(0)).is_err());
    }
}
