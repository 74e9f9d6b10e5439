//! `haystack simulator`: the service, and what people tell it.

mod activity;
mod describe;
mod load;
mod progress;

use crate::{Globals, connect, roles, table::Table};
use anyhow::{Context, Result};
use building::simulate;
use clap::{Args, Subcommand, ValueEnum};
use domain::{
    OrgKey, SimulatorId, Timestamp,
    model::{ACTIVE, Poller, REMOVED, SIMULATOR},
    simulator::{Ask, Pace, Scope, SimulatorConfig, State},
};
use nats::{
    Wire,
    micro::{self, Refusal},
    registry,
};
use std::{path::PathBuf, process::ExitCode, time::Duration};

pub(crate) use describe::demonstration;

/// How long a simulator has to answer: one that waits for a server tries it first.
const ANSWER: Duration = Duration::from_secs(10);
/// The same where all are asked at once.
const LISTED: Duration = Duration::from_secs(2);
/// How long a simulator that was just made has until a service runs it.
const FOUND: Duration = Duration::from_secs(15);
/// Longest name of a simulator, in characters.
const MAX_NAME: usize = 100;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SimulatorArgs {
    #[command(subcommand)]
    command: Option<SimulatorCommand>,
}

#[derive(Subcommand)]
pub(crate) enum SimulatorCommand {
    /// Check a building's description and say what it makes; changes nothing
    Check {
        /// YAML file [default: the building that `up` starts with]
        file: Option<PathBuf>,
    },
    /// Make a simulator; it runs as soon as a service finds it
    Create(CreateArgs),
    /// Make load: a building with many points, at a rate, for a while
    Load(load::LoadArgs),
    /// List simulators and what they do
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Go on (repeating it changes nothing)
    Start {
        /// Its number
        id: SimulatorId,
        /// Simulated seconds a second; it never runs ahead of the clock [default: as before]
        #[arg(long)]
        speed: Option<f64>,
        /// Stop by itself at this moment (RFC 3339)
        #[arg(long, value_parser = moment)]
        until: Option<Timestamp>,
    },
    /// Make nothing more; `start` fills the gap (repeating it changes nothing)
    Stop {
        /// Its number
        id: SimulatorId,
    },
    /// Begin anew; only while it is stopped
    Reset {
        /// Its number
        id: SimulatorId,
        /// state: forget what the building remembers, meters too; data: delete its readings too
        #[arg(long, value_enum)]
        scope: ScopeArg,
        /// With scope data: what is not later than this moment stays (RFC 3339)
        #[arg(long, value_parser = moment)]
        from: Option<Timestamp>,
        /// Yes, what is thrown away is gone
        #[arg(long)]
        confirm: bool,
    },
    /// Take it out of service for good; its entities and readings stay (repeating it changes nothing)
    Remove {
        /// Its number
        id: SimulatorId,
    },
    /// Simulate another building from the next interval on
    Configure {
        /// Its number
        id: SimulatorId,
        /// YAML file
        file: PathBuf,
        /// Where its randomness begins [default: as before]
        #[arg(long)]
        seed: Option<u64>,
    },
    /// What it does, as JSON
    State {
        /// Its number
        id: SimulatorId,
    },
    /// Whether it is well: exits 1 where it waits or failed
    Health {
        /// Its number
        id: SimulatorId,
    },
    /// What happened to it
    Activity {
        /// Its number
        id: SimulatorId,
        /// Lines
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Go on with what happens, until Ctrl-C
        #[arg(long)]
        follow: bool,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
pub(crate) struct CreateArgs {
    /// YAML file [default: the building that `up` starts with]
    file: Option<PathBuf>,
    /// Its name for people [default: the site's]
    #[arg(long)]
    name: Option<String>,
    /// Org
    #[arg(long, default_value = "demo")]
    org: OrgKey,
    /// Where its randomness begins [default: the description's]
    #[arg(long)]
    seed: Option<u64>,
    /// Hours before now that it fills first
    #[arg(long, default_value_t = 24)]
    history_hours: u32,
    /// Make these readings and stop, e.g. 2026-01-01T00:00:00Z..2026-02-01T00:00:00Z
    #[arg(long, value_name = "FROM..TO", value_parser = range, conflicts_with = "history_hours")]
    backfill: Option<(Timestamp, Timestamp)>,
    /// Wait for `start`
    #[arg(long)]
    stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    State,
    Data,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| "a moment with an offset is expected, e.g. 2026-01-01T00:00:00Z".to_owned())
}

fn range(text: &str) -> Result<(Timestamp, Timestamp), String> {
    let (from, to) = text.split_once("..").ok_or("FROM..TO is expected")?;
    let (from, to) = (moment(from)?, moment(to)?);
    if from < to { Ok((from, to)) } else { Err("FROM must be before TO".to_owned()) }
}

pub(crate) async fn run(args: SimulatorArgs, globals: &Globals) -> Result<ExitCode> {
    use SimulatorCommand as C;
    let command = match args.command {
        None => return roles::run(roles::Role::Simulator, globals).await,
        Some(C::Check { file }) => return describe::check(file.as_deref()),
        Some(command) => command,
    };
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let done = match command {
        C::Check { .. } => return Ok(ExitCode::SUCCESS),
        C::Create(args) => return create(&wire, args).await,
        C::Remove { id } => return remove(&wire, id).await.map(|()| ExitCode::SUCCESS),
        C::Load(args) => return load::run(&wire, &args).await,
        C::List { json } => return list(&wire, json).await,
        C::Start { id, speed, until } => start(&wire, id, speed, until).await?,
        C::Stop { id } => ask(&wire, id, "stop", &Ask::Stop).await?,
        C::Reset { id, scope, from, confirm } => {
            let scope = match scope {
                ScopeArg::State => Scope::State,
                ScopeArg::Data => Scope::Data,
            };
            ask(&wire, id, "reset", &Ask::Reset { scope, from, confirm }).await?
        }
        C::Configure { id, file, seed } => {
            let before = configuration(&wire, id).await?;
            let building = describe::read(&file)?;
            let seed = seed.unwrap_or(before.seed);
            let config = SimulatorConfig { building, seed, ..before };
            ask(&wire, id, "configure", &Ask::Configure { config }).await?
        }
        C::State { id } => {
            let state = ask(&wire, id, "state", &Ask::State).await?;
            println!("{}", serde_json::to_string_pretty(&state)?);
            return Ok(ExitCode::SUCCESS);
        }
        C::Health { id } => return Ok(health(&ask(&wire, id, "health", &Ask::Health).await?)),
        C::Activity { id, limit, follow, json } => {
            let known = nats::model::load(&wire).await?;
            anyhow::ensure!(
                known.poller(id).is_some(),
                "there is no simulator {id}; `haystack simulator list` names them"
            );
            return activity::show(&config, id, limit, follow, json).await;
        }
    };
    println!("{}", describe::line(&done));
    Ok(ExitCode::SUCCESS)
}

async fn ask(wire: &Wire, id: SimulatorId, verb: &str, ask: &Ask) -> Result<State> {
    let subject = format!("simulator.{id}.{verb}");
    // A service that was frozen swallows what it is asked until the server drops it, and another
    // answers: what can be repeated is asked again.
    let repeatable = !matches!(ask, Ask::Reset { .. } | Ask::Configure { .. });
    let (wait, tries) = if repeatable { (ANSWER / 4, 4) } else { (ANSWER, 1) };
    let mut answer = micro::ask(wire, subject.clone(), ask, wait).await;
    for _ in 1..tries {
        if answer.as_ref().is_err_and(|refusal| refusal.text == micro::NO_ANSWER) {
            answer = micro::ask(wire, subject.clone(), ask, wait).await;
        }
    }
    match answer {
        Ok(state) => Ok(state),
        Err(refusal) => {
            let known = nats::model::load(wire).await.ok();
            anyhow::ensure!(
                known.is_none_or(|known| known.poller(id).is_some()),
                "there is no simulator {id}; `haystack simulator list` names them"
            );
            anyhow::bail!("simulator {id}: {refusal}")
        }
    }
}

async fn start(
    wire: &Wire,
    id: SimulatorId,
    speed: Option<f64>,
    until: Option<Timestamp>,
) -> Result<State> {
    let pace = match (speed, until) {
        (None, None) => None,
        (speed, until) => Some(Pace { speed: speed.unwrap_or(1.0), until }),
    };
    ask(wire, id, "start", &Ask::Start { pace }).await
}

async fn create(wire: &Wire, args: CreateArgs) -> Result<ExitCode> {
    let now = connect::now_here();
    anyhow::ensure!(
        args.backfill.is_none_or(|(_, to)| to <= now),
        "--backfill: readings of the future can't be made; it may end at {now} at the latest"
    );
    let building = describe::read_or_default(args.file.as_deref())?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => building::Plan::read(&building)?.seed(),
    };
    let config = SimulatorConfig {
        building,
        seed,
        history_hours: if args.backfill.is_some() { 0 } else { args.history_hours },
        begins: args.backfill.map(|(from, _)| from),
        autostart: !args.stopped && args.backfill.is_none(),
        database_config: None,
    };
    let plan = simulate::plan(&config)?;
    let name = args.name.unwrap_or_else(|| simulate::site(&plan));
    free_name(wire, &args.org, &name).await?;
    let (text, wanted) = (serde_json::to_string(&config)?, simulate::wanted(&plan));
    let poller = registry::add_poller(wire, &args.org, SIMULATOR, name, text, &wanted).await?;
    println!("made simulator {}: {}, {} points", poller.id, poller.name, plan.points().len());
    let Some((_, to)) = args.backfill.filter(|_| !args.stopped) else {
        return Ok(ExitCode::SUCCESS);
    };
    found(wire, poller.id).await?;
    start(wire, poller.id, None, Some(to)).await?;
    progress::follow(wire, poller.id).await
}

