//! What is told of a message and its readings.

use domain::{
    DeviceId, EntityId, Letter, OrgKey, Origin, Position, Row, RowVersion, TargetName, Timestamp,
};
use nats::streams::{RAW, TELEMETRY};

/// Readings of one message that are followed.
pub const MOST_READINGS: usize = 200;

/// A message, as people and answers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// `RAW-{sequence}-{index}`, or without the index: all of them.
    Raw(u64, Option<u16>),
    /// `TELEMETRY-{sequence}`.
    Telemetry(u64),
}

impl Message {
    /// Reads it.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        match parts[..] {
            [RAW, sequence] => Some(Self::Raw(sequence.parse().ok()?, None)),
            [RAW, sequence, index] => {
                Some(Self::Raw(sequence.parse().ok()?, Some(index.parse().ok()?)))
            }
            [TELEMETRY, sequence] => Some(Self::Telemetry(sequence.parse().ok()?)),
            _ => None,
        }
    }
}

/// A message and what became of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Story {
    /// As it came, where it came from a device.
    pub received: Option<Received>,
    /// Where its readings were published.
    pub published: Vec<Published>,
    /// Its readings, at most [`MOST_READINGS`].
    pub readings: Vec<Reading>,
    /// Readings that were left out of that.
    pub more: usize,
    /// Letters about it.
    pub letters: Vec<(u64, Letter)>,
    /// Messages of `TELEMETRY` that were searched without finding all.
    pub searched: Option<u64>,
}

/// A device's message.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// Its stream, sequence and place.
    pub origin: Origin,
    /// What the sender called itself.
    pub name: String,
    /// The registered device, and the device type and version that normalizes it.
    pub sender: Option<(OrgKey, DeviceId, String, u32)>,
    /// When the door received it.
    pub received_at: Timestamp,
    /// Media type.
    pub content_type: String,
    /// Bytes of the payload.
    pub bytes: usize,
    /// `RAW` has it no more: this is from the primary's archive.
    pub archived: bool,
}

/// Where readings entered `TELEMETRY`.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Where.
    pub position: Position,
    /// Subject: whose, and by whom.
    pub subject: String,
    /// Replay's number, 0 live.
    pub revision: u16,
    /// The version of the device type that normalized them; 0: none did.
    pub profile_version: u32,
    /// The request that brought them, where there was one.
    pub request_id: Option<String>,
    /// Readings.
    pub readings: usize,
}

/// A reading and what became of it in each target.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Whose.
    pub entity: EntityId,
    /// Its name for people, where the model knows.
    pub name: Option<String>,
    /// Device and metric, where the model knows.
    pub point: Option<(DeviceId, String)>,
    /// The row that it makes.
    pub row: Row,
    /// What became of it.
    pub fates: Vec<(TargetName, Fate)>,
}

/// What became of a reading in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stands there.
    Stored {
        /// When its transaction was committed, where the database keeps that.
        committed_at: Option<Timestamp>,
        /// The values there are others: somebody changed them behind the platform's back.
        changed: bool,
    },
    /// Another with a higher version stands in its place.
    Superseded(RowVersion),
    /// A deletion with a higher version covers it.
    Deleted(RowVersion),
    /// The database refused it: the letter's number.
    Refused(u64),
    /// The target has not come to its message yet.
    InFlight,
    /// The target is past its message, and nothing says where it is.
    Lost,
    /// The target does not answer.
    Unknown(String),
}

impl Story {
    /// Whether nothing says where some reading is.
    pub fn is_lost(&self) -> bool {
        let mut fates = self.readings.iter().flat_map(|reading| &reading.fates);
        fates.any(|(_, fate)| *fate == Fate::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_names() {
        assert_eq!(Message::parse("RAW-17-3"), Some(Message::Raw(17, Some(3))));
        assert_eq!(Message::parse("RAW-17"), Some(Message::Raw(17, None)));
        assert_eq!(Message::parse("TELEMETRY-5"), Some(Message::Telemetry(5)));
        for no in ["", "RAW", "RAW-x", "raw-1", "TELEMETRY-1-2", "RAW-1-99999", "MODEL-1"] {
            assert_eq!(Message::parse(no), None, "{no}");
        }
    }
}
