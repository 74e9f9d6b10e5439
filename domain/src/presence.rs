//! Whether a device is there: births and last wills on `devices/{deviceId}/status`.

use crate::{DeviceId, Origin, Revision, RowVersion, Timestamp, version::VersionOverflow};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest payload that may be a birth or a will.
const MAX_STATUS: usize = 4 << 10;
/// Words for "it is there", and for "it is not"; capital letters make no difference.
const ONLINE: [&str; 5] = ["online", "connected", "up", "true", "1"];
const OFFLINE: [&str; 5] = ["offline", "disconnected", "down", "false", "0"];
/// Fields of an object that may say so, the first that is there counts.
const FIELDS: [&str; 4] = ["online", "connected", "status", "state"];

/// What a device (by its birth) or the broker (by the device's last will) said of the device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The device.
    pub device: DeviceId,
    /// It is there.
    pub online: bool,
    /// When the door received it. What the broker had kept may be much older.
    pub at: Timestamp,
    /// The broker had kept it and handed it to a door that was new: the device did not say it now.
    pub kept: bool,
    /// Which of two counts: the one that entered the platform later.
    pub origin: Origin,
}

/// A row of `core.device_presence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRow {
    /// The device.
    pub device: DeviceId,
    /// It is there.
    pub online: bool,
    /// When the door received that.
    pub at: Timestamp,
    /// When the device, or the broker on its behalf, said so; `None`: at some time before.
    pub seen: Option<Timestamp>,
    /// Which of two counts.
    pub version: RowVersion,
}

impl Presence {
    /// As a target keeps it.
    pub fn row(self) -> Result<PresenceRow, VersionOverflow> {
        let version = RowVersion::new(&self.origin, Revision::default())?;
        let Self { device, online, at, kept, .. } = self;
        // A door whose clock was wrong must not be believed for ever.
        let at = at.min(version.accepted_at);
        Ok(PresenceRow { device, online, at, seen: (!kept).then_some(at), version })
    }
}

/// Reads a payload; `None`: it is empty, which takes a kept message out of the broker and says
/// nothing. The error is for people.
pub fn read(payload: &[u8]) -> Result<Option<bool>, String> {
    if payload.is_empty() {
        return Ok(None);
    }
    let expected = "a birth or a will says online or offline, or {\"online\": true}";
    if payload.len() > MAX_STATUS {
        return Err(format!("{} bytes; {expected}", payload.len()));
    }
    let text = std::str::from_utf8(payload).map_err(|_| format!("not UTF-8; {expected}"))?;
    let said = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => FIELDS.iter().find_map(|name| fields.get(*name)).and_then(of),
        Ok(value) => of(&value),
        Err(_) => word(text),
    };
    said.map(Some).ok_or_else(|| format!("{:?}; {expected}", shown(text)))
}

fn of(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(online) => Some(*online),
        Value::String(text) => word(text),
        Value::Number(number) => word(&number.to_string()),
        _ => None,
    }
}

fn word(text: &str) -> Option<bool> {
    let text = text.trim();
    let among = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if among(&ONLINE) {
        return Some(true);
    }
    among(&OFFLINE).then_some(false)
}

fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    text.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_births_and_wills_are_read() {
        for (payload, online) in [
            ("online", true),
            (" Offline\n", false),
            ("1", true),
            ("\"connected\"", true),
            ("false", false),
            (r#"{"online":true,"fw":"1.2"}"#, true),
            (r#"{"status":"OFFLINE"}"#, false),
            (r#"{"state":0}"#, false),
        ] {
            assert_eq!(read(payload.as_bytes()), Ok(Some(online)), "{payload}");
        }
        assert_eq!(read(b""), Ok(None));
    }

    #[test]
    fn what_says_neither_is_refused_with_the_reason() {
        let long = "x".repeat(MAX_STATUS + 1);
        for payload in [&b"maybe"[..], b"{}", b"[1]", b"null", b"\xff", b"2", long.as_bytes()] {
            assert!(read(payload).unwrap_err().contains("online"), "{payload:?}");
        }
    }
}
