//! What happened to a simulator: kept with its state, and told to who listens.

use crate::Shared;
use domain::{
    SimulatorId, Timestamp,
    model::Poller,
    simulator::{Activity, EventType},
    subject::Subject,
};
use nats::{
    envelope,
    publish::{Outgoing, publish},
};
use std::time::Duration;

/// Real-time reports are logged one by one; while a gap is filled, so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is to be logged with the next save.
#[derive(Default)]
pub(crate) struct Log {
    waiting: Vec<Activity>,
    last_progress: Option<Timestamp>,
}

impl Log {
    /// Notes something.
    pub(crate) fn note(
        &mut self,
        id: SimulatorId,
        timestamp: Timestamp,
        event_type: EventType,
        message: String,
        details: serde_json::Value,
    ) {
        self.waiting.push(Activity { simulator_id: id, timestamp, event_type, message, details });
    }

    /// What was noted last did not happen.
    pub(crate) fn take_back(&mut self) {
        self.waiting.pop();
    }

    /// Whether progress is worth a line again.
    pub(crate) fn progress_due(&mut self, now: Timestamp) -> bool {
        let every = PROGRESS_EVERY.as_micros() as i64;
        let due = self.last_progress.is_none_or(|last| now.micros() - last.micros() >= every);
        if due {
            self.last_progress = Some(now);
        }
        due
    }

    /// What waits to be saved.
    pub(crate) fn waiting(&self) -> &[Activity] {
        &self.waiting
    }

    /// It was saved: tells who listens, once and without waiting. `EVENTS` is for looking on; the
    /// log in the database is what counts.
    pub(crate) fn saved(&mut self, shared: &Shared, poller: &Poller) {
        for activity in self.waiting.drain(..) {
            let (org, id) = (poller.org.to_string(), poller.id.to_string());
            let subject = Subject::Event { org, kind: "simulator".to_owned(), id }.to_string();
            let key = format!(
                "simulator-{}-{}-{}",
                activity.simulator_id,
                activity.timestamp.micros(),
                activity.event_type.as_str()
            );
            let message = Outgoing::new(subject, &key, envelope::encode_named(&activity));
            let wire = shared.wire.clone();
            tokio::spawn(async move {
                if let Err(error) = publish(&wire, message).await {
                    tracing::debug!(%error, "an activity was not told");
                }
            });
        }
    }
}
