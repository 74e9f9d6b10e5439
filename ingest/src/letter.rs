//! What a letter about a refused row or an unreadable message says.

use domain::{
    Batch, DeviceId, Letter, Position, Reason, Row, RowVersion, Stage, TargetName, Timestamp,
    letter::Source, subject::Subject,
};
use nats::{Delivery, letters::Retried, streams::TELEMETRY};
use serde_json::{Value, json};
use store::{Fault, OrgRef};

/// Where a refused row stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Its message's sequence.
    pub(crate) sequence: u64,
    /// The how-manieth of the message's rows it is.
    pub(crate) row: u32,
    /// Its device, or else who produced the message.
    pub(crate) sender: String,
    /// How often it was tried before.
    pub(crate) attempts: u32,
}

impl From<Retried> for Place {
    fn from(retried: Retried) -> Self {
        let Retried { attempts, sequence, row, sender } = retried;
        Self { sequence, row, sender, attempts }
    }
}

/// Finds a row in its message again: of equal ones the last, which is the one that counted.
pub(crate) fn find(
    batch: &Batch,
    position: Position,
    row: &Row,
) -> Option<(u32, Option<DeviceId>)> {
    let (mut number, mut found) = (0, None);
    for group in &batch.groups {
        let origin = group.origin.unwrap_or(position.as_origin());
        let same = RowVersion::new(&origin, group.revision) == Ok(row.version);
        for sample in &group.samples {
            if same && (sample.entity, sample.ts) == (row.entity, row.ts) {
                found = Some((number, group.device.clone()));
            }
            number += 1;
        }
    }
    found
}

/// Who produced a message, by its subject.
pub(crate) fn producer(delivery: &Delivery) -> String {
    match Subject::parse(delivery.subject()) {
        Some(Subject::Telemetry { source, .. }) => source,
        _ => delivery.subject().to_owned(),
    }
}

/// About a row that the database refuses alone, while it takes others.
pub(crate) fn refused(
    (target, org): (&TargetName, &OrgRef),
    place: Place,
    row: &Row,
    fault: &Fault,
    at: Timestamp,
) -> Letter {
    let (origin, revision) = row.version.unpack();
    Letter {
        row: Some(as_json(row).to_string()),
        origin: Some(origin),
        revision: revision.0,
        ..blank((target, org), place, Reason::RefusedByDatabase, fault.reason.clone(), at)
    }
}

/// About a message that can't be read.
pub(crate) fn unreadable(
    names: (&TargetName, &OrgRef),
    delivery: &Delivery,
    why: &str,
    at: Timestamp,
) -> Letter {
    let sequence = delivery.position().sequence;
    let place = Place { sequence, row: 0, sender: producer(delivery), attempts: 0 };
    blank(names, place, Reason::Undecodable, why.to_owned(), at)
}

fn blank(
    (target, org): (&TargetName, &OrgRef),
    place: Place,
    reason: Reason,
    detail: String,
    at: Timestamp,
) -> Letter {
    Letter {
        stage: Stage::Ingest,
        target: Some(target.clone()),
        source: Source { stream: TELEMETRY.to_owned(), sequence: place.sequence, row: place.row },
        org: Some(org.key.clone()),
        sender: place.sender,
        reason,
        detail,
        row: None,
        origin: None,
        revision: 0,
        attempts: place.attempts.saturating_add(1),
        at,
        attachments: Vec::new(),
        many: Vec::new(),
        taken_for: None,
        waiting: None,
        dropped: None,
    }
}

/// A row's columns. A number that JSON lacks becomes a text.
fn as_json(row: &Row) -> Value {
    let number = |n: f64| if n.is_finite() { json!(n) } else { json!(n.to_string()) };
    let time = |time: Timestamp| time.to_string();
    json!({
        "entity_id": row.entity,
        "ts": time(row.ts),
        "value_n": row.values.n.map(number),
        "value_b": row.values.b,
        "value_s": row.values.s,
        "value_ts": row.values.ts.map(time),
        "accepted_at": time(row.version.accepted_at),
        "version": row.version.packed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EntityId, Group, Origin, OriginStream, Revision, Sample, Values};

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn group(index: Option<u16>, samples: &[(i32, i64)]) -> Group {
        let origin = |index| {
            let (stream, accepted_at) = (OriginStream::Raw, at(7));
            Origin { stream, sequence: 40, index, accepted_at }
        };
        let sample = |&(entity, ts): &(i32, i64)| Sample {
            entity: EntityId(entity),
            ts: at(ts),
            values: Values::text("a\0b"),
        };
        Group {
            origin: index.map(origin),
            revision: Revision(0),
            device: index.map(|index| DeviceId::parse(&format!("TS-{index}")).unwrap()),
            profile_version: 1,
            samples: samples.iter().map(sample).collect(),
        }
    }

    #[test]
    fn a_row_is_found_by_version_and_key_and_the_last_of_equals_counts() {
        let groups = vec![
            group(Some(0), &[(1, 1), (1, 2)]),
            group(Some(1), &[(1, 1), (2, 1), (1, 1)]),
            group(None, &[(1, 1)]),
        ];
        let batch = Batch { groups, ..Batch::default() };
        let position = Position { sequence: 90, stored_at: at(9) };
        let mut work = domain::Work::default();
        work.add(batch.clone(), position).unwrap();
        let places = [(0, Some("TS-0")), (1, Some("TS-0")), (4, Some("TS-1")), (3, Some("TS-1"))];
        let rows = [&work.rows[0], &work.rows[1], &work.rows[2], &work.rows[3]];
        for (row, (number, device)) in rows.into_iter().zip(places) {
            let device = device.map(|device| DeviceId::parse(device).unwrap());
            assert_eq!(find(&batch, position, row), Some((number, device)));
        }
        assert_eq!(find(&batch, position, &work.rows[5]), Some((5, None)));
        let elsewhere = Position { sequence: 91, ..position };
        assert_eq!(find(&batch, elsewhere, &work.rows[5]), None);
    }

    #[test]
    fn a_row_with_anything_in_it_has_a_form_in_json() {
        let mut work = domain::Work::default();
        let position = Position { sequence: 90, stored_at: at(9) };
        let mut group = group(None, &[(1, 1)]);
        group.samples[0].values.n = Some(f64::NAN);
        work.add(Batch { groups: vec![group], ..Batch::default() }, position).unwrap();
        let json = as_json(&work.rows[0]);
        assert_eq!(json["value_s"], "a\0b");
        assert_eq!(json["value_n"], "NaN");
        assert_eq!(json["ts"], "1970-01-01T00:00:00.000001Z");
    }
}
