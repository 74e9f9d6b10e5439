//! Leases: who may do a thing that only one may do. They end by themselves.
//!
//! A lease is the last message of a key in a bucket whose messages grow old. The sequence at which
//! it was taken is its *epoch*: of two owners the later has the higher one, so that what an owner
//! writes can be fenced by it.

use crate::{
    Wire,
    publish::{Outgoing, PublishFault, publish},
};
use async_nats::jetstream::{kv, stream::LastRawMessageErrorKind};
use std::time::Duration;

/// The bucket.
const LEASES: &str = "leases";

/// Why a lease could not be taken or kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseFault {
    /// Somebody else has it.
    #[error("{0} has the lease")]
    Taken(String),
    /// The server is away or refuses.
    #[error("leases: {0}")]
    Server(String),
}

fn server(error: impl std::fmt::Display) -> LeaseFault {
    LeaseFault::Server(error.to_string())
}

/// A lease that was taken. Dropping it lets it end by itself.
#[derive(Debug)]
pub struct Lease {
    subject: String,
    owner: String,
    /// The sequence of its last message.
    last: u64,
    epoch: u64,
}

impl Lease {
    /// Takes the lease of `key` (letters, digits, `-` and dots) where nobody has it.
    pub async fn take(wire: &Wire, key: &str, owner: &str) -> Result<Self, LeaseFault> {
        let subject = format!("$KV.{LEASES}.{key}");
        let stream =
            wire.jetstream.get_stream_no_info(format!("KV_{LEASES}")).await.map_err(server)?;
        let expected = match stream.get_last_raw_message_by_subject(&subject).await {
            // Given back: an empty owner.
            Ok(message) if message.payload.is_empty() => message.sequence,
            Ok(message) => {
                let owner = String::from_utf8_lossy(&message.payload).into_owned();
                return Err(LeaseFault::Taken(owner));
            }
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => 0,
            Err(error) => return Err(server(error)),
        };
        let epoch = write(wire, &subject, expected, owner).await?;
        Ok(Self { subject, owner: owner.to_owned(), last: epoch, epoch })
    }

    /// Higher than that of every earlier owner.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Lets its time begin anew.
    pub async fn renew(&mut self, wire: &Wire) -> Result<(), LeaseFault> {
        self.last = write(wire, &self.subject, self.last, &self.owner).await?;
        Ok(())
    }

    /// Gives it back, so that the next owner need not wait.
    pub async fn give_back(self, wire: &Wire) -> Result<(), LeaseFault> {
        write(wire, &self.subject, self.last, "").await.map(drop)
    }
}

/// How long a lease lasts that is not renewed, as the server has it.
pub async fn lasts(wire: &Wire) -> Result<Duration, LeaseFault> {
    let stream = wire.jetstream.get_stream(format!("KV_{LEASES}")).await.map_err(server)?;
    Ok(stream.cached_info().config.max_age)
}

async fn write(wire: &Wire, subject: &str, expected: u64, owner: &str) -> Result<u64, LeaseFault> {
    let message = Outgoing::expecting(subject, expected, owner.to_owned().into());
    match publish(wire, message).await {
        Ok(stored) => Ok(stored.sequence()),
        Err(PublishFault::Conflict) => Err(LeaseFault::Taken("somebody else".to_owned())),
        Err(fault) => Err(server(fault)),
    }
}

/// The bucket, with the time after which a lease that is not renewed ends.
pub(crate) fn bucket(ends_after: Duration) -> kv::Config {
    kv::Config {
        bucket: LEASES.to_owned(),
        description: "who runs what only one may run".to_owned(),
        max_age: ends_after,
        max_bytes: 16 << 20,
        ..kv::Config::default()
    }
}
