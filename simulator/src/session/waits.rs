//! What an outage makes a simulator wait for.

use crate::Shared;
use domain::SimulatorId;
use nats::retry::Pauses;
use std::time::Duration;
use tokio::time::Instant;

/// The name under which a simulator is held.
pub(crate) fn hold_name(id: SimulatorId) -> String {
    format!("simulator/{id}")
}

/// What an outage makes us wait for.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) why: Option<String>,
    pub(super) again: Option<Instant>,
    pauses: Pauses,
}

impl Waits {
    /// Notes a reason; how long to wait before the next try.
    pub(super) fn note(&mut self, shared: &Shared, id: SimulatorId, why: String) -> Duration {
        if shared.holds.hold(&hold_name(id), &why, shared.clock.now()) {
            tracing::warn!(simulator = id.0, why, "holding");
        }
        let pause = self.pauses.next_pause();
        self.why = Some(why);
        self.again = Some(Instant::now() + pause);
        pause
    }

    pub(super) fn moving(&mut self, shared: &Shared, id: SimulatorId) {
        if self.why.is_some() {
            *self = Self::default();
        }
        if shared.holds.release(&hold_name(id)) {
            tracing::info!(simulator = id.0, "flowing again");
        }
    }
}
