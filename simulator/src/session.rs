//! A simulator while we have its lease: what it knows, and the one step that it takes next.

mod adopt;
mod make;
mod open;
mod settle;
mod waits;

use crate::{Shared, activity::Log, simulated::Simulated, tenure::Tenure, timing::Timing};
use building::Memory;
use domain::{
    Timestamp,
    model::Poller,
    simulator::{Ask, EventType, Status},
};
use nats::{
    PublishFault,
    micro::{Request, Served},
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use store::simulator::{Saved, Saving};
use tokio::time::Instant;

pub(crate) use open::{Opened, beginning, open};
pub(crate) use waits::{Waits, hold_name};

/// What can be told to a simulator.
const VERBS: [&str; 7] = ["start", "stop", "reset", "configure", "state", "health", "note"];

/// Why a simulator waits, for anybody to read.
const DATABASE_AWAY: &str = "the state database takes nothing";
const STREAM_AWAY: &str = "the stream takes nothing";
const STREAM_FULL: &str = "the stream is full: it holds its maximum bytes";

/// Why the stream takes nothing, as anybody may read it.
fn stream_says(fault: &PublishFault) -> &'static str {
    // The server gives a full stream no code of its own.
    if fault.to_string().contains("maximum bytes") { STREAM_FULL } else { STREAM_AWAY }
}

/// The session is over: somebody else has the lease, or nobody needs it any more.
pub(crate) struct Over;

/// A simulator that runs here.
pub(crate) struct Session {
    pub(crate) shared: Shared,
    pub(crate) poller: Arc<Poller>,
    /// The poller as it was taken over; `None`: not looked at yet.
    adopted: Option<Arc<Poller>>,
    pub(crate) epoch: u64,
    pub(crate) tenure: Arc<Tenure>,
    /// Whether this session has put a message into the chain.
    begun: bool,
    pub(crate) simulated: Simulated,
    pub(crate) memory: Memory,
    /// As it stands in the database, or is to stand there.
    pub(crate) saved: Saved,
    /// The sequence of the last message of our chain.
    last: u64,
    /// Whether the last publish may have been stored.
    unsure: bool,
    /// Whether the database knows less than we do.
    unsaved: bool,
    pub(crate) timing: Timing,
    pub(crate) waits: Waits,
    pub(crate) log: Log,
    gap: Option<Gap>,
    pub(crate) made: Made,
}

/// Readings that are made up for.
struct Gap {
    from: Timestamp,
    readings: u64,
}

/// Since the session began.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) readings: u64,
    pub(crate) messages: u64,
    pub(crate) gaps: u64,
    /// Messages that the stream took, and how long it took for all of them.
    pub(crate) publishes: u64,
    pub(crate) publish_micros: u64,
}

/// Requests to a simulator.
pub(crate) type Requests = Served<Ask>;

/// The next request; never, where none can come.
pub(crate) async fn next(served: &mut Option<Requests>) -> Option<Request<Ask>> {
    match served {
        Some(served) => served.next().await,
        None => std::future::pending().await,
    }
}

impl Session {
    pub(crate) async fn serve(&mut self) -> Option<Requests> {
        match open::serve(&self.shared, self.saved.id).await {
            Ok(served) => Some(served),
            Err(refusal) => {
                self.hold("its requests can't be served", &refusal.text);
                None
            }
        }
    }

    /// How long nothing is to be done; `None`: until somebody asks.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let retry = self
            .waits
            .again
            .map_or(Duration::ZERO, |again| again.saturating_duration_since(Instant::now()));
        if self.unsure || self.unsaved || !retry.is_zero() {
            return Some(retry);
        }
        let running = !matches!(self.saved.status, Status::Stopped | Status::Error);
        let next = self.memory.at.plus_micros(self.simulated.interval());
        let now = self.shared.clock.now();
        // A pace that ends is ended by the next step.
        running.then(|| self.timing.until(next, now).unwrap_or_default())
    }

    /// Takes one step: finds out what is stored, saves, or makes the next readings.
    pub(crate) async fn advance(&mut self) -> Result<(), Over> {
        if !self.tenure.holds() {
            return Err(Over);
        }
        if self.unsure {
            return self.settle().await;
        }
        if self.unsaved {
            return self.save().await.map(drop);
        }
        let now = self.shared.clock.now();
        let next = self.memory.at.plus_micros(self.simulated.interval());
        if self.timing.until(next, now).is_none() {
            return self.finish().await;
        }
        self.make(now).await
    }

    /// The end of a pace that has one.
    async fn finish(&mut self) -> Result<(), Over> {
        self.close_gap();
        self.saved.status = Status::Stopped;
        let text = format!("it reached its end, {}", self.memory.at);
        self.note(EventType::Stop, text, json!({}));
        self.save().await.map(drop)
    }

    /// Saves the state and the log; whether the database has it.
    pub(crate) async fn save(&mut self) -> Result<bool, Over> {
        self.unsaved = true;
        if !self.tenure.holds() {
            return Err(Over);
        }
        let Ok(memory) = rmp_serde::to_vec(&self.memory) else {
            self.hold("its memory can't be written", "a fault of this program, please report it");
            return Ok(false);
        };
        let saved = Saved {
            service_name: self.shared.instance.clone(),
            at: self.memory.at,
            totalizers: self.memory.totalizers(),
            status: self.status(),
            memory,
            updated_at: self.shared.clock.now(),
            ..self.saved.clone()
        };
        let done =
            store::simulator::save(&self.shared.database, self.epoch, &saved, self.log.waiting());
        match done.await {
            Ok(Saving::Done) => {
                self.unsaved = false;
                self.saved.updated_at = saved.updated_at;
                self.log.saved(&self.shared, &self.poller);
                self.moving();
                Ok(true)
            }
            Ok(Saving::Fenced) => Err(Over),
            Err(fault) => {
                self.hold(DATABASE_AWAY, &fault.to_string());
                Ok(false)
            }
        }
    }

    /// What it does now.
    pub(crate) fn status(&self) -> Status {
        match self.saved.status {
            settled @ (Status::Stopped | Status::Error) => settled,
            _ if self.waits.why.is_some() => Status::Waiting,
            _ if self.timing.pace.speed > 1.0 => Status::Running,
            _ if self.behind(self.shared.clock.now()) => Status::Filling,
            _ => Status::Running,
        }
    }

    /// Whether what is stored is known.
    pub(crate) fn settled(&self) -> bool {
        !self.unsure
    }

    /// Nothing is in the way any more; a wait that was one is told with what happens next.
    pub(super) fn moving(&mut self) {
        if let Some((why, seconds)) = self.waits.moving(&self.shared, self.saved.id) {
            let text = format!("waited {seconds} s: {why}");
            self.note(EventType::Error, text, json!({ "why": why, "seconds": seconds }));
        }
    }

    /// Waits for something: `why` as anybody may read it, and its cause for whoever runs the platform.
    pub(crate) fn hold(&mut self, why: &str, cause: &str) {
        self.waits.note(&self.shared, self.saved.id, why, cause);
    }

    pub(crate) fn note(&mut self, what: EventType, text: String, details: serde_json::Value) {
        self.log.note(self.saved.id, self.shared.clock.now(), what, text, details);
    }
}
