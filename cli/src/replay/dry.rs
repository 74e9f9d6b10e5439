//! What a replay would change, held against the primary, without changing it.

use crate::{databases, table::Table};
use anyhow::Context;
use bridge::replay::preview::{Preview, Would};
use domain::{
    EntityId, OrgKey, Row, RowVersion, Timestamp, Values,
    directory::Directory,
    replay::{Spec, State},
};
use nats::{Wire, replays};
use serde_json::json;
use service::Config;
use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    time::{Duration, Instant},
};
use store::{Database, OrgRef};

/// Changes that are shown one by one.
const SAMPLES: usize = 10;
/// Lines of the table.
const LINES: usize = 60;
/// Replays that are looked at for how fast one is.
const LOOKED_BACK: u16 = 20;
const MICROS_A_DAY: i64 = 86_400_000_000;

type Key = (EntityId, Timestamp);

/// What would become of rows of a point on a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Changes {
    added: u64,
    changed: u64,
    removed: u64,
    unchanged: u64,
}

impl Changes {
    fn plus(self, more: &Self) -> Self {
        Self {
            added: self.added + more.added,
            changed: self.changed + more.changed,
            removed: self.removed + more.removed,
            unchanged: self.unchanged + more.unchanged,
        }
    }

    fn any(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }
}

/// A row that would be another.
struct Sample {
    org: OrgKey,
    key: Key,
    before: Option<Values>,
    after: Option<Values>,
}

#[derive(Default)]
struct Tally {
    /// By org, point and day since 1970.
    by_day: BTreeMap<(OrgKey, EntityId, i64), Changes>,
    samples: Vec<Sample>,
}

impl Tally {
    fn note(&mut self, org: &OrgKey, key: Key, before: Option<&Values>, after: Option<&Values>) {
        let day = key.1.micros().div_euclid(MICROS_A_DAY);
        let changes = self.by_day.entry((org.clone(), key.0, day)).or_default();
        match (before, after) {
            (None, Some(_)) => changes.added += 1,
            (Some(_), None) => changes.removed += 1,
            (Some(a), Some(b)) if !same(a, b) => changes.changed += 1,
            _ => {
                changes.unchanged += 1;
                return;
            }
        }
        if self.samples.len() < SAMPLES {
            let (before, after) = (before.cloned(), after.cloned());
            self.samples.push(Sample { org: org.clone(), key, before, after });
        }
    }

    fn sum(&self) -> Changes {
        self.by_day.values().fold(Changes::default(), Changes::plus)
    }

    /// What some messages would change of what the primary holds.
    fn compare(
        &mut self,
        org: &OrgKey,
        rows: &[Row],
        gone: &[(EntityId, Timestamp, RowVersion)],
        held: &HashMap<Key, Row>,
    ) {
        for row in rows {
            let key = (row.entity, row.ts);
            let there = held.get(&key);
            // What came later stays.
            let after = there.filter(|there| there.version > row.version).unwrap_or(row);
            self.note(org, key, there.map(|there| &there.values), Some(&after.values));
        }
        for (entity, ts, version) in gone {
            let key = (*entity, *ts);
            if let Some(there) = held.get(&key).filter(|there| there.version < *version) {
                self.note(org, key, Some(&there.values), None);
            }
        }
    }
}

/// Whether two rows say the same; a number that is none is equal to itself.
fn same(a: &Values, b: &Values) -> bool {
    let bits = |n: f64| if n.is_nan() { f64::NAN.to_bits() } else { (n + 0.0).to_bits() };
    (a.n.map(bits), a.b, &a.s, a.ts) == (b.n.map(bits), b.b, &b.s, b.ts)
}

