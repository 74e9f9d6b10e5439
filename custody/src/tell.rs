//! Stories, gaps and ledgers as programs read them.

use crate::{
    backfill::Progress,
    compare::Target,
    gaps::{Gap, Source, Why},
    ledger::{Account, Entries, Hop, Ledger},
    preview::{Changes, Preview, Sample},
    trace::{Fate, Story},
};
use domain::{
    OrgId, OrgKey, OriginStream, RowVersion, TargetName, Timestamp, Values, directory::Directory,
};
use serde_json::{Value, json};
use store::OrgRef;

/// Characters of a text that is shown.
const SHOWN: usize = 200;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// The message that gave a version, for people and programs.
pub fn name_of(version: RowVersion) -> String {
    let (origin, revision) = version.unpack();
    let stream = match origin.stream {
        OriginStream::Raw => format!("RAW-{}-{}", origin.sequence, origin.index),
        OriginStream::Telemetry => format!("TELEMETRY-{}", origin.sequence),
    };
    let replay = if revision.0 > 0 { format!(" by replay {}", revision.0) } else { String::new() };
    format!("{stream}{replay}, accepted {}", origin.accepted_at)
}

fn fate(fate: &Fate) -> Value {
    match fate {
        Fate::Stored { committed_at, changed } => json!({
            "fate": "stored",
            "committed_at": committed_at.map(|at| at.to_string()),
            "changed": changed,
        }),
        Fate::Superseded(by) => json!({ "fate": "superseded", "by": name_of(*by) }),
        Fate::Deleted(by) => json!({ "fate": "deleted", "by": name_of(*by) }),
        Fate::Refused(letter) => json!({ "fate": "refused", "letter": letter }),
        Fate::InFlight => json!({ "fate": "in_flight" }),
        Fate::Lost => json!({ "fate": "lost" }),
        Fate::Unknown(why) => json!({ "fate": "unknown", "why": why }),
    }
}

/// A story, as programs read it.
pub fn as_json(story: &Story) -> Value {
    let received = story.received.as_ref().map(|received| {
        json!({
            "message": format!("RAW-{}-{}", received.origin.sequence, received.origin.index),
            "stored_at": received.origin.accepted_at.to_string(),
            "name": received.name,
            "org": received.sender.as_ref().map(|sender| &sender.0),
            "device": received.sender.as_ref().map(|sender| &sender.1),
            "device_type": received.sender.as_ref().map(|sender| &sender.2),
            "profile_version": received.sender.as_ref().map(|sender| sender.3),
            "received_at": received.received_at.to_string(),
            "content_type": received.content_type,
            "bytes": received.bytes,
            "archived": received.archived,
        })
    });
    let published = story.published.iter().map(|published| {
        json!({
            "message": format!("TELEMETRY-{}", published.position.sequence),
            "stored_at": published.position.stored_at.to_string(),
            "subject": published.subject,
            "revision": published.revision,
            "profile_version": published.profile_version,
            "request_id": published.request_id,
            "readings": published.readings,
        })
    });
    let readings = story.readings.iter().map(|reading| {
        let fates = reading.fates.iter().map(|(target, it)| (target.to_string(), fate(it)));
        json!({
            "entity_id": reading.entity,
            "name": reading.name,
            "device": reading.point.as_ref().map(|point| &point.0),
            "metric": reading.point.as_ref().map(|point| &point.1),
            "ts": reading.row.ts.to_string(),
            "value_n": reading.row.values.n,
            "value_b": reading.row.values.b,
            "value_s": reading.row.values.s,
            "value_ts": reading.row.values.ts.map(|ts| ts.to_string()),
            "version": name_of(reading.row.version),
            "targets": fates.collect::<serde_json::Map<_, _>>(),
        })
    });
    let letters = story.letters.iter().map(|(number, letter)| {
        json!({
            "number": number,
            "reason": letter.reason,
            "detail": letter.detail,
            "attempts": letter.attempts,
            "target": letter.target,
        })
    });
    json!({
        "received": received,
        "published": published.collect::<Vec<_>>(),
        "readings": readings.collect::<Vec<_>>(),
        "more_readings": story.more,
        "letters": letters.collect::<Vec<_>>(),
        "searched": story.searched,
    })
}

