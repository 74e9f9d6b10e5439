//! What a replay would change, told for people.

use crate::{databases, table::Table};
use custody::{
    compare::Target,
    preview::{Changes, Preview, Question, Sample},
    tell::{day, preview_as_json, value},
};
use domain::{EntityId, directory::Directory, replay::Spec};
use nats::Wire;
use service::Config;
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

/// Lines of the table.
const LINES: usize = 60;

/// Looks, and tells.
pub(super) async fn run(
    config: &Config,
    wire: &Wire,
    directory: &Directory,
    spec: Spec,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let (name, settings) = config.primary();
    let database = databases::open(config, &settings.url, "replay")?;
    let primary = Target { name, database: &database };
    let question = Question { wire, primary, directory, limits: config.time_limits() };
    let began = Instant::now();
    let mut progress = |share: f64, taken: u64| {
        if !as_json {
            eprint!("\r{:.0} % looked at, {taken} messages\x1b[K", share * 100.0);
        }
    };
    let preview = question.ask(spec, &mut progress).await?;
    if as_json {
        let told = preview_as_json(&preview, directory, usize::MAX);
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else {
        eprintln!();
        tell(&preview, directory, began.elapsed());
    }
    Ok(ExitCode::SUCCESS)
}

fn name(directory: &Directory, entity: EntityId) -> String {
    let known = directory.entity(entity);
    known.map_or_else(|| entity.to_string(), |it| format!("{} ({entity})", it.name))
}

fn tell(preview: &Preview, directory: &Directory, took: Duration) {
    let tally = &preview.tally;
    let head = ["org", "point", "day (UTC)", "added", "changed", "removed", "unchanged"];
    let mut table = Table::new(head);
    let lines: Vec<_> = tally.by_day.iter().filter(|(_, changes)| changes.any()).collect();
    for ((org, entity, at), Changes { added, changed, removed, unchanged }) in
        lines.iter().take(LINES)
    {
        table.row([
            org.to_string(),
            name(directory, *entity),
            day(*at),
            added.to_string(),
            changed.to_string(),
            removed.to_string(),
            unchanged.to_string(),
        ]);
    }
    if !table.is_empty() {
        table.print();
    }
    if lines.len() > LINES {
        println!("… and {} more days of points (--json names all)", lines.len() - LINES);
    }
    for Sample { key: (entity, ts), before, after, .. } in &tally.samples {
        let (before, after) = (value(before.as_ref()), value(after.as_ref()));
        println!("{} {ts}: {before} → {after}", name(directory, *entity));
    }
    let Changes { added, changed, removed, unchanged } = tally.sum();
    println!(
        "\n{} messages: {added} rows would be added, {changed} changed, {removed} removed, \
         {unchanged} stay as they are; nothing was changed",
        preview.counts.taken
    );
    if let Some(failure) = &preview.last_failure {
        println!("{} messages fail, the last: {failure}", preview.counts.failed);
    }
    match (preview.pace, preview.seconds()) {
        (Some((id, _)), Some(seconds)) => {
            println!("it would take about {seconds:.0} s, at the pace of replay {id}");
        }
        _ => println!(
            "how long it would take is not known: no replay of 10,000 readings was done here yet (looking took {:.1} s)",
            took.as_secs_f64()
        ),
    }
}
