//! A part: which transaction it belongs to, and where in it.

use crate::{
    device_type::{ChunkFormat, ChunkRule},
    pointer::find,
    subject,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt;

/// Most parts of a transaction.
pub const MAX_PARTS: u32 = 4_096;
/// Longest name of a transaction, in bytes.
pub const MAX_NAME: usize = 128;
/// Bytes of a binary part's header.
const HEADER: usize = 48;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
        }
        Some(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("64 hexadecimal digits are expected"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What tells parts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How many parts there are.
    pub total: u32,
    /// Of the whole, where the gateway gave it.
    pub digest: Option<Digest>,
    /// Of this part's data.
    pub content: Digest,
}

/// A part as a payload says it.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What the gateway calls the transaction.
    pub transaction: String,
    /// Its number, from 0.
    pub index: u32,
    /// What tells it apart.
    pub facts: Facts,
    /// What it carries.
    pub data: Data,
}

/// What a part carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// A piece of a list; and the object around it.
    Elements(Vec<Value>, Value),
    /// A piece of the bytes.
    Bytes(Vec<u8>),
}

/// Why a payload is no part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no part of a report: {0}")]
pub struct NotAPart(String);

fn no<T>(why: impl Into<String>) -> Result<T, NotAPart> {
    Err(NotAPart(why.into()))
}

/// Reads a part.
pub fn read(rule: &ChunkRule, payload: &[u8]) -> Result<Part, NotAPart> {
    let part = match rule.format {
        ChunkFormat::Json => read_json(rule, payload),
        ChunkFormat::Binary => read_binary(payload),
    }?;
    let Facts { total, .. } = part.facts;
    if !(1..=MAX_PARTS).contains(&total) {
        return no(format!("{total} parts; 1 to {MAX_PARTS} are expected"));
    }
    if part.index >= total {
        return no(format!("part {} of {total}: they are numbered from 0", part.index));
    }
    let name = &part.transaction;
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return no(format!(
            "a transaction's name has 1 to {MAX_NAME} bytes, no control characters"
        ));
    }
    if subject::decode(&subject::encode(name)).is_none() {
        // Its token would be cut, and the name could not be read back.
        return no(
            "the transaction's name is too long: letters that are not plain count threefold",
        );
    }
    Ok(part)
}

fn read_json(rule: &ChunkRule, payload: &[u8]) -> Result<Part, NotAPart> {
    if crate::normalize::json_values(payload) > crate::normalize::MAX_JSON_VALUES {
        return no("too many values");
    }
    let mut whole: Value =
        serde_json::from_slice(payload).map_err(|error| NotAPart(error.to_string()))?;
    let transaction = match find(&whole, &rule.transaction) {
        Some(Value::String(name)) => name.clone(),
        Some(Value::Number(number)) if number.is_u64() => number.to_string(),
        _ => return no(format!("{}: a text or a whole number is expected", rule.transaction)),
    };
    let number = |pointer: &str| {
        let found = find(&whole, pointer).and_then(Value::as_u64);
        let found = found.ok_or_else(|| NotAPart(format!("{pointer}: a whole number is expected")));
        found.map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    };
    let (index, total) = (number(&rule.index)?, number(&rule.total)?);
    let digest = match find(&whole, &rule.sha256) {
        None | Some(Value::Null) => None,
        Some(written) => match written.as_str().and_then(Digest::parse) {
            Some(digest) => Some(digest),
            None => return no(format!("{}: 64 hexadecimal digits are expected", rule.sha256)),
        },
    };
    let data = whole.pointer_mut(&rule.data).map(Value::take);
    let (content, data) = match data {
        Some(Value::Array(elements)) => {
            let text = serde_json::to_vec(&elements).unwrap_or_default();
            (Digest::of(&text), Data::Elements(elements, whole))
        }
        Some(Value::String(text)) => match STANDARD.decode(&text) {
            Ok(bytes) => (Digest::of(&bytes), Data::Bytes(bytes)),
            Err(error) => return no(format!("{}: {error}", rule.data)),
        },
        _ => return no(format!("{}: a list or a base64 text is expected", rule.data)),
    };
    Ok(Part { transaction, index, facts: Facts { total, digest, content }, data })
}

fn read_binary(payload: &[u8]) -> Result<Part, NotAPart> {
    let Some((header, data)) = payload.split_at_checked(HEADER) else {
        return no(format!("{} bytes; a header of {HEADER} is expected", payload.len()));
    };
    let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
    let name = u64::from(number(0)) << 32 | u64::from(number(4));
    let digest: [u8; 32] = std::array::from_fn(|n| header[16 + n]);
    let facts = Facts {
        total: number(12),
        digest: Some(Digest(digest)).filter(|digest| digest.0 != [0; 32]),
        content: Digest::of(data),
    };
    let data = Data::Bytes(data.to_vec());
    Ok(Part { transaction: name.to_string(), index: number(8), facts, data })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, it is a part or is told why not; nothing panics, nothing is allocated by
        /// what a number says.
        #[test]
        fn no_bytes_are_too_broken(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [ChunkFormat::Json, ChunkFormat::Binary] {
                let rule = ChunkRule { format, ..ChunkRule::default() };
                if let Ok(part) = read(&rule, &bytes) {
                    prop_assert!(part.index < part.facts.total && part.facts.total <= MAX_PARTS);
                }
            }
        }

        #[test]
        fn nor_are_fields(
            (txn, index, total) in (json(), json(), json()),
            (digest, data) in (json(), json()),
        ) {
            let text = format!(
                "{{\"txn\":{txn},\"index\":{index},\"total\":{total},\"sha256\":{digest},\
                 \"data\":{data}}}"
            );
            let _ = read(&ChunkRule::default(), text.as_bytes());
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let texts = ["null", "true", "-1", "0", "1", "1e400", "18446744073709551616", "\"\"", "[]"];
        let deep = ["[".repeat(200), "{\"a\":".repeat(200), "\"\\ud800\"".to_owned()];
        prop_oneof![
            proptest::sample::select(texts.map(str::to_owned).to_vec()),
            proptest::sample::select(deep.to_vec()),
            "\"[a-z+/=\\u{0}-\\u{20}]{0,80}\"",
            "[0-9]{1,30}",
        ]
    }
}
