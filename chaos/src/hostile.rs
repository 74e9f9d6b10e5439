//! What comes from outside, taken as bytes that mean harm: each function takes anything, and panics
//! where one of our promises about such bytes is broken. `chaos/fuzz` looks for such bytes; what it
//! found worth keeping lies in `chaos/corpus` and is tried in every test run.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a broken promise is a panic")]

use domain::{
    Batch, Letter, Position, Timestamp, Work,
    chunk::{
        End,
        part::{self, MAX_PARTS},
        whole,
    },
    device_type::{ChunkFormat, ChunkRule, DeviceType},
    model::Record,
    normalize::{MAX_FAULTS, Normalized, Reading, TimeLimits, normalize},
    presence,
    raw::{Pack, RawMessage},
    receipt,
    subject::{self, Subject},
    topic,
};
use nats::envelope::{self, Schema};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::LazyLock;

const TYPES: [&str; 4] = [
    r#"{"device_type":"open","processing_mode":"endpoint","protocol_adapter":"json",
        "unknown_metrics":"create","metrics":{"n":{"pointer":"/n","kind":"number"}}}"#,
    r#"{"device_type":"sensor","processing_mode":"endpoint","protocol_adapter":"json",
        "timestamp":{"pointer":"/ts","format":"rfc3339"},"message_id":{"pointer":"/seq"},
        "receipts":true,"unknown_metrics":"dead_letter","metrics":{
        "n":{"pointer":"/n","kind":"number"},"b":{"pointer":"/b/0","kind":"boolean"},
        "s":{"pointer":"/s","kind":"string"},"t":{"pointer":"/t","kind":"time"}}}"#,
    r#"{"device_type":"hub","processing_mode":"gateway","protocol_adapter":"json",
        "timestamp":{"pointer":"/ts","format":"unix_millis"},
        "gateway_metrics":{"v":{"pointer":"/v","kind":"number"}},
        "logical_devices":{"pointer":"/d","identifier":"/id",
            "timestamp":{"pointer":"/at","format":"unix_seconds"}},
        "metrics":{"n":{"pointer":"/n","kind":"number"}}}"#,
    r#"{"device_type":"map","processing_mode":"gateway","protocol_adapter":"json",
        "logical_devices":{"pointer":"/d","unknown":"ignore"},"unknown_metrics":"dead_letter",
        "metrics":{"s":{"pointer":"","kind":"string"},"t":{"pointer":"/t~1u","kind":"time"}}}"#,
];

static PROFILES: LazyLock<Vec<DeviceType>> = LazyLock::new(|| {
    let read = |text: &&str| serde_json::from_str(text).expect("a device type of ours");
    TYPES.iter().map(read).collect()
});

/// When everything here was received.
const RECEIVED: i64 = 1_767_225_600_000_000;

/// The payload of a device's message, or of its status.
pub fn payload(bytes: &[u8]) {
    let _ = presence::read(bytes);
    let received = Timestamp::EPOCH.plus_micros(RECEIVED);
    let limits = TimeLimits::default();
    for profile in PROFILES.iter() {
        let once = normalize(profile, bytes, received, &limits);
        // Replay is a function.
        assert_eq!(once, normalize(profile, bytes, received, &limits));
        if let Some(key) = receipt::key(profile, bytes) {
            let receipt = receipt::body(key, received);
            let receipt: serde_json::Value = serde_json::from_slice(&receipt).expect("JSON");
            assert!(receipt["id"].is_null() != receipt["ts"].is_null());
        }
        let Ok(Normalized { readings, found, logical, faults }) = once else { continue };
        assert!(faults.len() <= MAX_FAULTS);
        let of_logical = logical.iter().flat_map(|device| &device.readings);
        let named =
            readings.iter().chain(of_logical).map(|Reading { ts, values, .. }| (ts, values));
        for (ts, values) in named.chain(found.iter().map(|found| (&found.ts, &found.values))) {
            assert!(limits.allow(*ts, received));
            assert!(values.n.is_none_or(f64::is_finite));
            assert!(values.s.as_deref().is_none_or(|text| !text.contains('\0')));
        }
    }
}

/// Parts of a gateway's report, one after the other, cut at each line feed.
pub fn parts(bytes: &[u8]) {
    let payloads: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for format in [ChunkFormat::Json, ChunkFormat::Binary] {
        let rule = ChunkRule { format, ..ChunkRule::default() };
        let read: Vec<_> = payloads.iter().map(|payload| part::read(&rule, payload)).collect();
        for part in read.iter().flatten() {
            assert!(part.index < part.facts.total && part.facts.total <= MAX_PARTS);
        }
        if read.iter().all(Result::is_ok) {
            // It makes a whole or says why not.
            let _ = whole::assemble(&rule, payloads.iter().copied());
        }
    }
}

/// The body of a message between services, and the names in subjects and topics.
pub fn envelopes(bytes: &[u8]) {
    if let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(bytes) {
        comes_back_borrowed(&pack);
    }
    if let Ok(message) = envelope::decode_borrowed::<RawMessage<'_>>(bytes) {
        assert!(!envelope::encode(&message).is_empty());
    }
    if let Ok(batch) = envelope::decode::<Batch>(bytes) {
        comes_back(&batch);
        let stored_at = Timestamp::EPOCH.plus_micros(RECEIVED);
        // It is work, or refused as a whole.
        let mut work = Work::default();
        if work.add(batch, Position { sequence: 7, stored_at }).is_err() {
            assert!(work.rows.is_empty() && work.deletions.is_empty());
        }
    }
    comes_back_if_any::<Record>(bytes);
    comes_back_if_any::<Letter>(bytes);
    comes_back_if_any::<End>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = topic::from_device(text);
        let token = subject::encode(text);
        assert!(!token.contains(['.', '*', '>', ' ', '\n']) && token.len() <= subject::MAX_TOKEN);
        if let Some(read) = Subject::parse(text) {
            assert_eq!(Subject::parse(&read.to_string()), Some(read));
        }
    }
}

fn comes_back_borrowed(pack: &Pack<'_>) {
    let bytes = envelope::encode(pack);
    let again: Pack<'_> = envelope::decode_borrowed(&bytes).expect("our own encoding");
    assert_eq!(&again, pack);
}

fn comes_back_if_any<T: Schema + Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(body) = envelope::decode::<T>(bytes) {
        comes_back(&body);
    }
}

/// By its bytes: a NaN is not equal to itself.
fn comes_back<T: Schema + Serialize + DeserializeOwned>(body: &T) {
    let bytes = envelope::encode(body);
    let again: T = envelope::decode(&bytes).expect("our own encoding");
    assert_eq!(envelope::encode(&again), bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_breaks_no_promise() {
        type Take = fn(&[u8]);
        let all: [(&str, Take); 3] =
            [("payload", payload), ("part", parts), ("envelope", envelopes)];
        for (name, take) in all {
            let folder = format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
            let mut tried = 0;
            for file in std::fs::read_dir(folder).expect("the corpus is there").flatten() {
                take(&std::fs::read(file.path()).expect("a file"));
                tried += 1;
            }
            assert!(tried > 20, "{name}: {tried}");
        }
    }

    #[test]
    fn the_types_are_such_as_users_write() {
        for profile in PROFILES.iter() {
            profile.check().expect("a valid type");
        }
    }
}
