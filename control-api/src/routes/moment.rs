//! Moments in requests: RFC 3339; without an offset they are UTC.

use domain::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// A moment that a caller wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl Moment {
    fn parse(text: &str) -> Option<Self> {
        if let Some(moment) = Timestamp::parse_rfc3339(text) {
            return Some(Self(moment));
        }
        let naive = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
            .or_else(|_| chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
            .ok()?;
        Timestamp::from_chrono(naive.and_utc()).map(Self)
    }
}

struct Text;

impl de::Visitor<'_> for Text {
    type Value = Moment;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a moment such as 2026-01-01T00:00:00Z")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Moment, E> {
        let shown = || Cow::from(text.chars().take(40).collect::<String>());
        Moment::parse(text).ok_or_else(|| {
            E::custom(format!("{:?} is no moment; write it like 2026-01-01T00:00:00Z", shown()))
        })
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl From<chrono::DateTime<chrono::Utc>> for Moment {
    fn from(time: chrono::DateTime<chrono::Utc>) -> Self {
        Self(Timestamp::from_chrono(time).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_without_an_offset_is_utc() {
        let same =
            ["2026-01-01T02:00:00.5+02:00", "2026-01-01T00:00:00.5", "2026-01-01 00:00:00.500"];
        for text in same {
            let moment: Moment = serde_json::from_value(text.into()).unwrap();
            assert_eq!(serde_json::to_value(moment).unwrap(), "2026-01-01T00:00:00.500Z");
        }
        for no in ["", "2026-01-01", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00"] {
            assert_eq!(Moment::parse(no), None, "{no}");
        }
    }
}
