//! Receipts: told to devices that ask, after the stream's yes.

use crate::{Counters, mqtt};
use domain::{
    Clock, DeviceId, SystemClock,
    receipt::{self, Key},
    topic,
};
use nats::Fsynced;
use std::time::Duration;

/// For how long the broker keeps a receipt for a device that is away. A device that waits for one
/// sends its message again before that.
const EXPIRES: Duration = Duration::from_hours(1);

/// A receipt that is owed.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) device: DeviceId,
    pub(super) key: Key,
}

impl Owed {
    /// Tells the device, with the proof. Where too many receipts wait, this one is dropped and
    /// counted: the device sends its message again.
    pub(super) fn tell(self, link: &mqtt::Link, counters: &Counters, _stored: &Fsynced) {
        let outgoing = mqtt::Outgoing {
            topic: topic::receipts(&self.device),
            payload: receipt::body(self.key, SystemClock.now()).into(),
            expires: EXPIRES,
            not_after: None,
            told: None,
        };
        counters.receipt(link.send(outgoing).is_ok());
    }
}
