//! Identifiers, parsed once where they enter the platform.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, marker::PhantomData, str::FromStr};

/// Why a text is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct InvalidId {
    /// What was being read, e.g. "org key".
    pub what: &'static str,
    /// The text that was refused (cut to [`SHOWN`] characters).
    pub text: String,
    /// The rule it breaks, in words for the person who typed it.
    pub rule: &'static str,
}

/// Characters of a refused text that an error repeats.
const SHOWN: usize = 80;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub i32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// An organisation's number: allocated once, never used again.
    OrgId
);
number_id!(
    /// An entity's number (a point is an entity): allocated once, never used again.
    EntityId
);

/// Reads an identifier from a text, wherever that lies.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidId>> de::Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(PhantomData))
            }
        }

        // Maps by such an id are asked by text: both hash and compare as the text does.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl $name {
            /// Reads the identifier.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(SHOWN).collect();
                    Err(InvalidId { what: $what, text, rule: $rule })
                }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// An organisation's short name; it becomes part of table names (`values_<org_key>`).
    OrgKey,
    "org key",
    "use a-z, 0-9 and _, start with a letter, at most 31 characters, not ending in _current",
    |text| {
        (1..=31).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            && !text.ends_with("_current")
    }
);

text_id!(
    /// A device's name, unique in the platform: it is the common name of its certificate.
    DeviceId,
    "device id",
    "use A-Z, a-z, 0-9, _ and -, at most 64 characters",
    |text| is_name(text, 64)
);

text_id!(
    /// A device type's name, unique in its org.
    TypeId,
    "device type",
    "use A-Z, a-z, 0-9, _ and -, at most 64 characters",
    |text| is_name(text, 64)
);

text_id!(
    /// A database that receives everything, by the name it has in the configuration.
    TargetName,
    "target name",
    "use a-z, 0-9, _ and -, start with a letter, at most 31 characters",
    |text| {
        is_name(text, 31)
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && !text.bytes().any(|b| b.is_ascii_uppercase())
    }
);

fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn org_keys_are_safe_in_table_names() {
        for good in ["demo", "a", "north_9", &"a".repeat(31)] {
            assert!(OrgKey::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "9a", "Demo", "a-b", "a\"b", "x_current", &"a".repeat(32), "é"] {
            assert!(OrgKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_read_from_the_wire_obeys_the_same_rule() {
        assert!(serde_json::from_str::<DeviceId>("\"TS-001-2024\"").is_ok());
        assert!(serde_json::from_str::<DeviceId>("\"TS 001\"").is_err());
        let id = DeviceId::parse("TS-001-2024").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"TS-001-2024\"");
        let by_id = std::collections::HashMap::from([(id, 1)]);
        assert_eq!(by_id.get("TS-001-2024"), Some(&1));
    }
}
