//! What a device is told: a command on `devices/{deviceId}/commands`, and what became of it.

use crate::{DeviceId, Timestamp};
use serde::{Deserialize, Serialize};

/// Where bridges answer: name, id and verb of their service, which joined by dots are its subject.
pub const SERVICE: [&str; 3] = ["bridge", "device", "command"];
/// Largest payload of a command, in bytes.
pub const MAX_COMMAND: usize = 256 << 10;
/// How long whoever orders waits for the answer, in seconds.
pub const ANSWER_SECONDS: u32 = 5;
/// For how long the broker keeps a command for a device that is away, where nobody says.
pub const EXPIRES_SECONDS: u32 = 60;

/// A command for a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The device.
    pub device: DeviceId,
    /// The bytes that it gets.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// After so many seconds the broker drops it instead of handing it to a device that comes back:
    /// what was right a day ago may be wrong now.
    pub expires_seconds: u32,
    /// After this nobody waits for the answer any more, and it is not sent.
    pub not_after: Timestamp,
}

/// What became of a command. Whether the device did it only the device can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The broker has it, and somebody is subscribed to it: the device, unless its name is used by
    /// another (whom the broker gives nothing).
    Taken,
    /// The broker knows no subscriber: the device is away, or does not listen. It is gone.
    NobodyListens,
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What became of it.
    pub fate: Fate,
}
