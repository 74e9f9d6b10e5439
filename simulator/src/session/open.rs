//! How a session begins: with what was saved, however long the database is away.

use super::{Made, Requests, Session, VERBS, Waits, next};
use crate::{
    Shared,
    activity::Log,
    simulated::{Simulated, Unusable, plan},
    tenure::Tenure,
    timing::Timing,
};
use building::Memory;
use domain::{
    SimulatorId, Timestamp,
    model::Poller,
    simulator::{Pace, SimulatorConfig, State, Status},
};
use nats::micro::{Refusal, Served};
use std::sync::Arc;
use store::simulator::Saved;

/// Loads what was saved, however long the database is away; who asks meanwhile is told what it
/// waits for. `None`: it can't be run.
pub(crate) async fn open(
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

pub(super) async fn serve(shared: &Shared, id: SimulatorId) -> Result<Requests, Refusal> {
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

pub(super) fn config_of(poller: &Poller) -> Result<SimulatorConfig, String> {
    let config: SimulatorConfig =
        serde_json::from_str(&poller.config).map_err(|error| error.to_string())?;
    config.check().map(|()| config)
}

pub(super) fn simulated(config: &SimulatorConfig, poller: &Poller) -> Result<Simulated, Unusable> {
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
