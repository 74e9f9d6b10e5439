//! Receipts: the platform's own yes, on `devices/{deviceId}/receipts`, for devices that ask.

use crate::{Timestamp, device_type::DeviceType, pointer::unescaped};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// By what a device knows its message again, byte for byte as it wrote it.
#[derive(Debug, Clone)]
pub enum Key {
    /// Its own id of the message.
    Id(Box<RawValue>),
    /// The moment that it gave the message.
    Ts(Box<RawValue>),
}

/// Longest key that is sent back.
const MAX_KEY: usize = 256;

/// By what a device of this type knows the message again; `None`: by nothing, so it gets no receipt.
pub fn key(profile: &DeviceType, payload: &[u8]) -> Option<Key> {
    let payload = std::str::from_utf8(payload).ok()?;
    let raw = |pointer: &str| {
        let value = find(payload, pointer)?;
        (value.get() != "null" && value.get().len() <= MAX_KEY).then(|| value.to_owned())
    };
    let id = profile.message_id.as_ref().and_then(|rule| raw(&rule.pointer)).map(Key::Id);
    id.or_else(|| profile.timestamp.as_ref().and_then(|rule| raw(&rule.pointer)).map(Key::Ts))
}

/// What a pointer (RFC 6901) leads to, as it is written: numbers beyond any machine's stay as they are.
fn find<'p>(payload: &'p str, pointer: &str) -> Option<&'p RawValue> {
    let mut found: &'p RawValue = serde_json::from_str(payload).ok()?;
    let tokens = pointer.strip_prefix('/').into_iter().flat_map(|tokens| tokens.split('/'));
    for token in tokens {
        found = if found.get().starts_with('{') {
            let mut fields: BTreeMap<String, &'p RawValue> =
                serde_json::from_str(found.get()).ok()?;
            fields.remove(&*unescaped(token))?
        } else {
            let elements: Vec<&'p RawValue> = serde_json::from_str(found.get()).ok()?;
            elements.into_iter().nth(token.parse().ok()?)?
        };
    }
    Some(found)
}

#[derive(Serialize)]
struct Receipt {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<Box<RawValue>>,
    stored_at: String,
}

/// The bytes of the receipt for a message that is on disk.
pub fn body(key: Key, stored_at: Timestamp) -> Vec<u8> {
    let (id, ts) = match key {
        Key::Id(id) => (Some(id), None),
        Key::Ts(ts) => (None, Some(ts)),
    };
    let receipt = Receipt { id, ts, stored_at: stored_at.to_string() };
    serde_json::to_vec(&receipt).expect("texts are encodable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(more: &str) -> DeviceType {
        let text = format!(
            r#"{{"device_type":"t","processing_mode":"endpoint","protocol_adapter":"json",
                "metrics":{{"a":{{"pointer":"/a","kind":"number"}}}}{more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn receipt(more: &str, payload: &str) -> Option<String> {
        let key = key(&profile(more), payload.as_bytes())?;
        Some(String::from_utf8(body(key, Timestamp::EPOCH)).unwrap())
    }

    #[test]
    fn a_receipt_says_what_the_device_said_of_its_message() {
        let ts = r#","timestamp":{"pointer":"/ts","format":"unix_millis"}"#;
        let both = format!(r#"{ts},"message_id":{{"pointer":"/seq"}}"#);
        let stored = r#""stored_at":"1970-01-01T00:00:00Z"}"#;
        let by_ts = format!(r#"{{"ts":1767225600000,{stored}"#);
        assert_eq!(receipt(ts, r#"{"ts":1767225600000,"a":1}"#), Some(by_ts.clone()));
        let by_id = format!(r#"{{"id":"7-a",{stored}"#);
        assert_eq!(receipt(&both, r#"{"seq":"7-a","ts":1}"#), Some(by_id));
        assert_eq!(receipt(&both, r#"{"seq":null,"ts":1767225600000}"#), Some(by_ts));
        // Byte for byte, also what no number of ours could hold.
        for id in ["12345678901234567890123", "9007199254740993.0", "1e2", r#"{"b":1,"a":[2]}"#] {
            let expected = format!(r#"{{"id":{id},{stored}"#);
            assert_eq!(receipt(&both, &format!(r#"{{"seq": {id} }}"#)), Some(expected));
        }
        let deep = r#","message_id":{"pointer":"/a/1/b~1c"}"#;
        let payload = r#"{"a":[0,{"b/c":"x"}]}"#;
        assert_eq!(receipt(deep, payload), Some(format!(r#"{{"id":"x",{stored}"#)));
    }

    #[test]
    fn what_says_nothing_of_itself_gets_none() {
        let id = r#","message_id":{"pointer":"/seq"}"#;
        let long = format!(r#"{{"seq":"{}"}}"#, "x".repeat(300));
        for payload in ["{}", "no json", "", &long] {
            assert_eq!(receipt(id, payload), None, "{payload}");
        }
    }
}
