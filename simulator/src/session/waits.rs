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

/// A wait this long stands in the log of what happened.
const WORTH_TELLING: Duration = Duration::from_secs(5);

/// What an outage makes us wait for.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) why: Option<String>,
    pub(super) again: Option<Instant>,
    since: Option<Instant>,
    pauses: Pauses,
}

impl Waits {
    /// Notes a reason, and its cause for whoever runs the platform; how long to wait before the next try.
    pub(super) fn note(
        &mut self,
        shared: &Shared,
        id: SimulatorId,
        why: &str,
        cause: &str,
    ) -> Duration {
        let whole = format!("{why}: {cause}");
        if shared.holds.hold(&hold_name(id), &whole, shared.clock.now()) {
            tracing::warn!(simulator = id.0, why = whole, "holding");
        }
        let pause = self.pauses.next_pause();
        self.why = Some(why.to_owned());
        self.since.get_or_insert_with(Instant::now);
        self.again = Some(Instant::now() + pause);
        pause
    }

    /// Nothing is in the way any more. Gives the reason and the seconds of a wait that is worth
    /// telling.
    pub(super) fn moving(&mut self, shared: &Shared, id: SimulatorId) -> Option<(String, u64)> {
        if shared.holds.release(&hold_name(id)) {
            tracing::info!(simulator = id.0, "flowing again");
        }
        let ended = std::mem::take(self);
        let lasted = ended.since?.elapsed();
        (lasted >= WORTH_TELLING).then_some((ended.why?, lasted.as_secs()))
    }
}
