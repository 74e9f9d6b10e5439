//! `haystack targets`: which databases receive everything, how far each is, and letting one go.

use crate::{Globals, connect, databases, table::Table};
use anyhow::Context;
use clap::Subcommand;
use custody::{
    backfill::{Progress, fill_all},
    compare::Target,
    tell::filling,
};
use domain::{Clock, OrgKey, SystemClock, TargetName, Timestamp};
use nats::{
    Wire,
    inspect::{self, StreamState},
    outcome, retention, streams,
    targets::{self, Compared, Detached, Registered},
};
use serde::Serialize;
use service::Config;
use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};
use store::{Database, OrgRef};

/// How often a long work says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

#[derive(Subcommand)]
pub(crate) enum TargetsCommand {
    /// Each target: how far behind, how long it may stay away, equal to the primary or not
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a target go for good: nothing more is written there, and no reading is kept for it
    Detach {
        /// The target
        name: TargetName,
        /// Do it; without this it is only said what would be lost to the target
        #[arg(long)]
        yes: bool,
    },
    /// Fill a target from another: what is older than the streams, while live readings flow
    Backfill {
        /// The target to fill
        name: TargetName,
        /// The target to fill it from
        #[arg(long)]
        from: TargetName,
        /// Only this org
        #[arg(long)]
        org: Option<OrgKey>,
    },
    /// Take a target back that was let go. It gets what the streams still have
    Attach {
        /// The target
        name: TargetName,
    },
}