/// Where readings stopped, for people.
pub fn why(gap: &Gap) -> String {
    match (&gap.why, &gap.source) {
        (Why::Behind(by), _) => {
            format!("the primary is {} s behind (haystack status)", by.as_secs())
        }
        (Why::Dead(count, reason), _) => {
            format!("{count} dead letters, the last: {reason} (haystack dead-letters list)")
        }
        (Why::NotOfThisPoint(count), _) => {
            format!("the device sent {count} messages without it (haystack trace)")
        }
        (Why::Silent, Source::Device { device, sender, .. }) if device != sender => {
            format!("the gateway {sender} sent nothing")
        }
        (Why::Silent, _) => "the device sent nothing".to_owned(),
        (Why::NothingCame, _) => {
            "nobody's message came: all were silent, or bridge, broker or stream server was away"
                .to_owned()
        }
        (Why::Stopped, Source::Simulator(id)) => {
            format!("simulator {id} stood still, or its rows were taken away")
        }
        (Why::Stopped | Why::NotPosted, _) => "nobody posted it".to_owned(),
    }
}

/// A gap, as programs read it.
pub fn gap_as_json(org: &OrgKey, gap: &Gap) -> Value {
    let (device, metric, simulator) = match &gap.source {
        Source::Device { device, metric, .. } => (Some(device), Some(metric), None),
        Source::Simulator(id) => (None, None, Some(id)),
        Source::Other => (None, None, None),
    };
    let stopped = match &gap.why {
        Why::Behind(_) => "target_behind",
        Why::Dead(..) => "dead_letters",
        Why::NotOfThisPoint(_) => "not_of_this_point",
        Why::Silent => "device_silent",
        Why::NothingCame => "nothing_came",
        Why::Stopped => "simulator_stopped",
        Why::NotPosted => "not_posted",
    };
    json!({
        "org": org,
        "entity_id": gap.entity,
        "name": gap.name,
        "device": device,
        "metric": metric,
        "simulator_id": simulator,
        "interval_seconds": gap.interval.as_secs_f64(),
        "after": gap.after.map(|at| at.to_string()),
        "until": gap.until.map(|at| at.to_string()),
        "missing": gap.missing,
        "why": stopped,
        "detail": why(gap),
    })
}

