//! Where every reading is, and making it so: targets compared and repaired, filled from one another, and the
//! way of one reading followed. For the command line and for services that answer such questions.

pub mod backfill;
pub mod compare;
pub mod gaps;
pub mod ledger;
pub mod preview;
pub mod repair;
pub mod tell;
pub mod trace;
mod truth;
pub mod verify;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The stream server is away or refuses.
    #[error(transparent)]
    Stream(#[from] nats::model::ModelFault),
    /// The same, of a letter or a message.
    #[error(transparent)]
    Message(#[from] nats::PublishFault),
    /// It can't be done as things are.
    #[error("{0}")]
    Refused(String),
    /// A database is away or refuses.
    #[error("target {0}: {1}")]
    Target(domain::TargetName, store::Fault),
}
