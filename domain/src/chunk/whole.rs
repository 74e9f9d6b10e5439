//! The whole, from its parts.

use super::part::{self, Data, Part};
use crate::{device_type::ChunkRule, raw::MAX_PAYLOAD};
use serde_json::Value;

/// Puts the parts of a transaction together, in their order. The error is for people.
///
/// Pieces of a list become one list, in the object that the first part is, without what only says
/// that it is a part. Pieces of bytes become the bytes; they must have the digest, where there is one.
pub fn assemble<'p>(
    rule: &ChunkRule,
    payloads: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut list: Option<(Vec<Value>, Value)> = None;
    let mut digest = None;
    for payload in payloads {
        let Part { index, facts, data, .. } =
            part::read(rule, payload).map_err(|why| why.to_string())?;
        digest = digest.or(facts.digest);
        match (data, &mut list) {
            (Data::Bytes(piece), None) => bytes.extend(piece),
            (Data::Elements(piece, around), None) if index == 0 => list = Some((piece, around)),
            (Data::Elements(piece, _), Some((elements, _))) => elements.extend(piece),
            _ => return Err("some parts carry a list, others bytes".to_owned()),
        }
    }
    if let Some((elements, around)) = list {
        bytes = written(rule, elements, around);
    } else if let Some(digest) = digest {
        let found = part::Digest::of(&bytes);
        if found != digest {
            return Err(format!("the whole has the SHA-256 {found}, the gateway said {digest}"));
        }
    }
    if bytes.len() > MAX_PAYLOAD {
        return Err(format!("{} bytes, at most {MAX_PAYLOAD} are taken", bytes.len()));
    }
    Ok(bytes)
}

fn written(rule: &ChunkRule, elements: Vec<Value>, mut around: Value) -> Vec<u8> {
    if let Some(data) = around.pointer_mut(&rule.data) {
        *data = Value::Array(elements);
    }
    for pointer in [&rule.transaction, &rule.index, &rule.total, &rule.sha256] {
        let (above, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
        let key = key.replace("~1", "/").replace("~0", "~");
        if let Some(Value::Object(fields)) = around.pointer_mut(above) {
            fields.remove(&key);
        }
    }
    serde_json::to_vec(&around).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_type::ChunkFormat;
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::json;

    fn assembled(rule: &ChunkRule, parts: &[Vec<u8>]) -> Result<String, String> {
        let whole = assemble(rule, parts.iter().map(Vec::as_slice))?;
        Ok(String::from_utf8(whole).unwrap())
    }

    #[test]
    fn pieces_of_a_list_become_one_in_the_first_part() {
        let part = |index: u32, data: serde_json::Value| {
            json!({ "txn": "t", "index": index, "total": 2, "ts": 5, "data": data })
                .to_string()
                .into_bytes()
        };
        let parts = [part(0, json!([1, { "a": 2 }])), part(1, json!([3]))];
        let rule = ChunkRule::default();
        assert_eq!(assembled(&rule, &parts).unwrap(), r#"{"data":[1,{"a":2},3],"ts":5}"#);
    }

    #[test]
    fn pieces_of_bytes_must_have_the_digest() {
        let text = br#"{"beacons":[]}"#;
        let digest = part::Digest::of(text).to_string();
        let part = |index: usize, bytes: &[u8], digest: &str| {
            json!({ "txn": 7, "index": index, "total": 2, "sha256": digest,
                "data": STANDARD.encode(bytes) })
            .to_string()
            .into_bytes()
        };
        let rule = ChunkRule::default();
        let good = [part(0, &text[..5], &digest), part(1, &text[5..], &digest)];
        assert_eq!(assembled(&rule, &good).unwrap().as_bytes(), text);
        let bad = [part(0, &text[..5], &digest), part(1, b"x", &digest)];
        assert!(assembled(&rule, &bad).unwrap_err().contains("the gateway said"));
        let mixed = [
            good[0].clone(),
            json!({ "txn": 7, "index": 1, "total": 2, "data": [] }).to_string().into_bytes(),
        ];
        assert!(assembled(&rule, &mixed).unwrap_err().contains("others bytes"));
    }

    #[test]
    fn a_binary_part_has_a_header() {
        let rule = ChunkRule { format: ChunkFormat::Binary, ..ChunkRule::default() };
        let part = |index: u32, total: u32, data: &[u8]| {
            [&9_u64.to_be_bytes()[..], &index.to_be_bytes(), &total.to_be_bytes(), &[0; 32], data]
                .concat()
        };
        let parts = [part(0, 2, b"{\"a\""), part(1, 2, b":1}")];
        assert_eq!(assembled(&rule, &parts).unwrap(), r#"{"a":1}"#);
        let read = part::read(&rule, &parts[1]).unwrap();
        assert_eq!((read.transaction.as_str(), read.index, read.facts.digest), ("9", 1, None));
        for (index, total) in [(2, 2), (0, 0), (0, 1_000_000_000), (u32::MAX, 2)] {
            assert!(part::read(&rule, &part(index, total, b"")).is_err(), "{index} of {total}");
        }
        assert!(part::read(&rule, b"short").is_err());
    }

    #[test]
    fn what_is_no_part_is_told_so() {
        let long = format!(r#"{{"txn":"{}","index":0,"total":1,"data":[]}}"#, "報".repeat(30));
        for (payload, why) in [
            (&*long, "too long"),
            ("", "EOF"),
            ("[]", "/txn"),
            (r#"{"txn":"","index":0,"total":1,"data":[]}"#, "name has"),
            (r#"{"txn":"t","index":-1,"total":1,"data":[]}"#, "/index"),
            (r#"{"txn":"t","index":1,"total":1,"data":[]}"#, "numbered from 0"),
            (r#"{"txn":"t","index":0,"total":5e9,"data":[]}"#, "/total"),
            (r#"{"txn":"t","index":0,"total":5000,"data":[]}"#, "1 to 4096"),
            (r#"{"txn":"t","index":0,"total":1,"sha256":"x","data":[]}"#, "hexadecimal"),
            (r#"{"txn":"t","index":0,"total":1,"data":"?"}"#, "/data"),
            (r#"{"txn":"t","index":0,"total":1}"#, "a list or a base64"),
        ] {
            let found = part::read(&ChunkRule::default(), payload.as_bytes());
            let text = found.map_err(|error| error.to_string()).unwrap_err();
            assert!(text.contains(why), "{payload}: {text}");
        }
    }
}
