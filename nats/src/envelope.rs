//! Message bodies: MessagePack, an array of the schema's version and the body.
//!
//! A writer writes the newest version; a reader reads every version there ever was and refuses
//! one that it does not know. The bytes of every version are kept as tests.

use bytes::Bytes;
use domain::{
    Batch, Letter,
    model::Record,
    raw::{Pack, RawMessage},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Media type of every envelope.
pub const CONTENT_TYPE: &str = "application/msgpack";

/// Why bytes are no body.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeFault {
    /// Not MessagePack, or not of the schema's shape.
    #[error("not a {schema}: {source}")]
    Malformed {
        /// The schema.
        schema: &'static str,
        /// What the decoder says.
        source: rmp_serde::decode::Error,
    },
    /// A later release wrote it.
    #[error("{schema} of schema version {found}; this release reads up to {newest}")]
    Newer {
        /// The schema.
        schema: &'static str,
        /// The version found.
        found: u16,
        /// The newest version that is read.
        newest: u16,
    },
}

/// A body that travels in an envelope.
pub trait Schema {
    /// Its name in errors.
    const NAME: &'static str;
    /// The newest version, up to which all are read.
    const VERSION: u16;

    /// The version that this body is written in: the oldest in which it can be, so that readers of an
    /// earlier release refuse no more than they must.
    fn version(&self) -> u16 {
        Self::VERSION
    }
}

impl Schema for Batch {
    const NAME: &'static str = "telemetry batch";
    const VERSION: u16 = 2;

    fn version(&self) -> u16 {
        if self.presences.is_empty() { 1 } else { 2 }
    }
}
impl Schema for Pack<'_> {
    const NAME: &'static str = "raw pack";
    const VERSION: u16 = 1;
}
impl Schema for Record {
    const NAME: &'static str = "model record";
    const VERSION: u16 = 1;
}
impl Schema for domain::simulator::Ask {
    const NAME: &'static str = "simulator request";
    const VERSION: u16 = 1;
}
impl Schema for domain::simulator::State {
    const NAME: &'static str = "simulator state";
    const VERSION: u16 = 1;
}
impl Schema for domain::simulator::Activity {
    const NAME: &'static str = "simulator activity";
    const VERSION: u16 = 1;
}
impl Schema for RawMessage<'_> {
    const NAME: &'static str = "gateway part";
    const VERSION: u16 = 1;
}
impl Schema for domain::chunk::End {
    const NAME: &'static str = "end of a gateway transaction";
    const VERSION: u16 = 1;
}
impl Schema for domain::command::Command {
    const NAME: &'static str = "device command";
    const VERSION: u16 = 1;
}
impl Schema for domain::command::Told {
    const NAME: &'static str = "answer to a device command";
    const VERSION: u16 = 1;
}
impl Schema for domain::presence::Presence {
    const NAME: &'static str = "presence of a device";
    const VERSION: u16 = 1;
}
impl Schema for domain::recall::Ask {
    const NAME: &'static str = "request about a letter";
    const VERSION: u16 = 1;
}
impl Schema for domain::recall::Told {
    const NAME: &'static str = "answer about a letter";
    const VERSION: u16 = 1;
}
impl Schema for domain::custody::Ask {
    const NAME: &'static str = "question where readings are";
    const VERSION: u16 = 1;
}
impl Schema for domain::custody::Told {
    const NAME: &'static str = "answer where readings are";
    const VERSION: u16 = 1;
}
impl Schema for Letter {
    const NAME: &'static str = "dead letter";
    const VERSION: u16 = 2;
    /// Whoever does not know that a letter may stand for many must not take it for one.
    fn version(&self) -> u16 {
        if self.many.is_empty() { 1 } else { 2 }
    }
}

/// Encodes the hot bodies: structs as arrays, fields by position.
pub fn encode<T: Schema + Serialize>(body: &T) -> Bytes {
    encode_sized(body, 256)
}

/// The same where it is known how large it gets, about: a large body that grows is copied again and
/// again.
pub fn encode_sized<T: Schema + Serialize>(body: &T, about: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(about);
    // A `Vec` takes all that is written, and the bodies have no type that MessagePack lacks.
    rmp_serde::encode::write(&mut bytes, &(body.version(), body)).expect("bodies are encodable");
    bytes.into()
}

/// Encodes records that people may meet and that grow over time: structs as maps.
pub fn encode_named<T: Schema + Serialize>(body: &T) -> Bytes {
    let mut bytes = Vec::with_capacity(256);
    rmp_serde::encode::write_named(&mut bytes, &(body.version(), body))
        .expect("bodies are encodable");
    bytes.into()
}

/// Decodes a body that owns its data.
pub fn decode<T: Schema + DeserializeOwned>(bytes: &[u8]) -> Result<T, EnvelopeFault> {
    decode_borrowed(bytes)
}

/// Decodes a body that may borrow from the bytes.
pub fn decode_borrowed<'b, T: Schema + Deserialize<'b>>(
    bytes: &'b [u8],
) -> Result<T, EnvelopeFault> {
    let malformed = |source| EnvelopeFault::Malformed { schema: T::NAME, source };
    let version = version(bytes).map_err(malformed)?;
    if version == 0 || version > T::VERSION {
        let (schema, newest) = (T::NAME, T::VERSION);
        return Err(EnvelopeFault::Newer { schema, found: version, newest });
    }
    let (_, body): (u16, T) = rmp_serde::from_slice(bytes).map_err(malformed)?;
    Ok(body)
}

/// Reads the version without the body: it may have a shape that is not known here.
fn version(bytes: &[u8]) -> Result<u16, rmp_serde::decode::Error> {
    // A two-element array is one byte, 0x92; what follows is the version.
    match bytes.split_first() {
        Some((0x92, rest)) => u16::deserialize(&mut rmp_serde::Deserializer::new(rest)),
        _ => Err(serde::de::Error::custom("no envelope")),
    }
}

#[cfg(test)]
mod tests;
