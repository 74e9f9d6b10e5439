//! `haystack status`: what is where, what is behind, what is held and why.

use crate::{Globals, connect, table::Table};
use clap::Args;
use domain::{Hold, OrgKey, Reason, Stage, TargetName, model::Org, subject::Subject};
use nats::{
    Wire,
    inspect::{self, ConsumerState, StreamState, ingest_consumer},
    report::{self, Report},
    retention, streams, targets,
};
use serde::Serialize;
use service::Config;
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long services have to answer.
const ANSWER: Duration = Duration::from_millis(300);
/// Over which the rates are taken.
const SAMPLE: Duration = Duration::from_secs(1);
/// Characters of a letter's detail that the table shows.
const SHOWN_DETAIL: usize = 120;
/// The same of a sender's name.
const SHOWN_NAME: usize = 64;
/// How full a stream is, at least, before it is said when it refuses.
const LEAST_FILL: f64 = 0.001;
/// Subjects of dead letters that the table lists.
const LISTED_LETTERS: usize = 20;

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Status {
    streams: Vec<StreamLine>,
    /// Lag of each target, by org.
    targets: Vec<TargetLine>,
    normalize: ConsumerLine,
    /// Lag of each target that archives device messages.
    archives: BTreeMap<TargetName, ConsumerLine>,
    /// Readings a second that came in, and rows a second that each target stored.
    rates: BTreeMap<String, f64>,
    dead_letters: Vec<LettersLine>,
    services: Vec<ServiceLine>,
    /// Services of which no instance answers: none runs, or it hangs.
    silent: Vec<&'static str>,
    /// Records of `MODEL` that this release can't read.
    unreadable: Vec<String>,
}

#[derive(Serialize)]
struct StreamLine {
    name: String,
    messages: u64,
    bytes: u64,
    max_bytes: u64,
    fill: f64,
    /// Seconds until it refuses, at the rate of its last messages; how long a target may be away.
    outage_horizon_seconds: Option<u64>,
    /// Who keeps messages in it that are older than the history that is to be kept.
    overdue: Option<String>,
}

#[derive(Serialize)]
struct TargetLine {
    target: TargetName,
    primary: bool,
    org: String,
    #[serde(flatten)]
    consumer: ConsumerLine,
}

#[derive(Serialize, Default)]
struct ConsumerLine {
    /// Messages that are not done; none where there is no such consumer yet.
    lag: Option<u64>,
    /// Of those, delivered and not acknowledged.
    unacknowledged: u64,
    redelivered: u64,
}

#[derive(Serialize)]
struct LettersLine {
    subject: String,
    stage: String,
    org: Option<String>,
    source: String,
    letters: usize,
    /// Why the last of them is dead, and what exactly.
    last_reason: Option<Reason>,
    last_detail: Option<String>,
}

#[derive(Serialize)]
struct ServiceLine {
    service: String,
    instance: String,
    version: String,
    counters: BTreeMap<String, u64>,
    /// What else it says, e.g. of its session at the broker.
    details: BTreeMap<String, String>,
    held: Vec<Hold>,
}

pub(crate) async fn run(args: &StatusArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let status = look(&wire, &config).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(ExitCode::SUCCESS)
}

async fn look(wire: &Wire, config: &Config) -> anyhow::Result<Status> {
    let asked = Instant::now();
    let before = report::gather(wire, ANSWER).await;
    let directory = nats::model::load(wire).await?;
    let orgs = directory.orgs();
    let mut lines = Vec::new();
    for name in streams::ALL {
        let state = inspect::stream(wire, name).await?;
        let (needed, overdue) = needed(wire, config, &state, &orgs).await?;
        lines.push(StreamLine { overdue, ..stream_line(state, needed) });
    }
    let consumers = inspect::consumers(wire, streams::TELEMETRY).await?;
    let mut targets = Vec::new();
    for (name, target) in &config.targets {
        for org in &orgs {
            let consumer = consumers.get(&ingest_consumer(name, &org.key));
            targets.push(TargetLine {
                target: name.clone(),
                primary: target.primary,
                org: org.key.to_string(),
                consumer: consumer_line(consumer),
            });
        }
    }
    let of_raw = inspect::consumers(wire, streams::RAW).await?;
    // Also of a target that was told to by the flags of the service alone.
    let consumer_of = |name: &TargetName| of_raw.contains_key(&inspect::archive_consumer(name));
    let archiving =
        config.targets.iter().filter(|(name, target)| target.archives() || consumer_of(name));
    let archives = archiving
        .map(|(name, _)| {
            (name.clone(), consumer_line(of_raw.get(&inspect::archive_consumer(name))))
        })
        .collect();
    let dead_letters = letters(wire).await?;
    tokio::time::sleep(SAMPLE).await;
    let seconds = asked.elapsed().as_secs_f64();
    let after = report::gather(wire, ANSWER).await;
    Ok(Status {
        streams: lines,
        targets,
        normalize: consumer_line(of_raw.get(inspect::NORMALIZE)),
        archives,
        rates: rates(&before, &after, seconds),
        dead_letters,
        silent: report::silent(&after, !directory.pollers().is_empty()),
        unreadable: directory.unreadable().keys().cloned().collect(),
        services: after.into_iter().map(service_line).collect(),
    })
}

