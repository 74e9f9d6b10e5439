//! A row that a database refused, or a message that ingest could not read, once more into `TELEMETRY`: under
//! its own version, so that the targets that have it already stay as they are.

use super::{Failed, away};
use crate::Shared;
use domain::{
    Batch, Clock, EntityId, Group, Letter, OrgKey, Position, Reason, Revision, Sample, SystemClock,
    TargetName, Timestamp, Values, letter::Waiting, subject::Subject,
};
use nats::{
    PublishFault, envelope,
    letters::{self, Filed, Filter, Original, RETRIED, Retried},
    micro::Refusal,
    outcome,
    publish::{Outgoing, publish},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Who produces what is tried again: the last token of its subject.
pub(super) const SOURCE: &str = "redrive";
/// How long the target has to tell what became of it.
const OUTCOME: Duration = Duration::from_secs(6);
/// First and longest pause between two looks.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// Letters that are looked at to find the one that was written meanwhile.
const LOOKS: usize = 10_000;

/// What became of it.
pub(super) enum Outcome {
    Stored,
    Refused(Box<Failed>),
    Waiting(Waiting),
}

pub(super) async fn again(shared: &Shared, letter: &Letter) -> Result<Outcome, Refusal> {
    let (Some(target), Some(org)) = (&letter.target, &letter.org) else {
        return Err(Refusal::new(
            409,
            "the letter names no target and org: it can't be tried again",
        ));
    };
    if let Some(waiting) = letter.waiting {
        return outcome_of(shared, (target, org), letter, waiting).await;
    }
    let found = letters::original(&shared.wire, letter).await.map_err(|fault| away(&fault))?;
    if letter.reason == Reason::Undecodable {
        let Original { position, body, .. } = found.ok_or_else(gone)?;
        return match envelope::decode::<Batch>(&body) {
            Err(fault) => {
                let again = letter.again(letter.reason, fault.to_string(), SystemClock.now());
                Ok(Outcome::Refused(Failed { letter: again, number: None }.into()))
            }
            Ok(batch) => {
                send(shared, org, letter, &placed(batch, position), false).await?;
                Ok(Outcome::Stored)
            }
        };
    }
    let group = match found.and_then(|found| envelope::decode::<Batch>(&found.body).ok()) {
        Some(batch) => of_batch(&batch, letter),
        None => of_text(letter),
    };
    let group = group.ok_or_else(gone)?;
    let behind = letters::newest(&shared.wire).await.map_err(|fault| away(&fault))?;
    let batch = Batch { groups: vec![group], ..Batch::default() };
    let sequence = send(shared, org, letter, &batch, true).await?;
    outcome_of(shared, (target, org), letter, Waiting { sequence, behind }).await
}

async fn outcome_of(
    shared: &Shared,
    (target, org): (&TargetName, &OrgKey),
    letter: &Letter,
    waiting: Waiting,
) -> Result<Outcome, Refusal> {
    if !told(shared, target, org, waiting.sequence).await {
        return Ok(Outcome::Waiting(waiting));
    }
    // Its letter is written before the message is acknowledged: if it is not there now, there is none.
    let newer = newer(shared, letter, waiting.behind).await.map_err(|fault| away(&fault))?;
    Ok(newer.map_or(Outcome::Stored, |(number, letter)| {
        Outcome::Refused(Failed { letter, number: Some(number) }.into())
    }))
}

fn gone() -> Refusal {
    Refusal::new(
        409,
        "TELEMETRY does not have its message any more: it can't be tried again; `haystack dead-letters \
         drop` takes the letter away",
    )
}

/// A message as if it were read where it stood: what enters the platform there keeps its place.
fn placed(mut batch: Batch, position: Position) -> Batch {
    for group in &mut batch.groups {
        group.origin.get_or_insert(position.as_origin());
    }
    batch
}

/// The row that the letter is about, of its message.
fn of_batch(batch: &Batch, letter: &Letter) -> Option<Group> {
    let mut number = letter.source.row as usize;
    for group in &batch.groups {
        match group.samples.get(number) {
            Some(sample) => return Some(of_sample(letter, sample.clone(), Some(group))),
            None => number -= group.samples.len(),
        }
    }
    None
}

fn of_sample(letter: &Letter, sample: Sample, group: Option<&Group>) -> Group {
    Group {
        origin: letter.origin,
        revision: Revision(letter.revision),
        device: group.and_then(|group| group.device.clone()),
        profile_version: group.map_or(0, |group| group.profile_version),
        samples: vec![sample],
    }
}

/// The same from the letter itself, where its message is gone.
fn of_text(letter: &Letter) -> Option<Group> {
    letter.origin?;
    let row: Value = serde_json::from_str(letter.row.as_deref()?).ok()?;
    let time = |value: &Value| value.as_str().and_then(Timestamp::parse_rfc3339);
    let number = |value: &Value| {
        // What JSON lacks was written as a text.
        value.as_f64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
    };
    let sample = Sample {
        entity: EntityId(row["entity_id"].as_i64()?.try_into().ok()?),
        ts: time(&row["ts"])?,
        values: Values {
            n: number(&row["value_n"]),
            b: row["value_b"].as_bool(),
            s: row["value_s"].as_str().map(Into::into),
            ts: time(&row["value_ts"]),
        },
    };
    Some(of_sample(letter, sample, None))
}

/// Puts it into `TELEMETRY`; its sequence there.
async fn send(
    shared: &Shared,
    org: &OrgKey,
    letter: &Letter,
    batch: &Batch,
    retried: bool,
) -> Result<u64, Refusal> {
    let subject = Subject::Telemetry { org: org.to_string(), source: SOURCE.to_owned() };
    // No id: each attempt is a message, or a target that was mended meanwhile would not see it.
    let mut message = Outgoing::without_id(subject.to_string(), envelope::encode(batch))
        .oldest_accepted(batch.oldest_accepted());
    if retried {
        message = message.header(RETRIED, &Retried::of(letter).value());
    }
    match publish(&shared.wire, message).await {
        Ok(stored) => Ok(stored.sequence()),
        Err(fault) => Err(away(&fault)),
    }
}

/// Waits until the target is done with a message; `false`: not in time.
async fn told(shared: &Shared, target: &TargetName, org: &OrgKey, sequence: u64) -> bool {
    let until = Instant::now() + OUTCOME;
    let mut pause = LOOK.0;
    while Instant::now() < until {
        let position = outcome::position(&shared.wire, target, org).await;
        if position.is_ok_and(|it| it.is_some_and(|it| it.done >= sequence)) {
            return true;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LOOK.1);
    }
    false
}

/// The letter about the same, tried more often, that was filed behind a number.
async fn newer(
    shared: &Shared,
    letter: &Letter,
    behind: u64,
) -> Result<Option<(u64, Letter)>, PublishFault> {
    let filter = Filter {
        stage: Some(letter.stage),
        org: Some(letter.org.clone()),
        sender: Some(letter.sender.clone()),
        reason: None,
    };
    let page = letters::page(&shared.wire, &filter, (behind, u64::MAX), (LOOKS, LOOKS)).await?;
    let same = |found: &Letter| found.about() == letter.about() && found.attempts > letter.attempts;
    let mut found = page.letters.into_iter().filter_map(|Filed { number, letter }| {
        letter.ok().filter(same).map(|letter| (number, letter))
    });
    Ok(found.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Origin, OriginStream, Stage, letter::Source};
    use nats::streams::TELEMETRY;

    fn letter(row: u32, text: Option<&str>) -> Letter {
        let accepted_at = Timestamp::EPOCH;
        let origin = Origin { stream: OriginStream::Raw, sequence: 5, index: 2, accepted_at };
        Letter {
            stage: Stage::Ingest,
            target: Some(TargetName::parse("primary").unwrap()),
            source: Source { stream: TELEMETRY.to_owned(), sequence: 9, row },
            org: Some(OrgKey::parse("demo").unwrap()),
            sender: "TS-1".to_owned(),
            reason: Reason::RefusedByDatabase,
            detail: String::new(),
            row: text.map(ToOwned::to_owned),
            origin: Some(origin),
            revision: 4,
            attempts: 1,
            at: accepted_at,
            attachments: Vec::new(),
            many: Vec::new(),
            taken_for: None,
            waiting: None,
            dropped: None,
        }
    }

    fn group(entities: std::ops::Range<i32>) -> Group {
        let sample = |entity| Sample {
            entity: EntityId(entity),
            ts: Timestamp::EPOCH,
            values: Values::number(1.0),
        };
        let samples = entities.map(sample).collect();
        Group { origin: None, revision: Revision(0), device: None, profile_version: 3, samples }
    }

    #[test]
    fn the_row_of_the_letter_is_found_behind_earlier_groups() {
        let batch = Batch { groups: vec![group(0..2), group(2..5)], ..Batch::default() };
        let found = of_batch(&batch, &letter(3, None)).unwrap();
        assert_eq!(found.samples[0].entity, EntityId(3));
        assert_eq!((found.revision, found.profile_version), (Revision(4), 3));
        assert_eq!(found.origin, letter(0, None).origin);
        assert_eq!(of_batch(&batch, &letter(5, None)), None);
    }

    #[test]
    fn without_its_message_the_letter_says_what_the_row_was() {
        let text = r#"{"entity_id": 7, "ts": "2026-01-01T00:00:00Z", "value_n": "NaN",
            "value_b": true, "value_s": "x", "value_ts": "2026-01-02T00:00:00Z"}"#;
        let found = of_text(&letter(0, Some(text))).unwrap();
        let values = &found.samples[0].values;
        assert!(values.n.unwrap().is_nan() && values.b == Some(true));
        assert_eq!(values.s.as_deref(), Some("x"));
        assert_eq!(values.ts, Timestamp::parse_rfc3339("2026-01-02T00:00:00Z"));
        assert_eq!(of_text(&letter(0, None)), None);
    }
}