/// The ledger, as programs read it.
pub fn ledger_as_json(ledger: &Ledger, directory: &Directory) -> Value {
    let org = |id: OrgId| directory.org_by_id(id).map(|org| org.key.to_string());
    let target = |(name, account): &(TargetName, Account)| {
        let hours = account.hours.iter().map(|hour| {
            json!({
                "hour": hour.hour.to_string(),
                "org": org(hour.org),
                "org_id": hour.org,
                "messages": hour.messages,
                "readings": hour.readings,
                "stored": hour.fates.stored,
                "superseded": hour.fates.superseded,
                "duplicate": hour.fates.duplicate,
                "deleted": hour.fates.deleted,
                "dead": hour.fates.dead,
            })
        });
        let off = account.off.iter().map(|(id, hour, readings)| {
            json!({ "hour": hour.to_string(), "org": org(*id), "readings": readings })
        });
        let rows = account.rows.iter().map(
            |(org, rows)| json!({ "org": org.key, "counted": rows.counted, "found": rows.found }),
        );
        json!({
            "target": name,
            "hop": hop_as_json(&account.hop),
            "hours": hours.collect::<Vec<_>>(),
            "off": off.collect::<Vec<_>>(),
            "rows": rows.collect::<Vec<_>>(),
            "balanced": account.is_balanced(),
        })
    };
    json!({
        "balanced": ledger.is_balanced() && ledger.away.is_empty(),
        "away": ledger.away.iter().map(|(name, why)| json!({ "target": name, "why": why }))
            .collect::<Vec<_>>(),
        "normalize": hop_as_json(&ledger.raw),
        "device_messages": ledger.entries.as_ref().map(entries_as_json),
        "targets": ledger.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

fn entries_as_json(entries: &Entries) -> Value {
    let hours = entries.hours.iter().map(|((hour, org), counts)| {
        json!({
            "hour": hour.to_string(),
            "org": org,
            "accepted": counts.accepted,
            "normalized": counts.normalized,
            "dead": counts.dead,
            "explained": counts.explained,
            "in_flight": counts.in_flight,
            "let_go": counts.let_go,
            "unaccounted": counts.unaccounted,
        })
    });
    let missing = entries.missing.iter().map(|(sequence, index)| format!("RAW-{sequence}-{index}"));
    json!({ "hours": hours.collect::<Vec<_>>(), "unaccounted": missing.collect::<Vec<_>>() })
}

fn hop_as_json(hop: &Hop) -> Value {
    let unaccounted = hop
        .unaccounted
        .iter()
        .map(|(sequence, what)| json!({ "sequence": sequence, "what": what }));
    json!({
        "since": hop.since,
        "accepted": hop.accepted,
        "applied": hop.applied,
        "explained": hop.explained,
        "settled": hop.settled,
        "in_flight": hop.in_flight,
        "unaccounted": unaccounted.collect::<Vec<_>>(),
        "more_unaccounted": hop.more,
    })
}

/// A day since 1970, e.g. `2026-11-20`.
pub fn day(day: i64) -> String {
    let at = Timestamp::EPOCH.plus_micros(day * MICROS_A_DAY).to_string();
    at.split('T').next().unwrap_or_default().to_owned()
}

/// A row's values in one text.
pub fn value(values: Option<&Values>) -> String {
    let Some(values) = values else { return "nothing".to_owned() };
    let texts = [
        values.n.map(|n| n.to_string()),
        values.b.map(|b| b.to_string()),
        values.s.as_ref().map(ToString::to_string),
        values.ts.map(|ts| ts.to_string()),
    ];
    let text = texts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// What a replay would change, as programs read it; of at most so many points and days.
pub fn preview_as_json(preview: &Preview, directory: &Directory, most: usize) -> Value {
    let name = |entity| directory.entity(entity).map(|entity| entity.name.clone());
    let Preview { tally, counts, last_failure, .. } = preview;
    let days = tally.by_day.iter().take(most).map(|((org, entity, at), changes)| {
        let Changes { added, changed, removed, unchanged } = changes;
        json!({ "org": org, "entity_id": entity, "point": name(*entity),
            "day": day(*at), "added": added, "changed": changed, "removed": removed,
            "unchanged": unchanged })
    });
    let samples = tally.samples.iter().map(|Sample { org, key: (entity, ts), before, after }| {
        json!({ "org": org, "entity_id": entity, "ts": ts.to_string(),
            "before": before.as_ref().map(|it| value(Some(it))),
            "after": after.as_ref().map(|it| value(Some(it))) })
    });
    let Changes { added, changed, removed, unchanged } = tally.sum();
    json!({
        "messages": counts.taken,
        "added": added,
        "changed": changed,
        "removed": removed,
        "unchanged": unchanged,
        "failed": counts.failed,
        "last_failure": last_failure,
        "seconds": preview.seconds(),
        "days": days.collect::<Vec<_>>(),
        "more_days": tally.by_day.len().saturating_sub(most),
        "samples": samples.collect::<Vec<_>>(),
    })
}

/// How far a backfill is, for people.
pub fn filling(org: &OrgRef, to: Target<'_>, done: Progress) -> String {
    format!(
        "org {}: {} of about {} rows, {} new in {}",
        org.key, done.looked_at, done.all, done.written, to.name
    )
}

/// What a backfill did, as programs read it.
pub fn filled_as_json(filled: &[(OrgRef, Progress)]) -> Value {
    let org = |(org, done): &(OrgRef, Progress)| {
        json!({
            "org": org.key,
            "looked_at": done.looked_at,
            "written": done.written,
            "deletions": done.deletions,
            "presences": done.presences,
            "transactions": done.ends,
            "refused": done.refused,
        })
    };
    json!({ "orgs": filled.iter().map(org).collect::<Vec<_>>() })
}