/// What the platform wants a simulator to be.
async fn configuration(wire: &Wire, id: SimulatorId) -> Result<SimulatorConfig> {
    let known = nats::model::load(wire).await?;
    let poller = known.poller(id).with_context(|| {
        format!("there is no simulator {id}; `haystack simulator list` names them")
    })?;
    serde_json::from_str(&poller.config)
        .with_context(|| format!("simulator {id} has a configuration that can't be read"))
}

/// A name that a person can tell from the others.
async fn free_name(wire: &Wire, org: &OrgKey, name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME).contains(&name.trim().chars().count());
    anyhow::ensure!(
        fits && !name.chars().any(char::is_control),
        "--name: 1 to {MAX_NAME} characters are expected, in one line"
    );
    let mut pollers = nats::model::load(wire).await?.pollers().into_iter();
    let same = pollers.find(|it| it.org == *org && it.name == name && it.status == ACTIVE);
    match same {
        None => Ok(()),
        Some(poller) => anyhow::bail!(
            "simulator {} of org {org} is called {name:?} already; give this one another --name",
            poller.id
        ),
    }
}

/// Takes it out of service for good. Its entities and readings stay.
async fn remove(wire: &Wire, id: SimulatorId) -> Result<()> {
    let changed = registry::set_poller_status(wire, id, REMOVED).await?;
    let (poller, changed) = changed.with_context(|| {
        format!("there is no simulator {id}; `haystack simulator list` names them")
    })?;
    let so = if changed { "" } else { " (it was so)" };
    println!("simulator {id} ({}) is removed{so}; its entities and readings stay", poller.name);
    Ok(())
}

