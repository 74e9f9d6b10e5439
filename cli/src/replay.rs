//! `haystack replay`: history processed again by other rules than it was.

mod dry;

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::{Args, Subcommand};
use domain::{
    Clock, DeviceId, OrgKey, SystemClock, Timestamp, TypeId,
    replay::{Counts, Replay, Rules, Spec, State},
};
use nats::{
    Wire,
    records::{self, Kept},
    replays,
};
use serde_json::{Value, json};
use service::Config;
use std::{io::IsTerminal, process::ExitCode, time::Duration};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Characters of a bar.
const BAR: usize = 30;
/// Replays that a list shows.
const LISTED: usize = 50;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ReplayArgs {
    #[command(subcommand)]
    command: Option<ReplayCommand>,
    #[command(flatten)]
    begin: Option<BeginArgs>,
}

#[derive(Subcommand)]
enum ReplayCommand {
    /// List replays, the newest first
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one replay
    Show {
        /// Its number
        id: u16,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Follow one replay until it is done, as it is when it begins
    Follow {
        /// Its number
        id: u16,
    },
    /// Stop one; `resume` lets it go on where it was
    Stop {
        /// Its number
        id: u16,
    },
    /// Let one go on that was stopped
    Resume {
        /// Its number
        id: u16,
    },
    /// Take one back: the same messages, by the versions that were their own when they came
    ///
    /// What was corrected by hand since stays. Where an earlier replay gave the same messages something else, that
    /// does not come back, either: it is refused, unless --to-the-first says that it is meant.
    Undo {
        /// Its number
        id: u16,
        /// Also where an earlier replay was about the same messages
        #[arg(long)]
        to_the_first: bool,
        /// Do not wait until it is done
        #[arg(long)]
        detach: bool,
    },
}

/// Which messages, and by which rules.
#[derive(Args)]
struct BeginArgs {
    /// Messages that were accepted at this moment or later: 2026-11-01, or RFC 3339
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    from: Timestamp,
    /// Messages that were accepted before this moment
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    to: Timestamp,
    /// Of devices of this type
    #[arg(long, value_name = "TYPE")]
    device_type: Option<TypeId>,
    /// Of this device or gateway
    #[arg(long)]
    device: Option<DeviceId>,
    /// Of this org
    #[arg(long)]
    org: Option<OrgKey>,
    /// By this version of the device type [default: the one in force]
    #[arg(long, requires = "device_type")]
    version: Option<u32>,
    /// Only show what would change, held against the primary
    #[arg(long)]
    dry_run: bool,
    /// Print what would change as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Do not wait until it is done
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let day = || Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"));
    Timestamp::parse_rfc3339(text).or_else(day).ok_or_else(|| {
        "a day (UTC) or a moment with an offset is expected, e.g. 2026-11-01 or 2026-11-01T08:00:00Z"
            .to_owned()
    })
}

pub(crate) async fn run(args: ReplayArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::by_hand(&config).await?;
    match (args.command, args.begin) {
        (None, None) => anyhow::bail!("--from and --to say what to process again; see --help"),
        (None, Some(begin)) => self::begin(&config, &wire, begin).await,
        (Some(command), _) => do_it(&wire, command).await,
    }
}

async fn do_it(wire: &Wire, command: ReplayCommand) -> anyhow::Result<ExitCode> {
    match command {
        ReplayCommand::List { json } => list(wire, json).await,
        ReplayCommand::Show { id, json } => {
            let replay = find(wire, id).await?.record;
            if json {
                println!("{}", serde_json::to_string_pretty(&shown(&replay))?);
            } else {
                show(&replay, replays::taken_back_by(wire, id).await?);
            }
            Ok(ExitCode::SUCCESS)
        }
        ReplayCommand::Follow { id } => follow(wire, id).await,
        ReplayCommand::Stop { id } => {
            let replay = records::change(wire, id.into(), Replay::stop).await?;
            println!("replay {id} is stopped: {}", progress(&replay));
            Ok(ExitCode::SUCCESS)
        }
        ReplayCommand::Resume { id } => {
            replays::resume(wire, id).await?;
            follow(wire, id).await
        }
        ReplayCommand::Undo { id, to_the_first, detach } => {
            let replay = replays::undo(wire, id, to_the_first, by(wire), SystemClock.now()).await?;
            begun(wire, replay.id, detach).await
        }
    }
}

async fn begin(config: &Config, wire: &Wire, args: BeginArgs) -> anyhow::Result<ExitCode> {
    let BeginArgs { from, to, device_type, device, org, version, dry_run, json, detach } = args;
    anyhow::ensure!(from < to, "--from is not before --to");
    let known = nats::model::load(wire).await?;
    if let Some(org) = &org {
        anyhow::ensure!(known.org(org).is_some(), "there is no org {org}; `haystack org list`");
    }
    if let Some(device) = &device {
        let hint = "`haystack device list` names them";
        anyhow::ensure!(known.device(device).is_some(), "there is no device {device}; {hint}");
    }
    if let Some(id) = &device_type {
        let orgs: Vec<_> = known
            .orgs()
            .iter()
            .filter(|it| org.as_ref().is_none_or(|org| *org == it.key))
            .cloned()
            .collect();
        let latest = orgs
            .iter()
            .filter_map(|org| known.head(&org.key, id))
            .map(|it| it.current.version)
            .max();
        let latest = latest.with_context(|| format!("no org has a device type {id}"))?;
        let there = version.is_none_or(|version| (1..=latest).contains(&version));
        anyhow::ensure!(there, "{id} has versions 1 to {latest}");
    }
    let rules = version.map_or(Rules::InForce, Rules::Version);
    let spec = Spec { from, to, org, device_type, device, rules };
    if dry_run {
        return dry::run(config, wire, &known, spec, json).await;
    }
    let replay = Replay::new(spec, None, by(wire), SystemClock.now());
    begun(wire, records::begin(wire, replay).await?.record.id, detach).await
}

fn by(wire: &Wire) -> String {
    wire.author.as_ref().map_or_else(String::new, |author| author.who.clone())
}

async fn begun(wire: &Wire, id: u16, detach: bool) -> anyhow::Result<ExitCode> {
    println!("replay {id} begins");
    if detach { Ok(ExitCode::SUCCESS) } else { follow(wire, id).await }
}

async fn find(wire: &Wire, id: u16) -> anyhow::Result<Kept<Replay>> {
    let found = records::get(wire, id.into()).await?;
    found.with_context(|| format!("there is no replay {id}; `haystack replay list` names them"))
}

async fn list(wire: &Wire, as_json: bool) -> anyhow::Result<ExitCode> {
    let newest = records::newest::<Replay>(wire).await?;
    let mut replays = Vec::new();
    for id in (1..=newest).rev().take(LISTED) {
        replays.extend(records::get::<Replay>(wire, id).await?.map(|kept| kept.record));
    }
    if as_json {
        let all: Vec<Value> = replays.iter().map(shown).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(ExitCode::SUCCESS);
    }
    if replays.is_empty() {
        println!("no replays");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table =
        Table::new(["replay", "what", "state", "done", "readings", "removed", "by", "began"]);
    for replay in &replays {
        table.row([
            replay.id.to_string(),
            what(replay),
            state(replay),
            format!("{:.0} %", replay.share() * 100.0),
            replay.counts.readings.to_string(),
            replay.counts.removals.to_string(),
            replay.by.clone(),
            replay.began_at.to_string(),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}

fn what(replay: &Replay) -> String {
    let Spec { from, to, org, device_type, device, rules } = &replay.spec;
    let mut words = vec![format!("{from} to {to}")];
    words.extend(org.as_ref().map(|org| format!("org {org}")));
    words.extend(device_type.as_ref().map(ToString::to_string));
    words.extend(device.as_ref().map(ToString::to_string));
    words.push(match (rules, replay.undoes) {
        (_, Some(id)) => format!("takes {id} back"),
        (Rules::InForce, None) => "by the version in force".to_owned(),
        (Rules::Own, None) => "by its own version".to_owned(),
        (Rules::Version(version), None) => format!("by version {version}"),
    });
    words.join(", ")
}

fn state(replay: &Replay) -> String {
    match (&replay.state, &replay.waits) {
        (State::Running, Some(why)) => format!("waits: {why}"),
        (State::Running, None) if replay.owner.is_none() => "waits for a bridge".to_owned(),
        (State::Running, None) => "running".to_owned(),
        (State::Stopped, _) => "stopped".to_owned(),
        (State::Done, _) => "done".to_owned(),
        (State::Failed(why), _) => format!("failed: {why}"),
    }
}

fn progress(replay: &Replay) -> String {
    let Counts { taken, readings, removals, failed, .. } = replay.counts;
    format!(
        "{:.0} % done, {taken} messages, {readings} readings, {removals} removed, {failed} failed",
        replay.share() * 100.0
    )
}

fn show(replay: &Replay, taken_back_by: Option<u16>) {
    let line = |name: &str, value: String| println!("{name:10} {value}");
    line("replay", replay.id.to_string());
    line("what", what(replay));
    line("state", state(replay));
    line("progress", progress(replay));
    line("RAW", format!("at {}, from {} to {}", replay.done, replay.first, replay.last));
    if let Some(later) = taken_back_by {
        line("taken back", format!("by replay {later}"));
    }
    line("by", format!("{}, {}", replay.by, replay.began_at));
    if let Some(failure) = &replay.last_failure {
        line("failed", failure.clone());
    }
}

fn shown(replay: &Replay) -> Value {
    let mut shown = serde_json::to_value(replay).unwrap_or_default();
    for field in ["began_at", "touched_at"] {
        let at = if field == "began_at" { replay.began_at } else { replay.touched_at };
        shown[field] = json!(at.to_string());
    }
    shown["spec"]["from"] = json!(replay.spec.from.to_string());
    shown["spec"]["to"] = json!(replay.spec.to.to_string());
    shown["share"] = json!(replay.share());
    shown
}

/// Shows a bar until it is over. Whoever interrupts it interrupts the showing alone.
async fn follow(wire: &Wire, id: u16) -> anyhow::Result<ExitCode> {
    loop {
        let replay = find(wire, id).await?.record;
        let filled = (replay.share() * BAR as f64) as usize;
        let bar: String = (0..BAR).map(|at| if at < filled { '#' } else { '.' }).collect();
        let terminal = std::io::stderr().is_terminal();
        if terminal {
            eprint!("\r[{bar}] {} ({})\x1b[K", progress(&replay), state(&replay));
        }
        if replay.state != State::Running {
            if terminal {
                eprintln!();
            }
            println!("replay {id}: {}, {}", state(&replay), progress(&replay));
            if let Some(failure) = &replay.last_failure {
                println!("the last that failed, and keeps its rows: {failure}");
            }
            let done = replay.state == State::Done;
            return Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        tokio::time::sleep(LOOK).await;
    }
}
