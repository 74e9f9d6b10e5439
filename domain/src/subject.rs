//! NATS subjects: built from and parsed back into what they name.
//!
//! A token that comes from outside is percent-encoded, so that no `.`, `*`, `>` or blank of a
//! device's or an org's name can enter a subject.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Everything but letters, digits and `-` is encoded; also `_`, which alone means "none".
const TOKEN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-');

/// The token that stands for "no org" or "no source".
pub const NONE: &str = "_";

/// The source of values that come by HTTP: their sender waits until the primary has committed them.
pub const API: &str = "api";

/// The token in the place of a part's number that stands for the end of its transaction.
const END: &str = "end";

/// Longest encoded token. A longer one is cut and ends in `%~` and a hash, so that hostile names
/// can't grow subjects without bound; the full name is in the message.
pub const MAX_TOKEN: usize = 192;

/// Encodes one token. The empty text becomes a lone `%`.
pub fn encode(text: &str) -> String {
    if text.is_empty() {
        return "%".to_owned();
    }
    // Underscores are common in names and harmless except alone.
    let token = if text == NONE {
        "%5F".to_owned()
    } else {
        utf8_percent_encode(text, TOKEN).to_string().replace("%5F", "_")
    };
    if token.len() <= MAX_TOKEN {
        return token;
    }
    let kept = &token[..MAX_TOKEN - 18];
    format!("{kept}%~{:016x}", fnv1a(text.as_bytes()))
}

/// Decodes one token; `None` where it is not one that [`encode`] gives, or was cut.
pub fn decode(token: &str) -> Option<String> {
    if token == "%" {
        return Some(String::new());
    }
    let text = percent_decode_str(token).decode_utf8().ok()?;
    (encode(&text) == token).then(|| text.into_owned())
}

/// FNV-1a, 64 bits: stable over versions and machines, which `std`'s hashers are not.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The subjects of the platform's streams, and of the announcements between services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// `raw.{door}.{instance}`: packs of device messages as they came.
    Raw {
        /// `mqtt` or `http`.
        door: String,
        /// The instance of the door that wrote it.
        instance: String,
    },
    /// `telemetry.{org}.{source}`: normalized readings and tombstones.
    Telemetry {
        /// Org key.
        org: String,
        /// Who produced it.
        source: String,
    },
    /// `model.{org}.{kind}.{id}`: what is not a reading.
    Model {
        /// Org key; `None` where ids are unique in the platform.
        org: Option<String>,
        /// `org`, `entity`, `device`, …
        kind: String,
        /// The thing's id.
        id: String,
    },
    /// `model.{org}.profile.{id}.{version}`: one version of a device type.
    Profile {
        /// Org key.
        org: String,
        /// Device type.
        id: String,
        /// Its version.
        version: u32,
    },
    /// `dead.{stage}.{org}.{source}`: what could not be processed.
    Dead {
        /// Where it failed.
        stage: String,
        /// Org key, where it is known.
        org: Option<String>,
        /// Device, producer or target.
        source: String,
    },
    /// `event.{org}.{kind}.{id}`: what happened.
    Event {
        /// Org key.
        org: String,
        /// `simulator`, …
        kind: String,
        /// The thing's id.
        id: String,
    },
    /// `chunk.{org}.{gateway}.{transaction}.{index}`: a part of an unfinished gateway transaction.
    Chunk {
        /// Org key.
        org: String,
        /// The gateway.
        gateway: String,
        /// What the gateway calls the transaction.
        transaction: String,
        /// The part's number; `None`: the record of the transaction's end.
        index: Option<u32>,
    },
    /// `outcome.{target}.{org}`: which messages of `TELEMETRY` a target committed (not stored).
    Outcome {
        /// The target.
        target: String,
        /// Org key.
        org: String,
    },
}

