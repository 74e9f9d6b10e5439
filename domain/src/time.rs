//! Moments in UTC with microsecond precision, and where "now" comes from.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Microseconds since 1970-01-01T00:00:00Z: the precision of PostgreSQL's `timestamptz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Timestamp(i64);

impl From<Timestamp> for i64 {
    fn from(time: Timestamp) -> i64 {
        time.0
    }
}

impl TryFrom<i64> for Timestamp {
    type Error = &'static str;
    fn try_from(micros: i64) -> Result<Self, Self::Error> {
        Self::from_micros(micros).ok_or("a moment outside the years 1 to 9999")
    }
}

/// 0001-01-01T00:00:00Z. Earlier moments have no RFC 3339 form.
const EARLIEST: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z. Later moments have no RFC 3339 form.
const LATEST: i64 = 253_402_300_799_999_999;

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The earliest moment that can be written as RFC 3339.
    pub const MIN: Self = Self(EARLIEST);
    /// The latest moment that can be written as RFC 3339.
    pub const MAX: Self = Self(LATEST);

    /// From microseconds since the epoch; `None` outside the years 1 to 9999.
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros >= EARLIEST && micros <= LATEST { Some(Self(micros)) } else { None }
    }

    /// Nanoseconds since the epoch, cut (not rounded) to microseconds.
    pub fn from_nanos(nanos: i128) -> Option<Self> {
        i64::try_from(nanos.div_euclid(1_000)).ok().and_then(Self::from_micros)
    }

    /// Microseconds since the epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 with an offset; digits past the microsecond are cut.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        Self::from_micros(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros())
    }

    /// Later by `micros` (earlier where negative), kept inside the range.
    #[must_use]
    pub const fn plus_micros(self, micros: i64) -> Self {
        let sum = self.0.saturating_add(micros);
        Self(if sum < EARLIEST {
            EARLIEST
        } else if sum > LATEST {
            LATEST
        } else {
            sum
        })
    }

    /// As chrono's type.
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// From chrono's type, cut to microseconds; `None` outside the years 1 to 9999.
    pub fn from_chrono(time: DateTime<Utc>) -> Option<Self> {
        Self::from_micros(time.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_chrono().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

/// Moments as RFC 3339 texts, where people read them (`#[serde(with = …)]`).
pub mod rfc3339 {
    use super::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it.
    pub fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| {
            D::Error::custom("a moment with an offset is expected, e.g. 2026-01-01T00:00:00Z")
        })
    }

    /// The same of moments that may be missing.
    pub mod option {
        use super::super::Timestamp;
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[derive(Serialize, Deserialize)]
        struct Written(#[serde(with = "super")] Timestamp);

        /// Writes it.
        pub fn serialize<S: Serializer>(
            at: &Option<Timestamp>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            at.map(Written).serialize(serializer)
        }

        /// Reads it.
        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            Ok(Option::<Written>::deserialize(from)?.map(|Written(at)| at))
        }
    }
}

/// Where "now" comes from, so that tests need not sleep.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        Timestamp::from_chrono(Utc::now()).unwrap_or(Timestamp::EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_past_the_microsecond_are_cut() {
        let time = Timestamp::parse_rfc3339("2026-01-01T00:00:00.1234569Z").unwrap();
        assert_eq!(time.to_string(), "2026-01-01T00:00:00.123456Z");
        assert_eq!(Timestamp::from_nanos(-1), Timestamp::from_micros(-1));
    }

    #[test]
    fn a_moment_without_an_offset_is_refused() {
        assert_eq!(Timestamp::parse_rfc3339("2026-01-01T00:00:00"), None);
        assert_eq!(
            Timestamp::parse_rfc3339("2026-01-01T02:00:00+02:00"),
            Timestamp::parse_rfc3339("2026-01-01T00:00:00Z")
        );
    }
}
