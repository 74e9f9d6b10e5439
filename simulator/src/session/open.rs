//! How a session begins: with what was saved, however long the database is away.

use super::{DATABASE_AWAY, Made, Requests, Session, VERBS, Waits, next};
use crate::{
    Shared, activity::Log, commands, simulated::Simulated, tenure::Tenure, timing::Timing,
};
use building::{Memory, simulate};
use domain::{
    SimulatorId, Timestamp,
    model::Poller,
    simulator::{Ask, Pace, SimulatorConfig, State, Status},
};
use nats::micro::{Refusal, Request, Served};
use std::sync::Arc;
use store::simulator::Saved;

/// Loads what was saved, however long the database is away; who asks meanwhile is told what it
/// waits for. `None`: it can't be run. What was asked last is still to be answered.
pub(crate) async fn open(
    shared: &Shared,
    id: SimulatorId,
    epoch: u64,
    tenure: Arc<Tenure>,
) -> Option<Opened> {
    let mut waits = Waits::default();
    let mut served = serve(shared, id).await.ok();
    let mut order = None;
    loop {
        let lease = (epoch, tenure.clone());
        let why = match load(shared, id, lease, order.is_some()).await {
            Ok(session) => return session.map(|session| Opened { session, served, order }),
            Err(why) => why,
        };
        let pause = match &why {
            Unloaded::Away(cause) => waits.note(shared, id, DATABASE_AWAY, cause),
            Unloaded::Unusable(cause) => waits.note(shared, id, "it can't be run", cause),
        };
        tokio::select! {
            () = shared.shutdown.cancelled() => return None,
            reset = refuse(shared, id, &mut served, &why), if order.is_none() => order = reset,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// A session that begins.
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) served: Option<Requests>,
    /// What was asked and not answered yet.
    pub(crate) order: Option<Request<Ask>>,
}

/// Why a session can't begin.
enum Unloaded {
    /// The database does not answer.
    Away(String),
    /// What was saved can't be run; what `MODEL` says now could be.
    Unusable(String),
}

impl Unloaded {
    /// What an asker is told.
    fn refusal(&self) -> Refusal {
        match self {
            Self::Away(_) => Refusal::new(503, format!("it can't be run yet: {DATABASE_AWAY}")),
            Self::Unusable(why) => {
                let remedy = "`configure` gives it what it lacks, `reset` begins anew";
                Refusal::new(409, format!("it can't be run yet: {why}; {remedy}"))
            }
        }
    }
}

pub(super) async fn serve(shared: &Shared, id: SimulatorId) -> Result<Requests, Refusal> {
    Served::start(&shared.wire, "simulator", &id.to_string(), &VERBS).await
}

/// Answers what is asked with the reason why it can't be done, until a state that can't be run is
/// told to begin anew: that request.
async fn refuse(
    shared: &Shared,
    id: SimulatorId,
    served: &mut Option<Requests>,
    why: &Unloaded,
) -> Option<Request<Ask>> {
    while let Some(request) = next(served).await {
        match (&request.ask, why, shared.poller(id)) {
            (Ask::Reset { confirm: true, from: None, .. }, Unloaded::Unusable(_), _) => {
                return Some(request);
            }
            (Ask::Configure { config }, Unloaded::Unusable(_), Some(poller)) => {
                let author = request.author.as_ref();
                let done = commands::give_config(shared, &poller, config, author).await;
                let text = "it has its new configuration; whether that helps is seen in a moment";
                let told = done.err().unwrap_or_else(|| Refusal::new(503, text));
                request.answer::<State>(Err(told)).await;
            }
            _ => request.answer::<State>(Err(why.refusal())).await,
        }
    }
    *served = None;
    None
}

/// `rescue`: what was saved can't be run, and is to be begun anew.
async fn load(
    shared: &Shared,
    id: SimulatorId,
    (epoch, tenure): (u64, Arc<Tenure>),
    rescue: bool,
) -> Result<Option<Session>, Unloaded> {
    let Some(poller) = shared.poller(id) else { return Ok(None) };
    let saved = store::simulator::load(&shared.database, id).await;
    let saved = saved.map_err(|fault| Unloaded::Away(fault.to_string()))?;
    let now = shared.clock.now();
    let (saved, memory, simulated) = match saved {
        Some(saved) if rescue => rescued(saved, &poller)?,
        Some(saved) => {
            let memory = rmp_serde::from_slice(&saved.memory).map_err(|error| {
                Unloaded::Unusable(format!("its memory can't be read: {error}"))
            })?;
            let simulated = simulated(&saved.config, &poller).map_err(Unloaded::Unusable)?;
            (saved, memory, simulated)
        }
        None => fresh(shared, &poller, now).map_err(Unloaded::Unusable)?,
    };
    // Who was frozen takes an epoch that is later than its own for a bucket that was lost.
    if !tenure.holds() {
        return Ok(None);
    }
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

/// A state that can't be run, as one that can be begun anew: with what `MODEL` says now, and a
/// memory that counts for nothing.
fn rescued(saved: Saved, poller: &Poller) -> Result<(Saved, Memory, Simulated), Unloaded> {
    let config = config_of(poller).map_err(Unloaded::Unusable)?;
    let simulated = simulated(&config, poller).map_err(Unloaded::Unusable)?;
    let memory = simulated.plan().begin(config.seed, simulated.floor(saved.at));
    let error = Some("what it remembered could not be used".to_owned());
    Ok((Saved { config, status: Status::Error, error, ..saved }, memory, simulated))
}

pub(super) fn config_of(poller: &Poller) -> Result<SimulatorConfig, String> {
    serde_json::from_str(&poller.config).map_err(|error| error.to_string())
}

pub(super) fn simulated(config: &SimulatorConfig, poller: &Poller) -> Result<Simulated, String> {
    let plan = simulate::plan(config).map_err(|why| why.to_string())?;
    Simulated::new(plan, &poller.entities).map_err(|why| why.to_string())
}

fn fresh(
    shared: &Shared,
    poller: &Poller,
    now: Timestamp,
) -> Result<(Saved, Memory, Simulated), String> {
    let config = config_of(poller)?;
    let simulated = simulated(&config, poller)?;
    let at = simulated.floor(beginning(&config, now));
    let memory = simulated.plan().begin(config.seed, at);
    let status = if config.autostart { Status::Running } else { Status::Stopped };
    let lineage = config.fingerprint();
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
        lineage,
        memory: Vec::new(),
        epoch: 0,
        created_at: now,
        updated_at: now,
    };
    Ok((saved, memory, simulated))
}

/// Where a simulator begins that remembers nothing.
pub(crate) fn beginning(config: &SimulatorConfig, now: Timestamp) -> Timestamp {
    let history = i64::from(config.history_hours) * 3_600_000_000;
    config.begins.unwrap_or_else(|| now.plus_micros(-history)).min(now)
}
