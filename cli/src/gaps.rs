//! `haystack gaps`: which readings are missing, since when, and where they stopped.

use crate::{Globals, connect, databases, table::Table};
use anyhow::Context;
use clap::Args;
use custody::{
    compare::{Target, orgs},
    gaps::{Gap, INTERVAL, MOST, Question, Source, gaps},
    tell::{gap_as_json, why},
};
use domain::{OrgKey, Timestamp};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What is looked at where nobody says: the last day, in microseconds.
const DAY: i64 = 24 * 3_600_000_000;
/// Gaps that the table lists.
const LISTED: usize = 50;

#[derive(Args)]
#[command(after_help = "\
A point's interval is its tag hisCollectInterval (a number with a unit of time, e.g. in the tags of a
device type's metric: { hisCollectInterval: { value: 1, unit: min } }); points of simulators have their
simulator's. A reading is missing when it is half an interval late.

Exit code 1: something is missing up to now.")]
pub(crate) struct GapsArgs {
    /// Only this org
    #[arg(long)]
    org: Option<OrgKey>,
    /// From this moment [default: a day ago]
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// Up to this one [default: now]
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    let day = || Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"));
    Timestamp::parse_rfc3339(text)
        .or_else(day)
        .ok_or_else(|| "a moment or a day is expected, e.g. 2026-11-20T10:00:00Z".to_owned())
}

pub(crate) async fn run(args: &GapsArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let directory = nats::model::load(&wire).await?;
    let databases = databases::targets(&config, "gaps")?;
    let (name, database) = databases
        .iter()
        .find(|(name, _)| name == config.primary().0)
        .context("no target is primary")?;
    let primary = Target { name, database };
    let to = args.to.unwrap_or_else(connect::now_here);
    let from = args.from.unwrap_or_else(|| to.plus_micros(-DAY));
    anyhow::ensure!(from < to, "--from must be before --to");
    let mut keys: Vec<OrgKey> = directory.orgs().iter().map(|org| org.key.clone()).collect();
    keys.retain(|key| args.org.as_ref().is_none_or(|only| only == key));
    anyhow::ensure!(!keys.is_empty(), "there is no such org; `haystack org list` names them");
    let (mut points, mut found) = (0, Vec::new());
    for org in orgs(primary, &keys).await? {
        let (wire, directory, org) = (&wire, &directory, &org);
        let question = Question { wire, directory, primary, org, from, to };
        let (expected, gaps) = gaps(&question).await?;
        points += expected;
        found.extend(gaps.into_iter().map(|gap| (org.key.clone(), gap)));
    }
    let open = found.iter().any(|(_, gap)| gap.until.is_none());
    if args.json {
        let gaps: Vec<Value> = found.iter().map(|(org, gap)| gap_as_json(org, gap)).collect();
        let told = json!({
            "from": from.to_string(), "to": to.to_string(), "points": points, "gaps": gaps,
        });
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        print(points, &found);
    }
    Ok(if open { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(points: usize, found: &[(OrgKey, Gap)]) {
    if points == 0 {
        println!("no point has an interval (tag {INTERVAL}): see `haystack gaps --help`");
        return;
    }
    if found.is_empty() {
        println!("nothing is missing: {points} points with an interval");
        return;
    }
    let heads = ["point", "every", "last before", "first after", "missing", "where it stopped"];
    let mut table = Table::new(heads);
    for (org, gap) in found.iter().take(LISTED) {
        let at = |at: Option<Timestamp>, none: &str| {
            at.map_or_else(|| none.to_owned(), |at| at.to_string())
        };
        let name = match &gap.source {
            Source::Device { device, metric, .. } => format!("{device} {metric}"),
            _ => gap.name.clone(),
        };
        table.row([
            format!("{org}: {name} ({})", gap.entity),
            format!("{:?}", gap.interval),
            at(gap.after, "(never)"),
            at(gap.until, "(none yet)"),
            gap.missing.to_string(),
            why(gap),
        ]);
    }
    table.print();
    if found.len() > LISTED {
        println!("… and {} more (--json)", found.len() - LISTED);
    }
    if found.len() >= MOST {
        println!("(at most {MOST} of an org are looked for)");
    }
    println!("\n{} gaps; {points} points have an interval", found.len());
}