/// Bytes of a stream that somebody needs, and who needs what is too old.
async fn needed(
    wire: &Wire,
    config: &Config,
    state: &StreamState,
    orgs: &[Arc<Org>],
) -> anyhow::Result<(u64, Option<String>)> {
    if !retention::READINGS.contains(&state.name.as_str()) {
        return Ok((state.bytes, None));
    }
    let orgs: Vec<OrgKey> = orgs.iter().map(|org| org.key.clone()).collect();
    let held = retention::held(wire, &state.name).await?;
    // Before `migrate` has made the register, the rest is still worth saying.
    let Ok(register) = targets::list(wire).await else { return Ok((state.bytes, None)) };
    let applied = retention::applied(wire, &state.name, &held, &register, &orgs).await?;
    let history = i64::from(config.retention.history_hours) * 3_600_000_000;
    let before = connect::now_here().plus_micros(-history);
    let aged = retention::aged(wire, &state.name, before, &held).await?;
    let overdue = aged > applied.done && aged >= held.first && held.messages > 0;
    Ok((held.bytes_behind(applied.done), overdue.then_some(applied.slowest)))
}

fn stream_line(state: StreamState, needed: u64) -> StreamLine {
    StreamLine {
        fill: state.fill(),
        // What lets its oldest go refuses nothing; what is nearly empty tells no rate worth saying.
        outage_horizon_seconds: state
            .horizon(needed)
            .filter(|_| state.name != streams::EVENTS && state.fill() >= LEAST_FILL)
            .map(|horizon| horizon.as_secs()),
        overdue: None,
        name: state.name,
        messages: state.messages,
        bytes: state.bytes,
        max_bytes: state.max_bytes,
    }
}

fn consumer_line(consumer: Option<&ConsumerState>) -> ConsumerLine {
    consumer.map_or_else(ConsumerLine::default, |consumer| ConsumerLine {
        lag: Some(consumer.lag()),
        unacknowledged: consumer.unacknowledged,
        redelivered: consumer.redelivered,
    })
}

/// Letters by subject, with the last reason of the first few.
async fn letters(wire: &Wire) -> anyhow::Result<Vec<LettersLine>> {
    let mut lines: Vec<LettersLine> =
        inspect::letters(wire).await?.into_iter().map(letters_line).collect();
    for line in lines.iter_mut().take(LISTED_LETTERS) {
        if let Some(letter) = inspect::last_letter(wire, &line.subject).await? {
            line.last_reason = Some(letter.reason);
            line.last_detail = Some(letter.detail);
        }
    }
    Ok(lines)
}

fn letters_line((subject, letters): (String, usize)) -> LettersLine {
    let (stage, org, source) = match Subject::parse(&subject) {
        Some(Subject::Dead { stage, org, source }) => (stage, org, source),
        // The name of a sender was too long for a subject.
        _ => (Stage::Normalize.as_str().to_owned(), None, subject.clone()),
    };
    let (last_reason, last_detail) = (None, None);
    LettersLine { subject, stage, org, source, letters, last_reason, last_detail }
}

fn service_line(report: Report) -> ServiceLine {
    let Report { service, instance, version, holds, counters, details } = report;
    ServiceLine { service, instance, version, counters, details, held: holds }
}

