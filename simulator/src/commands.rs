//! What a simulator is told, and what it answers.

use crate::{
    Shared,
    chain::Beginning,
    session::{Over, Session, beginning},
    simulated::plan,
    timing::Timing,
};
use domain::{
    Batch, Deletion, Revision, Timestamp,
    model::Poller,
    simulator::{Ask, Command, EventType, Pace, Scope, SimulatorConfig, State, Status},
    tags::TagValue,
};
use nats::{
    micro::{Refusal, Request},
    registry::{self, Wanted},
};
use serde_json::json;
use std::collections::BTreeMap;

/// Why something was not done.
enum Denied {
    /// The session is over: whoever has the lease now will answer the next request.
    Over,
    /// The asker is told.
    No(Refusal),
}

impl From<Over> for Denied {
    fn from(_: Over) -> Self {
        Self::Over
    }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::No(refusal)
    }
}

/// Does what a request asks, and answers it.
pub(crate) async fn answer(session: &mut Session, request: Request<Ask>) -> Result<(), Over> {
    let done = match obey(session, &request.ask).await {
        Ok(()) => Ok(state(session)),
        Err(Denied::No(refusal)) => Err(refusal),
        Err(Denied::Over) => return Err(Over),
    };
    request.answer(done).await;
    Ok(())
}

async fn obey(session: &mut Session, ask: &Ask) -> Result<(), Denied> {
    let command = match ask {
        Ask::State | Ask::Health => return Ok(()),
        Ask::Start { .. } => Command::Start,
        Ask::Stop => Command::Stop,
        Ask::Reset { .. } => Command::Reset,
        Ask::Configure { .. } => Command::Configure,
    };
    // An order is only taken where it is known what the last message led to. Stopping needs no
    // message: whoever waits for the stream can be told to stop.
    if !session.settled() && command != Command::Stop {
        session.settle().await?;
        if !session.settled() {
            return Err(away(session).into());
        }
    }
    let allowed = session.status().allows(command);
    allowed.map_err(|forbidden| Refusal::new(409, forbidden.to_string()))?;
    match ask {
        Ask::State | Ask::Health => Ok(()),
        Ask::Start { pace } => start(session, *pace).await,
        Ask::Stop => stop(session).await,
        Ask::Reset { scope, from, confirm } => reset(session, *scope, *from, *confirm).await,
        Ask::Configure { config } => Ok(configure(session, config).await?),
    }
}

fn away(session: &Session) -> Refusal {
    let why = session.waits.why.as_deref().unwrap_or("it was just taken over");
    Refusal::new(503, format!("it waits: {why}; try again"))
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(422, text)
}

/// Keeps a change where the database takes it, else undoes it.
async fn keep(session: &mut Session, before: (Status, Timing, Pace)) -> Result<(), Denied> {
    if session.save().await? {
        return Ok(());
    }
    (session.saved.status, session.timing, session.saved.pace) = before;
    session.log.take_back();
    Err(away(session).into())
}

fn now_is(session: &Session) -> (Status, Timing, Pace) {
    (session.saved.status, session.timing, session.saved.pace)
}

async fn start(session: &mut Session, pace: Option<Pace>) -> Result<(), Denied> {
    let at = session.memory.at;
    // An end that was reached is no end any more.
    let mut same = session.saved.pace;
    same.until = same.until.filter(|until| *until > at);
    let pace = pace.unwrap_or(same);
    pace.check().map_err(invalid)?;
    if pace.until.is_some_and(|until| until <= at) {
        return Err(invalid(format!("until: later than {at} is expected, where it stands")).into());
    }
    if session.saved.status != Status::Stopped {
        if pace == session.saved.pace {
            return Ok(());
        }
        return Err(Refusal::new(409, "it runs at another pace; stop it first").into());
    }
    let before = now_is(session);
    session.saved.pace = pace;
    session.saved.status = Status::Running;
    let (simulated, real) = (session.memory.at, session.shared.clock.now());
    session.timing = Timing { simulated, real, pace };
    session.note(EventType::Start, format!("goes on from {simulated}"), json!({ "pace": pace }));
    keep(session, before).await
}

async fn stop(session: &mut Session) -> Result<(), Denied> {
    // One that failed makes nothing, and stays what it is: only `reset` leads out of that.
    if matches!(session.saved.status, Status::Stopped | Status::Error) {
        return Ok(());
    }
    let before = now_is(session);
    session.saved.status = Status::Stopped;
    let at = session.memory.at;
    session.note(EventType::Stop, format!("stopped at {at}"), json!({}));
    keep(session, before).await
}

