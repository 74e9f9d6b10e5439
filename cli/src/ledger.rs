//! `haystack ledger`: is everything that was accepted accounted for?

use crate::{Globals, connect, databases, table::Table};
use clap::Args;
use custody::{
    compare::Target,
    ledger::{Account, Counts, Entries, Hop, Ledger, QUICK_ROWS, Question, orgs_of},
    tell::ledger_as_json,
};
use domain::{OrgId, OrgKey, Timestamp, directory::Directory, ledger::hour_of};
use nats::targets;
use std::process::ExitCode;
use store::ledger::{Hour, Rows};

/// Hours that are told where nobody says: a day, in microseconds.
const DAY: i64 = 24 * 3_600_000_000;
/// Messages without a fate that are named.
const NAMED: usize = 20;

#[derive(Args)]
#[command(after_help = "\
A message that a stream has accepted was applied (its readings are stored, superseded by newer ones,
duplicates of what was there, deleted, or dead: a letter says why), gave nothing that could be applied
(explained: its letter, or a message without a reading), or is in flight. What is none of these is
unaccounted for. Targets note that in the COMMIT that writes the rows; and they count their rows: where
others are there than were written, somebody changed them behind the platform's back.

`haystack verify --repair` applies messages that are unaccounted for again, and mends rows.

Exit code 1: something is unaccounted for, or a target can't be asked.")]
#[expect(clippy::struct_excessive_bools, reason = "flags that people type")]
pub(crate) struct LedgerArgs {
    /// Only readings of this hour (UTC), in which the stream accepted them [default: the last day]. Messages and
    /// rows are of all time
    #[arg(long, value_parser = hour)]
    hour: Option<Timestamp>,
    /// Only this org's readings and rows
    #[arg(long)]
    org: Option<OrgKey>,
    /// Count all rows, also where that takes a while [default: up to 2 million]
    #[arg(long)]
    rows: bool,
    /// Look into each message of RAW that the hours have, however many: every device message in it came through, or
    /// is a letter [default: where that is quick]
    #[arg(long)]
    entries: bool,
    /// With --rows: take what is there as right; what is unaccounted for now is settled, and not told any more
    #[arg(long, requires = "rows")]
    settle: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn hour(text: &str) -> Result<Timestamp, String> {
    // An hour may be written without its minutes.
    let written = [text.to_owned(), format!("{text}:00:00Z"), format!("{text}T00:00:00Z")];
    let found = written.iter().find_map(|text| Timestamp::parse_rfc3339(text));
    found.map(hour_of).ok_or_else(|| "an hour is expected, e.g. 2026-11-20T10".to_owned())
}

pub(crate) async fn run(args: &LedgerArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let directory = nats::model::load(&wire).await?;
    let only = args.org.as_ref().map(|key| {
        let known = directory.org(key).map(|org| org.id);
        known
            .ok_or_else(|| anyhow::anyhow!("there is no org {key}; `haystack org list` names them"))
    });
    let only = only.transpose()?;
    let register = targets::list(&wire).await?;
    let databases = databases::attached(&config, &register, "ledger")?;
    let targets: Vec<Target<'_>> =
        databases.iter().map(|(name, database)| Target { name, database }).collect();
    let now = connect::now_here();
    let hours = args.hour.map_or((hour_of(now.plus_micros(-DAY)), now), |hour| (hour, hour));
    let (orgs, rows) = (orgs_of(&directory), args.rows.then_some(true));
    let (targets, orgs) = (&*targets, &*orgs);
    let (register, entries) = (&register, args.entries.then_some(true));
    let question = Question { wire: &wire, targets, orgs, register, hours, rows, entries };
    let mut ledger = question.ask().await?;
    if args.settle && !ledger.is_balanced() {
        ledger = question.settle(&ledger).await?;
    }
    if let (Some(entries), Some(org)) = (&mut ledger.entries, &args.org) {
        entries.hours.retain(|(_, of), _| of.as_ref() == Some(org));
    }
    for (_, account) in &mut ledger.targets {
        let wanted = |id: OrgId| only.is_none_or(|only| only == id);
        account.hours.retain(|hour| wanted(hour.org));
        account.off.retain(|(org, ..)| wanted(*org));
        account.rows.retain(|(org, _)| wanted(org.id));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&ledger_as_json(&ledger, &directory))?);
    } else {
        print(&ledger, &directory);
    }
    let good = ledger.is_balanced() && ledger.away.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The ledger as it stands now, of all targets.
pub(crate) async fn look(config: &service::Config) -> anyhow::Result<Ledger> {
    let wire = connect::now(config, "operator").await?;
    let (directory, register) = (nats::model::load(&wire).await?, targets::list(&wire).await?);
    let databases = databases::attached(config, &register, "ledger")?;
    let targets: Vec<Target<'_>> =
        databases.iter().map(|(name, database)| Target { name, database }).collect();
    let (now, orgs) = (connect::now_here(), orgs_of(&directory));
    let (targets, orgs, hours) = (&*targets, &*orgs, (now, now));
    let (wire, register, rows, entries) = (&wire, &register, None, None);
    Ok(Question { wire, targets, orgs, register, hours, rows, entries }.ask().await?)
}