/// Counters a second, between two rounds of the same instances.
fn rates(before: &[Report], after: &[Report], seconds: f64) -> BTreeMap<String, f64> {
    let mut rates = BTreeMap::new();
    for report in after {
        let Some(earlier) = before.iter().find(|earlier| earlier.instance == report.instance)
        else {
            continue;
        };
        for (name, count) in &report.counters {
            let grown = count.saturating_sub(earlier.counters.get(name).copied().unwrap_or(0));
            *rates.entry(name.clone()).or_insert(0.0) += grown as f64 / seconds;
        }
    }
    rates
}

fn print(status: &Status) {
    let mut table = Table::new(["stream", "messages", "MiB", "full", "refuses in"]);
    for line in &status.streams {
        let mib = line.bytes as f64 / f64::from(1 << 20);
        let horizon = line.outage_horizon_seconds.map_or("-".to_owned(), duration);
        let fill = format!("{:.1} %", line.fill * 100.0);
        let messages = line.messages.to_string();
        table.row([line.name.clone(), messages, format!("{mib:.1}"), fill, horizon]);
    }
    table.print();
    for line in &status.streams {
        if let Some(who) = &line.overdue {
            println!(
                "{}: {who} has not applied messages that are older than the history to be kept; they \
                 stay (a target that never comes back: haystack targets detach)",
                line.name
            );
        }
    }
    println!();
    let mut table = Table::new(["consumer", "org", "lag (messages)", "in work", "redelivered"]);
    let row = |name: String, org: &str, line: &ConsumerLine| {
        let lag = line.lag.map_or("no consumer".to_owned(), |lag| lag.to_string());
        let (work, again) = (line.unacknowledged.to_string(), line.redelivered.to_string());
        [name, org.to_owned(), lag, work, again]
    };
    table.row(row("normalize".to_owned(), "(all)", &status.normalize));
    for (name, line) in &status.archives {
        table.row(row(format!("archive of {name}"), "(all)", line));
    }
    for line in &status.targets {
        let role = if line.primary { " (primary)" } else { "" };
        table.row(row(format!("{}{role}", line.target), &line.org, &line.consumer));
    }
    table.print();
    println!();
    print_services(status);
    print_letters(status);
}

fn print_services(status: &Status) {
    for name in &status.silent {
        println!("NO ANSWER from {name}: none runs, or it hangs; what it has to do waits");
    }
    for subject in &status.unreadable {
        println!("UNREADABLE {subject}: a later release wrote this record of MODEL");
    }
    for line in &status.services {
        let counters: Vec<_> = line.counters.iter().map(|(k, v)| format!("{k} {v}")).collect();
        let counters = counters.join(", ");
        let since = if counters.is_empty() {
            String::new()
        } else {
            format!(", since its start: {counters}")
        };
        println!("{} ({}){since}", line.service, line.instance);
        for (name, text) in &line.details {
            println!("    {name}: {text}");
        }
    }
    let rates: Vec<_> = status.rates.iter().map(|(k, v)| format!("{k} {v:.0}")).collect();
    println!("a second: {}", rates.join(", "));
    let held: Vec<&Hold> = status.services.iter().flat_map(|line| &line.held).collect();
    if held.is_empty() {
        let by = if status.silent.is_empty() { "" } else { ", by what answers" };
        println!("nothing is held{by}");
    }
    for hold in held {
        println!("HELD {} since {}: {}", hold.what, hold.since, hold.why);
    }
}

fn print_letters(status: &Status) {
    if status.dead_letters.is_empty() {
        println!("no dead letters");
        return;
    }
    println!();
    let mut table = Table::new(["dead letters", "stage", "org", "source", "the last one"]);
    for line in status.dead_letters.iter().take(LISTED_LETTERS) {
        let org = line.org.clone().unwrap_or_default();
        let reason = line.last_reason.map_or("", Reason::as_str);
        let detail = shown(line.last_detail.as_deref().unwrap_or_default(), SHOWN_DETAIL);
        let (source, last) = (shown(&line.source, SHOWN_NAME), format!("{reason}: {detail}"));
        table.row([line.letters.to_string(), line.stage.clone(), org, source, last]);
    }
    table.print();
    println!("({})", crate::dead_letters::HINT);
    if status.dead_letters.len() > LISTED_LETTERS {
        println!("… and {} more sources (--json)", status.dead_letters.len() - LISTED_LETTERS);
    }
}

/// A text from outside on one line, cut where it is long.
fn shown(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut shown: String = text.chars().take(most).map(plain).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// A length of time for people.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