/// Waits until a service runs it.
async fn found(wire: &Wire, id: SimulatorId) -> Result<()> {
    let look = async {
        while ask(wire, id, "state", &Ask::State).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let found = tokio::time::timeout(FOUND, look).await;
    found.context("no simulator service runs it: is one up? It keeps waiting for one")
}

async fn list(wire: &Wire, json: bool) -> Result<ExitCode> {
    let mut pollers = nats::model::load(wire).await?.pollers();
    pollers.retain(|poller| poller.poller_type == SIMULATOR && poller.status == ACTIVE);
    let mut table = Table::new(["id", "org", "name", "points", "status", "last run", "why"]);
    let mut listed = Vec::new();
    // All at once: one service that hangs must not be waited for as often as it has simulators.
    let states = pollers.iter().map(|poller| {
        let subject = format!("simulator.{}.state", poller.id);
        async move { micro::ask(wire, subject, &Ask::State, LISTED).await }
    });
    let states = futures_util::future::join_all(states).await;
    for (poller, asked) in pollers.iter().zip(states) {
        table.row(row(poller, &asked));
        listed.push(match asked {
            Ok(state) => serde_json::to_value(&state)?,
            Err(error) => serde_json::json!({ "simulator_id": poller.id, "org": poller.org,
                "name": poller.name, "error_message": error.to_string() }),
        });
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&listed)?);
    } else if table.is_empty() {
        println!("no simulators; `haystack simulator create` makes one");
    } else {
        table.print();
    }
    Ok(ExitCode::SUCCESS)
}

fn row(poller: &Poller, asked: &Result<State, Refusal>) -> [String; 7] {
    let none = || "-".to_owned();
    let [points, doing, last, why] = match asked {
        Ok(state) => [
            state.points.to_string(),
            describe::doing(state),
            state.last_run_timestamp.map_or_else(none, |at| at.to_string()),
            state.error_message.clone().unwrap_or_default(),
        ],
        Err(error) => [none(), "no answer".to_owned(), none(), error.to_string()],
    };
    [poller.id.to_string(), poller.org.to_string(), poller.name.clone(), points, doing, last, why]
}

fn health(state: &State) -> ExitCode {
    use domain::simulator::Status::{Error, Waiting};
    println!("{}", describe::line(state));
    let well = !matches!(state.status, Waiting | Error) && state.error_message.is_none();
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
