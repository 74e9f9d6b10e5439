//! `haystack trace`: where one reading is, and how it got there.

use crate::{Globals, connect, databases};
use anyhow::Context;
use clap::Args;
use custody::{
    compare::Target,
    tell::{as_json, name_of},
    trace::{AROUND, Fate, MESSAGES, Message, Published, Reading, Received, Story, Tracer},
};
use domain::{DeviceId, EntityId, TargetName, Timestamp, directory::Directory};
use serde_json::Value;
use std::process::ExitCode;
use store::{Database, OrgRef};

#[derive(Args)]
#[command(after_help = "\
Examples:
  haystack trace --device TS-001-2024 --at 2026-11-20T10:00:00Z
  haystack trace --entity 17 --at 2026-11-20T10:00:00Z
  haystack trace RAW-1042-3          the fourth device message of that message of RAW
  haystack trace TELEMETRY-977       as POST /bulk/value answers
  haystack trace --request-id 0192d3a0-7b5e-7cc1-9f3a-3b1f6f0f8a10

Exit code 1: nothing was found, or a reading is nowhere.")]
pub(crate) struct TraceArgs {
    /// A message: RAW-SEQUENCE[-INDEX] or TELEMETRY-SEQUENCE
    #[arg(conflicts_with_all = ["device", "entity", "request_id"])]
    message: Option<String>,
    /// Readings of this device
    #[arg(long, requires = "at", conflicts_with = "entity")]
    device: Option<DeviceId>,
    /// Only this metric of it
    #[arg(long, requires = "device")]
    metric: Option<String>,
    /// A reading of this entity
    #[arg(long, requires = "at")]
    entity: Option<i32>,
    /// The moment of the reading, as the device gave it
    #[arg(long, value_parser = moment)]
    at: Option<Timestamp>,
    /// What this request to the API brought (`dq-request-id`), within the last day
    #[arg(long, conflicts_with_all = ["device", "entity"])]
    request_id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| "a moment is expected, e.g. 2026-11-20T10:00:00Z".to_owned())
}

