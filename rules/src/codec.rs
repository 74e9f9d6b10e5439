//! Payloads that are not JSON, as JSON: the rules of device types point into that.

use domain::{msgpack, normalize::MAX_JSON_VALUES, raw::MSGPACK};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// How deep values may nest, as for JSON.
const MAX_DEPTH: usize = 128;

/// The payload as JSON text; what says nothing else is that already. An error says what is wrong.
pub(crate) fn as_json<'p>(content_type: &str, payload: &'p [u8]) -> Result<Cow<'p, [u8]>, String> {
    if content_type != MSGPACK {
        return Ok(payload.into());
    }
    let wrong = |why: String| format!("not MessagePack that can be read: {why}");
    // Counted before it is read: in memory a value takes many times its bytes.
    msgpack::check(payload, MAX_JSON_VALUES).map_err(|why| wrong(why.to_string()))?;
    let mut from = rmp_serde::Deserializer::new(payload);
    from.set_max_depth(MAX_DEPTH);
    let value = Value::deserialize(&mut from).map_err(|error| wrong(error.to_string()))?;
    serde_json::to_vec(&value).map(Cow::from).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messagepack_becomes_json_and_all_else_stays_as_it_is() {
        let packed = b"\x82\xa1a\xcb\x40\x35\x80\x00\x00\x00\x00\x00\xa1b\xa2xy";
        let json = as_json(MSGPACK, packed).unwrap();
        assert_eq!(&*json, br#"{"a":21.5,"b":"xy"}"#);
        assert_eq!(&*as_json("application/json", b"{ 1").unwrap(), b"{ 1");
    }

    #[test]
    fn what_can_not_be_read_is_told() {
        let deep = [vec![0x91; 5_000], vec![0xc0]].concat();
        // Cut off, bytes (which JSON lacks), a key that is no text, deeper than a stack may be.
        for bad in [b"\x81".as_slice(), b"\xc4\x01a", b"\x81\x90\x01", b"", &deep] {
            assert!(as_json(MSGPACK, bad).is_err(), "{:?}", &bad[..bad.len().min(9)]);
        }
    }
}
