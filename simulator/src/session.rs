//! A simulator while we have its lease: time and requests in, readings out, one thing at a time.

use crate::{
    Shared,
    activity::Log,
    chain::{Beginning, Link, Step, reconcile},
    commands,
    owner::Tenure,
    simulated::{Simulated, Unusable, plan},
    timing::Timing,
};
use building::Memory;
use domain::{
    Batch, OrgKey, SimulatorId, Timestamp, failpoint,
    model::Poller,
    simulator::{Ask, EventType, Pace, SimulatorConfig, State, Status},
    subject::Subject,
};
use nats::{
    CancellationToken, PublishFault, envelope,
    micro::{Refusal, Request, Served},
    publish::{Outgoing, last, publish},
    retry::Pauses,
    streams::TELEMETRY,
};
use serde_json::json;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use store::simulator::{Saved, Saving};
use tokio::time::Instant;

/// What can be told to a simulator.
const VERBS: [&str; 6] = ["start", "stop", "reset", "configure", "state", "health"];

/// The name under which a simulator is held.
pub(crate) fn hold_name(id: SimulatorId) -> String {
    format!("simulator/{id}")
}

/// The session is over: somebody else has the lease, or nobody needs it any more.
pub(crate) struct Over;

/// A simulator that runs here.
pub(crate) struct Session {
    pub(crate) shared: Shared,
    pub(crate) poller: Arc<Poller>,
    /// The poller as it was taken over; `None`: not looked at yet.
    adopted: Option<Arc<Poller>>,
    epoch: u64,
    tenure: Arc<Tenure>,
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
}

/// What an outage makes us wait for.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) why: Option<String>,
    again: Option<Instant>,
    pauses: Pauses,
}

/// Runs the simulator until the lease is lost, the service stops, or nobody wants it any more.
pub(crate) async fn run(
    shared: Shared,
    id: SimulatorId,
    epoch: u64,
    tenure: Arc<Tenure>,
    lost: CancellationToken,
) {
    let session = async {
        let Some((mut session, served)) = open(&shared, id, epoch, tenure).await else { return };
        let _ = session.run(served).await;
    };
    tokio::select! {
        biased;
        () = lost.cancelled() => tracing::warn!(simulator = id.0, "the lease is lost"),
        () = session => {}
    }
}