pub(crate) async fn run(args: &TraceArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let directory = nats::model::load(&wire).await?;
    let mut databases = databases::targets(&config, "trace")?;
    let register = nats::targets::list(&wire).await?;
    databases.retain(|(name, _)| register.get(name).is_none_or(|it| it.detached.is_none()));
    databases.sort_by_key(|(name, _)| name != config.primary().0);
    let targets: Vec<Target<'_>> = databases
        .iter()
        .map(|(name, database): &(TargetName, Database)| Target { name, database })
        .collect();
    let tracer = Tracer { wire: &wire, directory: &directory, targets: &targets };
    let stories = stories(args, &tracer).await?;
    if stories.is_empty() {
        eprintln!("haystack: nothing was found");
    }
    if args.json {
        let stories: Vec<Value> = stories.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&stories)?);
    } else {
        for (number, story) in stories.iter().enumerate() {
            if number > 0 {
                println!();
            }
            print(story);
        }
    }
    let lost = stories.is_empty() || stories.iter().any(Story::is_lost);
    Ok(if lost { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn stories(args: &TraceArgs, tracer: &Tracer<'_>) -> anyhow::Result<Vec<Story>> {
    if let Some(message) = &args.message {
        let wrong =
            || format!("{message:?}: RAW-SEQUENCE[-INDEX] or TELEMETRY-SEQUENCE is expected");
        return Ok(tracer.message(Message::parse(message).with_context(wrong)?).await?);
    }
    if let Some(id) = &args.request_id {
        return Ok(tracer.request(id, connect::now_here()).await?);
    }
    let at = args.at.context("what? See `haystack trace --help`")?;
    if let Some(id) = args.entity {
        let (org, entity) = of_entity(tracer.directory, EntityId(id))?;
        let stories = tracer.keys(&org, &[(entity, at)]).await?;
        // No row: messages of its device may tell why.
        let devices = tracer.directory.devices(&org.key).into_iter();
        let mut of = devices.filter(|it| it.points.values().any(|point| point.entity == entity));
        return match of.next() {
            Some(device) if stories.is_empty() => by_device(args, tracer, &device.id, at).await,
            _ => Ok(stories),
        };
    }
    let device = args.device.as_ref().context("what? See `haystack trace --help`")?;
    by_device(args, tracer, device, at).await
}

fn of_entity(directory: &Directory, id: EntityId) -> anyhow::Result<(OrgRef, EntityId)> {
    let entity = directory.entity(id).with_context(|| format!("there is no entity {id}"))?;
    let org = directory.org_by_id(entity.org_id).context("its org is not registered")?;
    Ok((OrgRef { id: org.id, key: org.key.clone() }, id))
}

async fn by_device(
    args: &TraceArgs,
    tracer: &Tracer<'_>,
    id: &DeviceId,
    at: Timestamp,
) -> anyhow::Result<Vec<Story>> {
    if let Some(device) = tracer.directory.device(id) {
        let metrics: Vec<&String> = device.points.keys().collect();
        let points = device
            .points
            .iter()
            .filter(|(metric, _)| args.metric.as_ref().is_none_or(|only| only == *metric));
        let keys: Vec<_> = points.map(|(_, point)| (point.entity, at)).collect();
        anyhow::ensure!(!keys.is_empty(), "{id} has no such metric; it has {metrics:?}");
        let org = OrgRef { id: device.org_id, key: device.org.clone() };
        let stories = tracer.keys(&org, &keys).await?;
        if !stories.is_empty() {
            return Ok(stories);
        }
    }
    // No row: messages of that time that may have brought it, and what became of them.
    eprintln!(
        "haystack: no target has a row of {id} at {at}; messages of it that were accepted within ten \
         minutes:"
    );
    let span = (at.plus_micros(-AROUND), at.plus_micros(AROUND));
    let mut stories = Vec::new();
    for (sequence, index) in tracer.of_device(id.as_str(), span, MESSAGES).await? {
        stories.extend(tracer.raw(sequence, index).await?);
    }
    // Those that gave a reading of that moment, where some did.
    let exact = |story: &Story| story.readings.iter().any(|reading| reading.row.ts == at);
    if stories.iter().any(exact) {
        stories.retain(exact);
    }
    Ok(stories)
}

fn print(story: &Story) {
    if let Some(Received { origin, name, sender, received_at, content_type, bytes, archived }) =
        &story.received
    {
        let who = match sender {
            Some((org, device, kind, version)) => {
                format!("{device} (org {org}, {kind} version {version})")
            }
            None => format!("{name} (not registered when it came)"),
        };
        println!("received   {received_at} from {who}: {bytes} bytes of {content_type}");
        let from = if *archived { ", by now only in the archive" } else { "" };
        println!(
            "RAW        {}.{}, stored {}{from}",
            origin.sequence, origin.index, origin.accepted_at
        );
    }
    for Published { position, subject, revision, profile_version, request_id, readings } in
        &story.published
    {
        let replay = if *revision > 0 { format!(", by replay {revision}") } else { String::new() };
        let by = match profile_version {
            0 => String::new(),
            version => format!(", normalized by version {version}"),
        };
        let request = request_id.as_ref().map_or(String::new(), |id| format!(", request {id}"));
        println!(
            "TELEMETRY  {}, stored {}, {subject}: {readings} readings{by}{replay}{request}",
            position.sequence, position.stored_at
        );
    }
    if story.published.is_empty() {
        println!("TELEMETRY  no message with a reading of it is there (any more)");
    }
    if let Some(searched) = story.searched {
        println!("           ({searched} messages were searched)");
    }
    for (number, letter) in &story.letters {
        println!(
            "DEAD       letter {number}: {}, {} ({} attempts)",
            letter.reason, letter.detail, letter.attempts
        );
    }
    for Reading { entity, name, point, row, fates } in &story.readings {
        let name = match (point, name) {
            (Some((device, metric)), _) => format!(" ({device} {metric})"),
            (None, Some(name)) => format!(" ({name})"),
            (None, None) => String::new(),
        };
        println!("entity {entity}{name} at {}: {}", row.ts, values(&row.values));
        for (target, fate) in fates {
            println!("  {:<10} {}", target.to_string(), told(fate));
        }
    }
    if story.more > 0 {
        println!("… and {} more readings", story.more);
    }
}

fn values(values: &domain::Values) -> String {
    let all = [
        values.n.map(|n| n.to_string()),
        values.b.map(|b| b.to_string()),
        values.s.as_ref().map(|s| format!("{s:?}")),
        values.ts.map(|ts| ts.to_string()),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { "no value".to_owned() } else { all.join(", ") }
}

fn told(fate: &Fate) -> String {
    match fate {
        Fate::Stored { committed_at, changed } => {
            let at = committed_at.map_or_else(
                || "committed (when is not kept: track_commit_timestamp)".to_owned(),
                |at| format!("committed {at}"),
            );
            let changed = if *changed {
                "; its values were CHANGED since, by no message (haystack verify --repair mends it where targets \
                 differ; haystack replay of that time does where all were changed alike)"
            } else {
                ""
            };
            format!("stored, {at}{changed}")
        }
        Fate::Superseded(by) => format!("superseded by {}", name_of(*by)),
        Fate::Deleted(by) => format!("deleted by {}", name_of(*by)),
        Fate::Refused(letter) => format!("refused: letter {letter} (haystack dead-letters show)"),
        Fate::InFlight => "on its way".to_owned(),
        Fate::Lost => {
            "NOWHERE: the target is past its message (haystack verify --repair)".to_owned()
        }
        Fate::Unknown(why) => format!("does not answer: {why}"),
    }
}