pub(crate) async fn run(command: TargetsCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::by_hand(&config).await?;
    match command {
        TargetsCommand::List { json } => {
            let lines = lines(&wire, &config).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&lines)?);
            } else {
                print(&lines);
            }
        }
        TargetsCommand::Detach { name, yes } => return detach(&wire, &config, name, yes).await,
        TargetsCommand::Backfill { name, from, org } => {
            return backfill(&wire, &config, &from, &name, org.as_ref()).await;
        }
        TargetsCommand::Attach { name } => {
            let taken = targets::attach(&wire, &name, SystemClock.now()).await?;
            taken.map_err(anyhow::Error::msg)?;
            println!(
                "{name} is attached: ingest fills it from the streams; `haystack targets backfill \
                 {name} --from {}` brings what is older",
                config.primary().0
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A target, as `list` shows it.
#[derive(Serialize)]
struct Line {
    target: TargetName,
    primary: bool,
    /// Whether this configuration names it.
    configured: bool,
    /// Since when it is registered; none: no ingest service has run with it.
    #[serde(with = "domain::time::rfc3339::option")]
    since: Option<Timestamp>,
    detached: Option<Detached>,
    /// Messages that it has not applied, of all orgs.
    lag: u64,
    /// The oldest of them.
    #[serde(with = "domain::time::rfc3339::option")]
    waiting_since: Option<Timestamp>,
    /// Seconds until the stream refuses new readings if it stays where it is.
    outage_horizon_seconds: Option<u64>,
    /// What the last comparison with the primary found.
    compared: Option<Compared>,
}

async fn lines(wire: &Wire, config: &Config) -> anyhow::Result<Vec<Line>> {
    let register = targets::list(wire).await?;
    let orgs: Vec<OrgKey> =
        nats::model::load(wire).await?.orgs().iter().map(|org| org.key.clone()).collect();
    let stream = inspect::stream(wire, streams::TELEMETRY).await?;
    let held = retention::held(wire, streams::TELEMETRY).await?;
    let mut names: BTreeMap<TargetName, Option<Registered>> =
        config.targets.keys().map(|name| (name.clone(), None)).collect();
    names.extend(register.iter().map(|(name, entry)| (name.clone(), Some(entry.clone()))));
    let mut lines = Vec::new();
    for (target, entry) in names {
        let mut line = Line {
            primary: config.primary().0 == &target,
            configured: config.targets.contains_key(&target),
            since: entry.as_ref().map(|entry| entry.since),
            detached: entry.as_ref().and_then(|entry| entry.detached.clone()),
            lag: 0,
            waiting_since: None,
            outage_horizon_seconds: None,
            compared: entry.as_ref().and_then(|entry| entry.compared),
            target,
        };
        if let (None, Some(entry)) = (&line.detached, entry) {
            lag(wire, &orgs, &mut line).await?;
            let alone = BTreeMap::from([(line.target.clone(), entry)]);
            let applied =
                retention::applied(wire, streams::TELEMETRY, &held, &alone, &orgs).await?;
            line.outage_horizon_seconds = horizon(&stream, held.bytes_behind(applied.done));
        }
        lines.push(line);
    }
    Ok(lines)
}

fn horizon(stream: &StreamState, needed: u64) -> Option<u64> {
    stream.horizon(needed).map(|horizon| horizon.as_secs())
}

async fn lag(wire: &Wire, orgs: &[OrgKey], line: &mut Line) -> anyhow::Result<()> {
    let consumers = inspect::consumers(wire, streams::TELEMETRY).await?;
    for org in orgs {
        let state = consumers.get(&inspect::ingest_consumer(&line.target, org));
        line.lag += state.map_or(0, inspect::ConsumerState::lag);
        let position = outcome::position(wire, &line.target, org).await?;
        let waiting = position.and_then(|position| position.waiting_since);
        line.waiting_since = line.waiting_since.into_iter().chain(waiting).min();
    }
    Ok(())
}

fn print(lines: &[Line]) {
    let heads =
        ["target", "state", "lag (messages)", "oldest", "may stay away", "equal to primary"];
    let mut table = Table::new(heads);
    for line in lines {
        let state = match (&line.detached, line.since, line.configured) {
            (Some(detached), ..) => format!("detached at {} by {}", detached.at, detached.by),
            (None, None, _) => "not registered: no ingest service ran with it".to_owned(),
            (None, Some(_), false) => "attached, but not in this configuration".to_owned(),
            (None, Some(since), true) => format!("attached since {since}"),
        };
        let equal = match line.compared {
            _ if line.primary => "(primary)".to_owned(),
            None => "not compared yet (haystack verify)".to_owned(),
            Some(Compared { at, equal: true }) => format!("yes, at {at}"),
            Some(Compared { at, equal: false }) => {
                format!("NO, at {at} (haystack verify --repair)")
            }
        };
        let none = || "-".to_owned();
        table.row([
            line.target.to_string(),
            state,
            line.lag.to_string(),
            line.waiting_since.map_or_else(none, |at| at.to_string()),
            line.outage_horizon_seconds.map_or_else(none, crate::status::duration),
            equal,
        ]);
    }
    table.print();
}

async fn detach(
    wire: &Wire,
    config: &Config,
    name: TargetName,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    if config.primary().0 == &name {
        anyhow::bail!(
            "{name} is the primary: callers wait for its COMMIT. Make another target primary in the \
             configuration, restart the services, then detach it"
        );
    }
    let lines = lines(wire, config).await?;
    let Some(line) = lines.iter().find(|line| line.target == name && line.since.is_some()) else {
        let known: Vec<String> = lines.iter().map(|line| line.target.to_string()).collect();
        anyhow::bail!("there is no registered target {name}; there are {}", known.join(", "));
    };
    if !yes {
        println!(
            "{name} has not applied {} messages. Detached, it gets nothing more, and the streams keep \
             nothing for it. Repeat with --yes to do it",
            line.lag
        );
        return Ok(ExitCode::FAILURE);
    }
    let by =
        wire.author.as_ref().map_or_else(|| "operator".to_owned(), |author| author.who.clone());
    let detached = Detached { at: SystemClock.now(), by };
    targets::detach(wire, &name, detached).await?.map_err(anyhow::Error::msg)?;
    println!(
        "{name} is detached: within seconds nothing more is written there. Take it out of the \
         configuration"
    );
    Ok(ExitCode::SUCCESS)
}

async fn backfill(
    wire: &Wire,
    config: &Config,
    from: &TargetName,
    to: &TargetName,
    only: Option<&OrgKey>,
) -> anyhow::Result<ExitCode> {
    let register = targets::list(wire).await?;
    let databases: BTreeMap<TargetName, Database> =
        databases::attached(config, &register, "backfill")?.into_iter().collect();
    let find = |name: &TargetName| {
        let known = config.targets.keys().map(TargetName::as_str).collect::<Vec<_>>().join(", ");
        let database = databases.get(name);
        database.with_context(|| {
            format!("there is no target {name}, or it is detached; configured are {known}")
        })
    };
    let (from, to) =
        (Target { name: from, database: find(from)? }, Target { name: to, database: find(to)? });
    let begun = Instant::now();
    let mut said = begun;
    let mut tell = |org: &OrgRef, done: Progress| {
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            eprintln!("{}", filling(org, to, done));
        }
    };
    for (org, done) in fill_all(from, to, only, &mut tell).await? {
        println!(
            "org {}: {} rows looked at, {} new in {}, {} deletions, {} presences, {} transactions",
            org.key,
            done.looked_at,
            done.written,
            to.name,
            done.deletions,
            done.presences,
            done.ends
        );
        if done.refused > 0 {
            println!("  {} rows are refused by the database of {} itself", done.refused, to.name);
        }
    }
    println!("done in {:.1} s; `haystack verify` compares", begun.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}