async fn reset(
    session: &mut Session,
    scope: Scope,
    from: Option<Timestamp>,
    confirm: bool,
) -> Result<(), Denied> {
    if !confirm {
        let text = "what is thrown away is gone: say so with confirm (--confirm)";
        return Err(invalid(text).into());
    }
    let at = session.memory.at;
    let (how, to, batch) = match (scope, from) {
        (Scope::State, None) => (Beginning::Fresh, at, Batch::default()),
        (Scope::State, Some(_)) => return Err(invalid("from: only with scope data").into()),
        (Scope::Data, None) => {
            let now = session.shared.clock.now();
            let to = session.simulated.floor(beginning(&session.saved.config, now));
            (Beginning::Fresh, to, tombstone(session, Timestamp::MIN))
        }
        (Scope::Data, Some(_)) if session.saved.status == Status::Error => {
            let text = "its past is not known: reset all of it (without from), or only its state";
            return Err(Refusal::new(409, text).into());
        }
        (Scope::Data, Some(from)) if from > at => {
            let text = format!("from: at most {at} is expected, where it stopped");
            return Err(invalid(text).into());
        }
        (Scope::Data, Some(from)) if from < session.saved.begun_at => {
            let begun = session.saved.begun_at;
            let text = format!("from: at least {begun} is expected, where it began; left out, all");
            return Err(invalid(text + " of its readings are deleted").into());
        }
        (Scope::Data, Some(_)) if session.saved.changed => {
            let text = "its description has changed since it began, so its past can't be worked \
                        out again: reset all of it (without from), or only its state";
            return Err(Refusal::new(409, text).into());
        }
        (Scope::Data, Some(from)) => {
            let to = session.simulated.floor(from);
            // The boundary itself was reported by what stays.
            (Beginning::Rewound, to, tombstone(session, to.plus_micros(1)))
        }
    };
    if session.begin_anew(&batch, how, to).await? {
        return Ok(());
    }
    Err(away(session).into())
}

/// Deletes what the simulator ever reported, from a moment on.
fn tombstone(session: &Session, from: Timestamp) -> Batch {
    let entities = session.poller.entities.values().copied().collect();
    let to = session.shared.clock.now().max(session.memory.at).plus_micros(1);
    let deletion = Deletion { origin: None, revision: Revision(0), entities, from, to };
    Batch { groups: Vec::new(), deletions: vec![deletion], ..Batch::default() }
}

async fn configure(session: &mut Session, config: &SimulatorConfig) -> Result<(), Refusal> {
    give_config(&session.shared, &session.poller, config).await
}

/// Gives a simulator another configuration; whoever runs it adopts it.
pub(crate) async fn give_config(
    shared: &Shared,
    poller: &Poller,
    config: &SimulatorConfig,
) -> Result<(), Refusal> {
    config.check().map_err(invalid)?;
    let wanted = wanted(&plan(config).map_err(|why| invalid(why.to_string()))?);
    let text = serde_json::to_string(config).map_err(|error| invalid(error.to_string()))?;
    let poller = registry::configure_poller(&shared.wire, poller, text, &wanted);
    poller.await.map_err(|fault| Refusal::new(503, fault.to_string()))?;
    Ok(())
}

/// The entities of a building, as the registry wants them.
pub fn wanted(plan: &building::Plan) -> Vec<Wanted> {
    let entities = plan.entities().iter();
    let mut wanted: Vec<Wanted> = entities
        .map(|entity| Wanted {
            key: entity.key.clone(),
            name: entity.name.clone(),
            tags: entity.tags.clone(),
        })
        .collect();
    for point in plan.points() {
        let tags = &mut wanted[point.entity].tags;
        let text = |text: &str| TagValue::Str(text.to_owned());
        tags.insert("kind".to_owned(), text(point.kind.haystack()));
        if let Some(unit) = &point.unit {
            tags.insert("unit".to_owned(), text(unit));
        }
        // It has a history and a current value (Project Haystack, points).
        for marker in ["his", "cur"] {
            tags.insert(marker.to_owned(), TagValue::Marker);
        }
    }
    wanted
}

/// What it says of itself.
fn state(session: &Session) -> State {
    let saved = &session.saved;
    let status = session.status();
    let running = !matches!(status, Status::Stopped | Status::Error);
    let made = &session.made;
    State {
        simulator_id: saved.id,
        org: session.poller.org.clone(),
        name: session.poller.name.clone(),
        service_name: session.shared.instance.clone(),
        status,
        last_run_timestamp: Some(session.memory.at),
        due: running.then(|| session.timing.due(session.shared.clock.now())),
        pace: saved.pace,
        totalizers: session.memory.totalizers(),
        points: session.simulated.plan().points().len(),
        interval_minutes: session.simulated.plan().interval_minutes(),
        config: saved.config.clone(),
        error_message: session.waits.why.clone().or_else(|| saved.error.clone()),
        counters: BTreeMap::from([
            ("readings".to_owned(), made.readings),
            ("messages".to_owned(), made.messages),
            ("gap_fills".to_owned(), made.gaps),
        ]),
    }
}
