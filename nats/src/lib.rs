//! The wire: streams, envelopes, publishing and consuming over NATS JetStream.
//!
//! A yes of a stream is a [`Fsynced`]; only this crate can make one.

pub mod chunks;
pub mod connect;
pub mod consume;
pub mod counter;
pub mod envelope;
pub mod history;
pub mod idempotency;
pub mod inspect;
pub mod jobs;
pub mod lease;
pub mod letters;
pub mod micro;
pub mod model;
pub mod news;
pub mod outcome;
pub mod pack;
pub mod publish;
pub mod records;
pub mod registry;
pub mod replays;
pub mod report;
pub mod retention;
pub mod retry;
pub mod streams;
pub mod targets;

pub use connect::{Author, Login, Wire};
pub use consume::{Delivery, Reader};
pub use publish::{Fsynced, PublishFault};
pub use tokio_util::sync::CancellationToken;