/// Loads what was saved, however long the database is away; who asks meanwhile is told what it
/// waits for. `None`: it can't be run.
async fn open(
    shared: &Shared,
    id: SimulatorId,
    epoch: u64,
    tenure: Arc<Tenure>,
) -> Option<(Session, Option<Requests>)> {
    let mut waits = Waits::default();
    let mut served = serve(shared, id).await.ok();
    loop {
        let why = match load(shared, id, epoch, tenure.clone()).await {
            Ok(session) => return session.map(|session| (session, served)),
            Err(why) => why,
        };
        let pause = waits.note(shared, id, why.clone());
        tokio::select! {
            () = shared.shutdown.cancelled() => return None,
            () = refuse(&mut served, &why) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Requests to a simulator.
type Requests = Served<Ask>;

async fn serve(shared: &Shared, id: SimulatorId) -> Result<Requests, Refusal> {
    Served::start(&shared.wire, "simulator", &id.to_string(), &VERBS).await
}

/// Answers all that is asked with the reason why it can't be done.
async fn refuse(served: &mut Option<Requests>, why: &str) {
    while let Some(request) = next(served).await {
        let refusal = Refusal::new(503, format!("it can't be run yet: {why}"));
        request.answer::<State>(Err(refusal)).await;
    }
    *served = None;
}

/// The next request; never, where none can come.
async fn next(served: &mut Option<Requests>) -> Option<Request<Ask>> {
    match served {
        Some(served) => served.next().await,
        None => std::future::pending().await,
    }
}

async fn load(
    shared: &Shared,
    id: SimulatorId,
    epoch: u64,
    tenure: Arc<Tenure>,
) -> Result<Option<Session>, String> {
    let Some(poller) = shared.poller(id) else { return Ok(None) };
    let saved =
        store::simulator::load(&shared.database, id).await.map_err(|fault| fault.to_string())?;
    let now = shared.clock.now();
    let (saved, memory, simulated) = match saved {
        Some(saved) => {
            let memory = rmp_serde::from_slice(&saved.memory)
                .map_err(|error| format!("its memory can't be read: {error}"))?;
            let simulated = simulated(&saved.config, &poller).map_err(|why| why.to_string())?;
            (saved, memory, simulated)
        }
        None => fresh(shared, &poller, now)?,
    };
    let timing = Timing { simulated: memory.at, real: now, pace: saved.pace };
    Ok(Some(Session {
        shared: shared.clone(),
        poller,
        adopted: None,
        // A bucket of leases that was lost counts from one again; what was saved counts on.
        epoch: epoch.max(saved.epoch + u64::from(saved.epoch > epoch)),
        tenure,
        begun: false,
        simulated,
        memory,
        saved,
        last: 0,
        // What an earlier owner did last, is found out first.
        unsure: true,
        unsaved: true,
        timing,
        waits: Waits::default(),
        log: Log::default(),
        gap: None,
        made: Made::default(),
    }))
}

pub(crate) fn config_of(poller: &Poller) -> Result<SimulatorConfig, String> {
    let config: SimulatorConfig =
        serde_json::from_str(&poller.config).map_err(|error| error.to_string())?;
    config.check().map(|()| config)
}

fn simulated(config: &SimulatorConfig, poller: &Poller) -> Result<Simulated, Unusable> {
    Simulated::new(plan(config)?, &poller.entities)
}

fn fresh(
    shared: &Shared,
    poller: &Poller,
    now: Timestamp,
) -> Result<(Saved, Memory, Simulated), String> {
    let config = config_of(poller)?;
    let simulated = simulated(&config, poller).map_err(|why| why.to_string())?;
    let at = simulated.floor(beginning(&config, now));
    let memory = simulated.plan().begin(config.seed, at);
    let status = if config.autostart { Status::Running } else { Status::Stopped };
    let saved = Saved {
        id: poller.id,
        service_name: shared.instance.clone(),
        at,
        totalizers: memory.totalizers(),
        status,
        config,
        error: None,
        pace: Pace::REAL_TIME,
        run: 1,
        begun_at: at,
        changed: false,
        memory: Vec::new(),
        epoch: 0,
    };
    Ok((saved, memory, simulated))
}

/// Where a simulator begins that remembers nothing.
pub(crate) fn beginning(config: &SimulatorConfig, now: Timestamp) -> Timestamp {
    let history = i64::from(config.history_hours) * 3_600_000_000;
    config.begins.unwrap_or_else(|| now.plus_micros(-history)).min(now)
}

impl Waits {
    /// Notes a reason; how long to wait before the next try.
    fn note(&mut self, shared: &Shared, id: SimulatorId, why: String) -> Duration {
        if shared.holds.hold(&hold_name(id), &why, shared.clock.now()) {
            tracing::warn!(simulator = id.0, why, "holding");
        }
        let pause = self.pauses.next_pause();
        self.why = Some(why);
        self.again = Some(Instant::now() + pause);
        pause
    }

    fn moving(&mut self, shared: &Shared, id: SimulatorId) {
        if self.why.is_some() {
            *self = Self::default();
        }
        if shared.holds.release(&hold_name(id)) {
            tracing::info!(simulator = id.0, "flowing again");
        }
    }
}

impl Session {
    /// Serves requests and time, until it is over.
    async fn run(&mut self, mut served: Option<Requests>) -> Result<(), Over> {
        let id = self.saved.id;
        let mut directory = self.shared.directory.clone();
        let shutdown = self.shared.shutdown.clone();
        let took = format!("{} took it over", self.shared.instance);
        self.note(EventType::Startup, took, json!({ "epoch": self.epoch }));
        loop {
            if served.is_none() {
                served = self.serve().await;
            }
            self.adopt();
            let wait = self.wait();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                request = next(&mut served) => match request {
                    // Whoever has the lease now has answered it, or will.
                    Some(_) if !self.tenure.holds() => return Err(Over),
                    Some(request) => commands::answer(self, request).await?,
                    None => served = None,
                },
                changed = directory.changed() => {
                    if !changed || self.shared.poller(id).is_none() {
                        break;
                    }
                }
                () = sleep(wait) => self.advance().await?,
            }
        }
        self.note(EventType::Shutdown, format!("{} lets it go", self.shared.instance), json!({}));
        if !self.unsure {
            let _ = self.save().await;
        }
        Ok(())
    }

    async fn serve(&mut self) -> Option<Requests> {
        match serve(&self.shared, self.saved.id).await {
            Ok(served) => Some(served),
            Err(refusal) => {
                self.hold(refusal.text);
                None
            }
        }
    }

    /// How long nothing is to be done; `None`: until somebody asks.
    fn wait(&self) -> Option<Duration> {
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
    async fn advance(&mut self) -> Result<(), Over> {
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

    async fn make(&mut self, now: Timestamp) -> Result<(), Over> {
        let mut memory = self.memory.clone();
        // A new description waits for a boundary of its own.
        let until = if self.poller_differs() {
            memory.at.plus_micros(self.simulated.interval())
        } else {
            self.timing.due(now)
        };
        // A large building takes a while, and leases are renewed beside it.
        let produce = || self.simulated.produce(&mut memory, until.min(now));
        let Some(produced) = tokio::task::block_in_place(produce) else { return Ok(()) };
        let link = self.link(self.saved.run, memory.at, None);
        if !self.publish(&produced.batch, link).await {
            return Ok(());
        }
        failpoint::hit(failpoint::BEFORE_STATE_SAVE);
        let from = self.memory.at;
        self.memory = memory;
        self.count(from, now, produced.readings as u64, produced.intervals);
        self.save().await.map(drop)
    }

    fn link(&self, run: u64, to: Timestamp, begins: Option<Beginning>) -> Link {
        Link { run, epoch: self.epoch, to, begins, config: self.saved.config.fingerprint() }
    }

    /// Counts and logs what was stored.
    fn count(&mut self, from: Timestamp, now: Timestamp, readings: u64, intervals: u32) {
        self.made.readings += readings;
        self.made.messages += 1;
        self.shared.counters.readings.fetch_add(readings, Ordering::Relaxed);
        self.shared.counters.messages.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("haystack_simulator_readings_total").increment(readings);
        metrics::counter!("haystack_simulator_messages_total").increment(1);
        let (to, behind) = (self.memory.at, self.behind(now));
        let seconds = (self.timing.due(now).micros() - to.micros()) as f64 / 1e6;
        metrics::gauge!("haystack_simulator_behind_seconds", "simulator" => self.saved.id.to_string())
            .set(seconds.max(0.0));
        if intervals > 1 || behind || self.gap.is_some() {
            let gap = self.gap.get_or_insert(Gap { from, readings: 0 });
            gap.readings += readings;
        }
        let details = json!({ "from": from.to_string(), "to": to.to_string(),
            "readings": readings, "intervals": intervals });
        let each = self.gap.is_none() && self.timing.pace.speed <= 1.0;
        if each || self.log.progress_due(now) {
            let text = format!("{readings} readings up to {to}");
            self.note(EventType::Generation, text, details);
        }
        if !behind {
            self.close_gap();
        }
    }

    fn close_gap(&mut self) {
        let Some(gap) = self.gap.take() else { return };
        self.made.gaps += 1;
        metrics::counter!("haystack_simulator_gap_fills_total").increment(1);
        let (from, to) = (gap.from.to_string(), self.memory.at.to_string());
        let text = format!("filled {from} to {to}: {} readings", gap.readings);
        let details = json!({ "from": from, "to": to, "readings": gap.readings });
        self.note(EventType::GapFill, text, details);
    }

    /// Whether more than the interval that is due next is missing.
    pub(crate) fn behind(&self, now: Timestamp) -> bool {
        self.memory.at.plus_micros(self.simulated.interval()) <= self.timing.due(now)
    }

    /// Publishes the next message of the chain; whether it is stored.
    async fn publish(&mut self, batch: &Batch, link: Link) -> bool {
        let subject = subject(&self.poller.org, self.saved.id);
        let mut message = Outgoing::expecting(subject, self.last, envelope::encode(batch));
        for (name, value) in link.headers() {
            message = message.header(name, &value);
        }
        let begun = Instant::now();
        match publish(&self.shared.wire, message).await {
            Ok(stored) => {
                let took = begun.elapsed().as_secs_f64();
                metrics::histogram!("haystack_simulator_publish_seconds").record(took);
                self.last = stored.sequence();
                self.waits.moving(&self.shared, self.saved.id);
                true
            }
            Err(PublishFault::Conflict) => {
                self.unsure = true;
                false
            }
            Err(fault) => {
                self.unsure = true;
                self.hold(fault.to_string());
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
                self.hold(fault.to_string());
                return Ok(());
            }
        };
        let link = found.as_ref().and_then(|found| Link::read(&found.headers));
        let later = link.map_or(0, |link| link.epoch);
        if later > self.epoch && self.begun {
            return Err(Over);
        }
        // At the beginning it is the bucket of leases that was lost.
        self.epoch = self.epoch.max(later + u64::from(later > self.epoch));
        let config = self.saved.config.fingerprint();
        let step = match (&found, link) {
            (Some(_), None) => Step::Foreign,
            _ => reconcile(self.saved.run, self.memory.at, config, link),
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
        self.follow(step, barrier.run);
        self.save().await.map(drop)
    }

    fn follow(&mut self, step: Step, run: u64) {
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

    fn foreign(&mut self, run: u64) {
        if self.saved.status == Status::Error {
            return;
        }
        self.saved.status = Status::Error;
        let why = format!(
            "the stream holds readings of run {run} of this simulator, the state database knows run \
             {}: one of them was put back to an older state. `haystack simulator reset` begins anew",
            self.saved.run
        );
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

    /// Whether the platform wants something else simulated than what is.
    fn poller_differs(&self) -> bool {
        self.shared.poller(self.saved.id).is_some_and(|poller| {
            config_of(&poller).is_ok_and(|config| config != self.saved.config)
        })
    }

    /// Takes over what the platform wants simulated, at a boundary that both descriptions have.
    fn adopt(&mut self) {
        let Some(poller) = self.shared.poller(self.saved.id) else { return };
        // What an earlier description made, must be known to be stored or not.
        let known = self.adopted.as_ref().is_some_and(|known| Arc::ptr_eq(&poller, known));
        if known || self.unsure || self.unsaved {
            return;
        }
        let adopted = config_of(&poller).and_then(|config| {
            let simulated = simulated(&config, &poller).map_err(|why| why.to_string())?;
            Ok((config, simulated))
        });
        match adopted {
            Ok((config, simulated)) => {
                if simulated.floor(self.memory.at) != self.memory.at {
                    return;
                }
                if config != self.saved.config {
                    self.memory = simulated.plan().carry_over(&self.memory);
                    self.memory.seed = config.seed;
                    let text = format!("another description from {} on", self.memory.at);
                    self.note(EventType::Config, text, json!({}));
                    self.saved.config = config;
                    self.saved.changed = true;
                }
                self.simulated = simulated;
                if self.saved.status != Status::Error {
                    self.saved.error = None;
                }
                self.unsaved = true;
            }
            Err(why) => {
                let why = format!("its new configuration can't be run, the old one goes on: {why}");
                self.note(EventType::Error, why.clone(), json!({}));
                self.saved.error = Some(why);
                self.unsaved = true;
            }
        }
        self.adopted = Some(poller.clone());
        self.poller = poller;
    }

    /// Saves the state and the log; whether the database has it.
    pub(crate) async fn save(&mut self) -> Result<bool, Over> {
        self.unsaved = true;
        let Ok(memory) = rmp_serde::to_vec(&self.memory) else {
            self.hold("its memory can't be written".to_owned());
            return Ok(false);
        };
        let saved = Saved {
            service_name: self.shared.instance.clone(),
            at: self.memory.at,
            totalizers: self.memory.totalizers(),
            status: self.status(),
            memory,
            ..self.saved.clone()
        };
        let done =
            store::simulator::save(&self.shared.database, self.epoch, &saved, self.log.waiting());
        match done.await {
            Ok(Saving::Done) => {
                self.unsaved = false;
                self.log.saved(&self.shared, &self.poller);
                self.waits.moving(&self.shared, self.saved.id);
                Ok(true)
            }
            Ok(Saving::Fenced) => Err(Over),
            Err(fault) => {
                self.hold(format!("state database: {fault}"));
                Ok(false)
            }
        }
    }

    /// What it does now.
    pub(crate) fn status(&self) -> Status {
        match self.saved.status {
            settled @ (Status::Stopped | Status::Error) => settled,
            _ if self.waits.why.is_some() => Status::Waiting,
            _ if self.behind(self.shared.clock.now()) => Status::Filling,
            _ => Status::Running,
        }
    }

    /// Whether what is stored is known.
    pub(crate) fn settled(&self) -> bool {
        !self.unsure
    }

    pub(crate) fn hold(&mut self, why: String) {
        self.waits.note(&self.shared, self.saved.id, why);
    }

    pub(crate) fn note(&mut self, what: EventType, text: String, details: serde_json::Value) {
        self.log.note(self.saved.id, self.shared.clock.now(), what, text, details);
    }
}

/// `telemetry.{org}.simulator-{id}`: nobody else writes it.
fn subject(org: &OrgKey, id: SimulatorId) -> String {
    let (org, source) = (org.to_string(), format!("simulator-{id}"));
    Subject::Telemetry { org, source }.to_string()
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
