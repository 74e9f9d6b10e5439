//! Announcements of what a target did with messages of `TELEMETRY`, by sequence. They are not
//! stored: whoever waits for one falls back on the consumer's position.

use crate::Wire;
use domain::{OrgKey, TargetName, subject::Subject};
use serde::{Deserialize, Serialize};

/// What became of some messages in one target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// Every row is committed (or was superseded).
    pub committed: Vec<u64>,
    /// At least one row was set aside; the rest is committed.
    pub dead: Vec<u64>,
}

/// Announces an outcome; a lost announcement costs its waiter a look at the consumer.
pub async fn announce(wire: &Wire, target: &TargetName, org: &OrgKey, outcome: &Outcome) {
    let subject = Subject::Outcome { target: target.to_string(), org: org.to_string() };
    let Ok(body) = rmp_serde::to_vec(outcome) else { return };
    let _ = wire.client.publish(subject.to_string(), body.into()).await;
}

/// Reads an announcement.
pub fn read(body: &[u8]) -> Result<Outcome, rmp_serde::decode::Error> {
    rmp_serde::from_slice(body)
}
