//! What is stored and what is saved, brought together; and runs that begin anew.

use super::{Over, Session, stream_says};
use crate::{
    chain::{Beginning, Link, Step, reconcile},
    timing::Timing,
};
use domain::{
    Batch, OrgKey, SimulatorId, Timestamp,
    simulator::{EventType, Status},
    subject::Subject,
};
use nats::{
    PublishFault, envelope,
    publish::{Outgoing, last, publish},
    streams::TELEMETRY,
};
use serde_json::json;
use tokio::time::Instant;

impl Session {
    pub(super) fn link(&self, run: u64, to: Timestamp, begins: Option<Beginning>) -> Link {
        Link { run, epoch: self.epoch, to, begins, lineage: self.saved.lineage }
    }

    /// Publishes the next message of the chain; whether it is stored.
    pub(super) async fn publish(&mut self, batch: &Batch, link: Link) -> bool {
        let subject = subject(&self.poller.org, self.saved.id);
        let mut message = Outgoing::expecting(subject, self.last, envelope::encode(batch));
        for (name, value) in link.headers() {
            message = message.header(name, &value);
        }
        let begun = Instant::now();
        match publish(&self.shared.wire, message).await {
            Ok(stored) => {
                let took = begun.elapsed();
                self.made.publishes += 1;
                self.made.publish_micros += took.as_micros() as u64;
                metrics::histogram!("haystack_simulator_publish_seconds")
                    .record(took.as_secs_f64());
                self.last = stored.sequence();
                self.moving();
                true
            }
            Err(PublishFault::Conflict) => {
                self.unsure = true;
                false
            }
            Err(fault) => {
                self.unsure = true;
                self.hold(stream_says(&fault), &fault.to_string());
                false
            }
        }
    }

    /// Finds out how far the readings in the stream go, and makes sure that nothing older can
    /// still enter it: an empty message of ours takes the place that it would need.
    pub(crate) async fn settle(&mut self) -> Result<(), Over> {
        let subject = subject(&self.poller.org, self.saved.id);
        let found = match last(&self.shared.wire, TELEMETRY, &subject).await {
            Ok(found) => found,
            Err(fault) => {
                self.hold(stream_says(&fault), &fault.to_string());
                return Ok(());
            }
        };
        // Who was frozen takes an epoch that is later than its own for a bucket that was lost.
        if !self.tenure.holds() {
            return Err(Over);
        }
        let link = found.as_ref().and_then(|found| Link::read(&found.headers));
        let later = link.map_or(0, |link| link.epoch);
        if later > self.epoch && self.begun {
            return Err(Over);
        }
        // At the beginning it is the bucket of leases that was lost.
        self.epoch = self.epoch.max(later + u64::from(later > self.epoch));
        let step = match (&found, link) {
            (Some(_), None) => Step::Foreign,
            _ => reconcile(self.saved.run, self.memory.at, self.saved.lineage, link),
        };
        self.last = found.map_or(0, |found| found.sequence);
        let barrier = match link {
            Some(link) => Link { epoch: self.epoch, ..link },
            None => self.link(self.saved.run, self.memory.at, None),
        };
        if !self.publish(&Batch::default(), barrier).await {
            return Ok(());
        }
        (self.unsure, self.begun) = (false, true);
        self.follow(step, link.map(|link| link.run));
        self.save().await.map(drop)
    }

    fn follow(&mut self, step: Step, run: Option<u64>) {
        match step {
            Step::Stay => {}
            Step::Skip(to) => {
                let (simulated, memory) = (&self.simulated, &mut self.memory);
                tokio::task::block_in_place(|| simulated.skip(memory, to));
                if self.memory.at != to {
                    self.foreign(run);
                }
            }
            Step::Begin(how, to) => self.begin(how, to),
            Step::Foreign => self.foreign(run),
        }
        self.timing =
            Timing { simulated: self.memory.at, real: self.shared.clock.now(), ..self.timing };
    }

    /// `run`: that of the stream's last message, where it is a simulator's.
    fn foreign(&mut self, run: Option<u64>) {
        if self.saved.status == Status::Error {
            return;
        }
        self.saved.status = Status::Error;
        let why = match run {
            Some(run) => format!(
                "the stream holds readings of run {run} of this simulator up to a moment that the \
                 state database (run {}) does not know: one of them was put back to an older state. \
                 `haystack simulator reset` begins anew",
                self.saved.run
            ),
            None => "somebody else has written to this simulator's own subject of the stream. \
                     `haystack simulator reset` begins anew"
                .to_owned(),
        };
        self.note(EventType::Error, why.clone(), json!({}));
        self.saved.error = Some(why);
    }

    /// Begins a new run at a boundary.
    fn begin(&mut self, how: Beginning, to: Timestamp) {
        self.saved.run += 1;
        self.saved.error = None;
        if self.saved.status == Status::Error {
            self.saved.status = Status::Stopped;
        }
        let from = match how {
            Beginning::Fresh => to,
            Beginning::Rewound => self.saved.begun_at,
        };
        self.memory = self.simulated.plan().begin(self.saved.config.seed, from);
        let (simulated, memory) = (&self.simulated, &mut self.memory);
        tokio::task::block_in_place(|| simulated.skip(memory, to));
        (self.saved.begun_at, self.saved.changed) = (from, false);
        self.saved.lineage = self.saved.config.fingerprint();
        self.gap = None;
        let text = format!("run {} begins at {to}", self.saved.run);
        self.note(EventType::Reset, text, json!({ "run": self.saved.run }));
    }

    /// Ends the run and begins the next with a message that says so, and deletes what it is told
    /// to. `false`: it may have been stored, or not; the next step finds out.
    pub(crate) async fn begin_anew(
        &mut self,
        batch: &Batch,
        how: Beginning,
        to: Timestamp,
    ) -> Result<bool, Over> {
        // Only a state that was saved can be begun anew by another owner in the same way.
        if self.unsaved && !self.save().await? {
            return Ok(false);
        }
        let link = self.link(self.saved.run + 1, to, Some(how));
        if !self.publish(batch, link).await {
            return Ok(false);
        }
        self.begin(how, to);
        self.save().await?;
        Ok(true)
    }
}

/// `telemetry.{org}.simulator-{id}`: nobody else writes it.
fn subject(org: &OrgKey, id: SimulatorId) -> String {
    let (org, source) = (org.to_string(), format!("simulator-{id}"));
    Subject::Telemetry { org, source }.to_string()
}
