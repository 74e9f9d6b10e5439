//! What a simulator is told, and what it answers.

use crate::{
    Shared,
    chain::Beginning,
    session::{Over, Session, beginning},
    timing::Timing,
};
use building::simulate::{plan, wanted};
use domain::{
    Batch, Deletion, Revision, Timestamp,
    model::Poller,
    simulator::{Ask, Command, EventType, Pace, Scope, SimulatorConfig, State, Status, check_note},
};
use nats::{
    Author, Wire,
    micro::{Refusal, Request},
    model::ModelFault,
    registry::{self, RegistryFault},
};
use serde_json::{Value, json};
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
    let done = match obey(session, &request.ask, request.author.as_ref()).await {
        Ok(()) => Ok(state(session)),
        Err(Denied::No(refusal)) => Err(refusal),
        Err(Denied::Over) => return Err(Over),
    };
    request.answer(done).await;
    Ok(())
}

async fn obey(session: &mut Session, ask: &Ask, author: Option<&Author>) -> Result<(), Denied> {
    let command = match ask {
        Ask::State | Ask::Health => return Ok(()),
        Ask::Note { event_type, message, details } => {
            return note(session, *event_type, message, details).await;
        }
        Ask::Start { .. } => Command::Start,
        Ask::Stop => Command::Stop,
        Ask::Reset { .. } => Command::Reset,
        Ask::Configure { .. } => Command::Configure,
    };
    if let Some(Author { who, request_id }) = author {
        let (simulator, order) = (session.saved.id.0, command.as_str());
        tracing::info!(simulator, order, by = who, request_id, "told");
    }
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
        Ask::State | Ask::Health | Ask::Note { .. } => Ok(()),
        Ask::Start { pace } => start(session, *pace).await,
        Ask::Stop => stop(session).await,
        Ask::Reset { scope, from, confirm } => reset(session, *scope, *from, *confirm).await,
        Ask::Configure { config } => Ok(configure(session, config, author).await?),
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

/// Adds a line of the asker's to the log. It changes nothing else, so every status allows it.
async fn note(
    session: &mut Session,
    event_type: EventType,
    message: &str,
    details: &Value,
) -> Result<(), Denied> {
    check_note(message, details).map_err(invalid)?;
    session.note(event_type, message.to_owned(), details.clone());
    if session.save().await? {
        return Ok(());
    }
    session.log.take_back();
    Err(away(session).into())
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

async fn configure(
    session: &mut Session,
    config: &SimulatorConfig,
    author: Option<&Author>,
) -> Result<(), Refusal> {
    give_config(&session.shared, &session.poller, config, author).await
}

/// Gives a simulator another configuration, on the asker's behalf; whoever runs it adopts it.
pub(crate) async fn give_config(
    shared: &Shared,
    poller: &Poller,
    config: &SimulatorConfig,
    author: Option<&Author>,
) -> Result<(), Refusal> {
    let wanted = wanted(&plan(config).map_err(|why| invalid(why.to_string()))?);
    let text = serde_json::to_string(config).map_err(|error| invalid(error.to_string()))?;
    let wire = Wire { author: author.cloned().map(Into::into), ..shared.wire.clone() };
    let done = registry::configure_poller(&wire, poller, text, &wanted).await;
    done.map(drop).map_err(|fault| refusal(&fault))
}

/// What the asker is told of a configuration that was not written; what the server said stays here.
fn refusal(fault: &RegistryFault) -> Refusal {
    if let RegistryFault::Model(ModelFault::Conflict(_)) = fault {
        return Refusal::new(
            409,
            "somebody else changes it at the same time; look at it and repeat",
        );
    }
    if fault.is_outage() {
        tracing::warn!(%fault, "a configuration could not be written");
        return Refusal::new(503, "the model can't be written now; try again");
    }
    invalid(fault.to_string())
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
            ("publishes".to_owned(), made.publishes),
            ("publish_micros".to_owned(), made.publish_micros),
        ]),
        created_at: Some(saved.created_at),
        updated_at: Some(saved.updated_at),
    }
}