/// Looks, and tells.
pub(super) async fn run(
    config: &Config,
    wire: &Wire,
    directory: &Directory,
    spec: Spec,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let database = databases::open(config, &config.primary().1.url, "replay")?;
    let orgs = store::read::orgs(&database).await.context("the primary")?;
    let mut preview = Preview::open(wire.clone(), spec, bridge::time_limits(config)).await?;
    let (began, mut tally) = (Instant::now(), Tally::default());
    while let Some(would) = preview.next(directory).await? {
        compare(&database, &orgs, would, &mut tally).await?;
        if !as_json {
            let share = preview.share() * 100.0;
            eprint!("\r{share:.0} % looked at, {} messages\x1b[K", preview.counts.taken);
        }
    }
    let pace = pace(wire).await?;
    if as_json {
        println!("{}", serde_json::to_string_pretty(&shown(&tally, &preview, directory, pace))?);
    } else {
        eprintln!();
        tell(&tally, &preview, directory, (pace, began.elapsed()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn compare(
    database: &Database,
    orgs: &[OrgRef],
    mut would: Would,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    for (key, rows) in would.rows {
        let gone = would.gone.remove(&key).unwrap_or_default();
        let gone_keys = gone.iter().map(|(entity, ts, _)| (*entity, *ts));
        let keys: Vec<Key> = rows.iter().map(|row| (row.entity, row.ts)).chain(gone_keys).collect();
        let held = match orgs.iter().find(|org| org.key == key) {
            Some(org) => store::read::at(database, org, &keys).await.context("the primary")?,
            // The primary does not know it yet: all of it is new.
            None => Vec::new(),
        };
        let held = held.into_iter().map(|row| ((row.entity, row.ts), row)).collect();
        tally.compare(&key, &rows, &gone, &held);
    }
    Ok(())
}

/// The last replay that gave readings, and how many a second.
async fn pace(wire: &Wire) -> anyhow::Result<Option<(u16, f64)>> {
    let newest = replays::newest(wire).await?;
    for id in (1..=newest).rev().take(LOOKED_BACK.into()) {
        let Some(kept) = replays::get(wire, id).await? else { continue };
        let replay = kept.replay;
        let micros = replay.touched_at.micros() - replay.began_at.micros();
        if replay.state == State::Done && replay.counts.readings > 0 && micros > 0 {
            return Ok(Some((id, replay.counts.readings as f64 / (micros as f64 / 1e6))));
        }
    }
    Ok(None)
}

fn name(directory: &Directory, entity: EntityId) -> String {
    let known = directory.entity(entity);
    known.map_or_else(|| entity.to_string(), |it| format!("{} ({entity})", it.name))
}

fn day(day: i64) -> String {
    let at = Timestamp::EPOCH.plus_micros(day * MICROS_A_DAY).to_string();
    at.split('T').next().unwrap_or_default().to_owned()
}

fn value(values: Option<&Values>) -> String {
    let Some(values) = values else { return "nothing".to_owned() };
    let texts = [
        values.n.map(|n| n.to_string()),
        values.b.map(|b| b.to_string()),
        values.s.as_ref().map(ToString::to_string),
        values.ts.map(|ts| ts.to_string()),
    ];
    texts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn tell(
    tally: &Tally,
    preview: &Preview,
    directory: &Directory,
    (pace, took): (Option<(u16, f64)>, Duration),
) {
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
    match pace {
        Some((id, readings)) => {
            let seconds = preview.counts.readings as f64 / readings;
            println!("it would take about {seconds:.0} s, at the pace of replay {id}");
        }
        None => println!(
            "how long it would take is not known: no replay was done here yet (looking took {:.1} s)",
            took.as_secs_f64()
        ),
    }
}

fn shown(
    tally: &Tally,
    preview: &Preview,
    directory: &Directory,
    pace: Option<(u16, f64)>,
) -> serde_json::Value {
    let days = tally.by_day.iter().map(|((org, entity, at), changes)| {
        let Changes { added, changed, removed, unchanged } = changes;
        json!({ "org": org, "entity_id": entity, "point": name(directory, *entity),
            "day": day(*at), "added": added, "changed": changed, "removed": removed,
            "unchanged": unchanged })
    });
    let samples = tally.samples.iter().map(|sample| {
        let Sample { org, key: (entity, ts), before, after } = sample;
        json!({ "org": org, "entity_id": entity, "ts": ts.to_string(),
            "before": before.as_ref().map(|it| value(Some(it))),
            "after": after.as_ref().map(|it| value(Some(it))) })
    });
    let Changes { added, changed, removed, unchanged } = tally.sum();
    json!({
        "messages": preview.counts.taken,
        "added": added,
        "changed": changed,
        "removed": removed,
        "unchanged": unchanged,
        "failed": preview.counts.failed,
        "last_failure": preview.last_failure,
        "seconds": pace.map(|(_, readings)| preview.counts.readings as f64 / readings),
        "days": days.collect::<Vec<_>>(),
        "samples": samples.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Origin, OriginStream, Revision};

    fn row(second: i64, sequence: u64, n: f64) -> Row {
        let accepted_at = Timestamp::EPOCH.plus_micros(sequence as i64);
        let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at };
        Row {
            entity: EntityId(1),
            ts: Timestamp::EPOCH.plus_micros(second * 1_000_000),
            version: RowVersion::new(&origin, Revision(1)).unwrap(),
            values: Values::number(n),
        }
    }

    #[test]
    fn what_is_newer_stays_and_the_rest_is_told_apart() {
        let org = OrgKey::parse("demo").unwrap();
        let held = [row(1, 5, 1.0), row(2, 5, 2.0), row(3, 9, 3.0), row(4, 5, 4.0), row(5, 9, 5.0)];
        let held = held.into_iter().map(|row| ((row.entity, row.ts), row)).collect();
        let would = [row(1, 5, 1.0), row(2, 5, 2.5), row(3, 6, 7.0), row(9, 6, 9.0)];
        let gone = [row(4, 6, 0.0), row(5, 6, 0.0)].map(|row| (row.entity, row.ts, row.version));
        let mut tally = Tally::default();
        tally.compare(&org, &would, &gone, &held);
        let sum = tally.sum();
        assert_eq!(sum, Changes { added: 1, changed: 1, removed: 1, unchanged: 2 });
        assert_eq!(tally.samples.len(), 3);
    }
}