impl Subject {
    /// Reads a subject; `None` where it is none of these.
    pub fn parse(subject: &str) -> Option<Self> {
        let tokens: Vec<&str> = subject.split('.').collect();
        let org = |token: &str| match token {
            NONE => Some(None),
            _ => decode(token).map(Some),
        };
        Some(match tokens[..] {
            ["raw", door, instance] => {
                Self::Raw { door: decode(door)?, instance: decode(instance)? }
            }
            ["telemetry", org, source] => {
                Self::Telemetry { org: decode(org)?, source: decode(source)? }
            }
            ["model", org, "profile", id, version] => Self::Profile {
                org: decode(org)?,
                id: decode(id)?,
                version: version.parse().ok().filter(|v: &u32| v.to_string() == version)?,
            },
            ["model", token, kind, id] => {
                Self::Model { org: org(token)?, kind: decode(kind)?, id: decode(id)? }
            }
            ["dead", stage, token, source] => {
                Self::Dead { stage: decode(stage)?, org: org(token)?, source: decode(source)? }
            }
            ["event", org, kind, id] => {
                Self::Event { org: decode(org)?, kind: decode(kind)?, id: decode(id)? }
            }
            ["chunk", org, gateway, transaction, index] => Self::Chunk {
                org: decode(org)?,
                gateway: decode(gateway)?,
                transaction: decode(transaction)?,
                index: match index {
                    END => None,
                    _ => Some(index.parse().ok().filter(|n: &u32| n.to_string() == index)?),
                },
            },
            ["outcome", target, org] => {
                Self::Outcome { target: decode(target)?, org: decode(org)? }
            }
            _ => return None,
        })
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let org = |org: &Option<String>| org.as_deref().map_or(NONE.to_owned(), encode);
        match self {
            Self::Raw { door, instance } => write!(f, "raw.{}.{}", encode(door), encode(instance)),
            Self::Telemetry { org, source } => {
                write!(f, "telemetry.{}.{}", encode(org), encode(source))
            }
            Self::Model { org: key, kind, id } => {
                write!(f, "model.{}.{}.{}", org(key), encode(kind), encode(id))
            }
            Self::Profile { org, id, version } => {
                write!(f, "model.{}.profile.{}.{version}", encode(org), encode(id))
            }
            Self::Dead { stage, org: key, source } => {
                write!(f, "dead.{}.{}.{}", encode(stage), org(key), encode(source))
            }
            Self::Event { org, kind, id } => {
                write!(f, "event.{}.{}.{}", encode(org), encode(kind), encode(id))
            }
            Self::Chunk { org, gateway, transaction, index } => {
                let (org, gateway) = (encode(org), encode(gateway));
                let index = index.map_or(END.to_owned(), |index| index.to_string());
                write!(f, "chunk.{org}.{gateway}.{}.{index}", encode(transaction))
            }
            Self::Outcome { target, org } => {
                write!(f, "outcome.{}.{}", encode(target), encode(org))
            }
        }
    }
}

/// The filter that gives one org's telemetry: `telemetry.{org}.>`.
pub fn telemetry_of(org: &crate::OrgKey) -> String {
    format!("telemetry.{}.>", encode(org.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_can_enter_a_subject() {
        for name in ["a.b", "*", ">", "a b", "", "_", "a_b", "ü", "%", "%41", "\0", "a\r\nb"] {
            let token = encode(name);
            assert!(!token.is_empty() && token != NONE, "{name:?}");
            assert!(!token.contains(['.', '*', '>', ' ', '\r', '\n', '\0']), "{name:?}");
            assert_eq!(decode(&token).as_deref(), Some(name));
        }
        assert_eq!(encode("TS-001_a"), "TS-001_a");
    }

    #[test]
    fn a_long_name_is_cut_and_stays_apart_from_its_neighbours() {
        let (a, b) = ("x".repeat(5_000) + "a", "x".repeat(5_000) + "b");
        assert!(encode(&a).len() <= MAX_TOKEN);
        assert_ne!(encode(&a), encode(&b));
        assert_eq!(decode(&encode(&a)), None);
    }

    #[test]
    fn a_token_that_encode_does_not_give_is_refused() {
        for token in ["%41", "a%2e", "%zz", "%ff", "a b", ""] {
            assert_eq!(decode(token), None, "{token:?}");
        }
    }

    #[test]
    fn subjects_come_back() {
        let all = [
            Subject::Raw { door: "mqtt".into(), instance: "b.1".into() },
            Subject::Telemetry { org: "demo".into(), source: "mqtt".into() },
            Subject::Model { org: None, kind: "device".into(), id: "TS-1".into() },
            Subject::Model { org: Some("_".into()), kind: "org".into(), id: "1".into() },
            Subject::Profile { org: "demo".into(), id: "t".into(), version: 3 },
            Subject::Dead { stage: "normalize".into(), org: None, source: ">".into() },
            Subject::Event { org: "demo".into(), kind: "simulator".into(), id: "1".into() },
            Subject::Outcome { target: "primary".into(), org: "demo".into() },
            Subject::Chunk {
                org: "demo".into(),
                gateway: "G-1".into(),
                transaction: "a.b 7".into(),
                index: Some(66),
            },
            Subject::Chunk {
                org: "demo".into(),
                gateway: "G-1".into(),
                transaction: "end".into(),
                index: None,
            },
        ];
        for subject in all {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        assert_eq!(Subject::parse("model.demo.profile.t.03"), None);
        assert_eq!(Subject::parse("elsewhere"), None);
    }
}
