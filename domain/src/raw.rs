//! Device messages exactly as they came, packed for `RAW`.

use crate::{DeviceId, OrgKey, Timestamp, TypeId};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Most entries of one pack; the index of an entry has ten bits in a version.
pub const MAX_PACK_ENTRIES: usize = 1_024;
/// Most payload bytes of a pack of several entries; a larger message travels alone.
pub const MAX_PACK_BYTES: usize = 512 * 1024;
/// Largest device message.
pub const MAX_PAYLOAD: usize = 8 * 1024 * 1024;

/// The content type of a message in MessagePack.
pub const MSGPACK: &str = "application/msgpack";
/// The content type of a report that was put together from its parts.
pub const ASSEMBLED: &str = "application/vnd.haystack.assembled+json";
/// The content type of what came on a device's status topic: its birth, or its last will.
pub const STATUS: &str = "application/vnd.haystack.status";
/// The same where the broker had kept it: nobody said it just now.
pub const STATUS_KEPT: &str = "application/vnd.haystack.status-kept";

/// The version of a device type that normalizes a message, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProfileRef {
    /// Device type.
    pub id: TypeId,
    /// Its version.
    pub version: u32,
}

/// Who sent a message, as it was known when the message came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The device's org.
    pub org: OrgKey,
    /// The device.
    pub device: DeviceId,
    /// What normalizes the message.
    pub profile: ProfileRef,
}

/// One device message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawMessage<'a> {
    /// What the sender called itself.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// The registered device, absent where none of that name was known.
    pub sender: Option<Sender>,
    /// Media type, e.g. `application/json`; empty where the door was told none.
    #[serde(borrow)]
    pub content_type: Cow<'a, str>,
    /// When the door received it, taken once.
    pub received_at: Timestamp,
    /// The broker's session in which it came, by a random number.
    pub session: u64,
    /// The protocol's own id in that session (MQTT packet id), 0 where there is none.
    pub packet_id: u16,
    /// The door's count of messages since its process began.
    pub number: u64,
    /// The bytes.
    #[serde(borrow, with = "serde_bytes")]
    pub payload: Cow<'a, [u8]>,
}

/// The body of a message in `RAW`: device messages of any orgs, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pack<'a> {
    /// At most [`MAX_PACK_ENTRIES`].
    #[serde(borrow)]
    pub entries: Vec<RawMessage<'a>>,
}