fn print(ledger: &Ledger, directory: &Directory) {
    hops(ledger);
    match &ledger.entries {
        Some(looked) => entries(looked),
        None => {
            println!(
                "\ntoo much came in that time to look into each message of RAW (--entries does)"
            );
        }
    }
    for (name, account) in &ledger.targets {
        println!();
        if account.hours.is_empty() {
            println!("{name}: no reading was applied in that time");
        } else {
            println!("{name}:");
            readings(account, directory);
        }
        wrong(account, directory);
    }
    println!();
    for (name, why) in &ledger.away {
        println!("{name} can't be asked: {why}");
    }
    if ledger.is_balanced() && ledger.away.is_empty() {
        println!("balanced: everything that was accepted is accounted for");
    } else if !ledger.is_balanced() {
        println!("NOT balanced: `haystack verify --repair` mends what the streams still have");
    }
}

fn hops(ledger: &Ledger) {
    let heads =
        ["messages", "accepted", "applied", "explained", "settled", "in flight", "unaccounted for"];
    let mut table = Table::new(heads);
    let hops = ledger.targets.iter().map(|(name, it)| (format!("TELEMETRY to {name}"), &it.hop));
    for (name, hop) in [("RAW to TELEMETRY".to_owned(), &ledger.raw)].into_iter().chain(hops) {
        let Hop { accepted, applied, explained, settled, in_flight, .. } = hop;
        let [accepted, applied, explained, settled, in_flight] =
            [accepted, applied, explained, settled, in_flight].map(u64::to_string);
        let more = if hop.more { "+" } else { "" };
        let missing = format!("{}{more}", hop.unaccounted.len());
        table.row([name, accepted, applied, explained, settled, in_flight, missing]);
    }
    table.print();
    let missing = |place: String, hop: &Hop| {
        for (sequence, what) in hop.unaccounted.iter().take(NAMED) {
            println!("  {place}-{sequence} is unaccounted for: {what}");
        }
    };
    missing("RAW".to_owned(), &ledger.raw);
    for (name, account) in &ledger.targets {
        missing(format!("{name}: TELEMETRY"), &account.hop);
    }
}

fn entries(entries: &Entries) {
    if entries.hours.is_empty() {
        return;
    }
    println!("\nin RAW:");
    let heads = [
        "hour",
        "org",
        "device messages",
        "normalized",
        "dead",
        "explained",
        "in flight",
        "let go",
        "unaccounted for",
    ];
    let mut table = Table::new(heads);
    for ((hour, org), counts) in &entries.hours {
        let Counts { accepted, normalized, dead, explained, in_flight, let_go, unaccounted } =
            counts;
        let numbers = [accepted, normalized, dead, explained, in_flight, let_go, unaccounted];
        let org = org.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        let mut cells = [hour.to_string(), org].into_iter().chain(numbers.map(u64::to_string));
        table.row(std::array::from_fn(|_| cells.next().unwrap_or_default()));
    }
    table.print();
    for (sequence, index) in entries.missing.iter().take(NAMED) {
        println!(
            "  RAW-{sequence}-{index} is unaccounted for: `haystack replay` of its hour gives it again"
        );
    }
}

fn readings(account: &Account, directory: &Directory) {
    let heads = ["hour", "org", "readings", "stored", "superseded", "duplicate", "deleted", "dead"];
    let mut table = Table::new(heads);
    for Hour { org, hour, readings, fates, .. } in &account.hours {
        let numbers =
            [*readings, fates.stored, fates.superseded, fates.duplicate, fates.deleted, fates.dead];
        let cells = [hour.to_string(), name(directory, *org)].into_iter();
        let mut cells = cells.chain(numbers.map(|number| number.to_string()));
        table.row(std::array::from_fn(|_| cells.next().unwrap_or_default()));
    }
    table.print();
}

fn wrong(account: &Account, directory: &Directory) {
    for (org, hour, off) in &account.off {
        let org = name(directory, *org);
        println!("  org {org}, {hour}: {off} readings more came than have a fate");
    }
    for (org, Rows { counted, found }) in &account.rows {
        let key = &org.key;
        match found {
            Some(found) if found < counted => {
                println!("  org {key}: {} rows are missing of {counted}", counted - found);
            }
            Some(found) if found > counted => {
                println!("  org {key}: {} rows more are there than {counted}", found - counted);
            }
            None if *counted > QUICK_ROWS => {
                println!("  org {key}: {counted} rows, not counted anew (--rows does)");
            }
            _ => {}
        }
    }
}

fn name(directory: &Directory, org: OrgId) -> String {
    directory.org_by_id(org).map_or_else(|| org.to_string(), |org| org.key.to_string())
}
