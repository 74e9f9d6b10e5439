//! One hour of two targets, row by row, in bounded memory: both are read in the order of their keys
//! and merged.

use super::{
    Comparison, Recent, ignored,
    pairs::{Keyed, Pairs, Rows},
    unlimited,
};
use crate::{fault::Fault, org::OrgRef, read::decode, write::COLUMNS};
use domain::{EntityId, Row, RowVersion, Timestamp};
use futures_util::StreamExt as _;
use sqlx::{AssertSqlSafe, PgConnection};
use std::collections::HashSet;

/// How a key differs from the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the reference has it.
    Missing,
    /// Only the other target has it.
    Extra,
    /// Both have it, with other columns.
    Changed,
}

/// A key that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// How.
    pub change: Change,
    /// The reference's row.
    pub reference: Option<Row>,
    /// The other target's row.
    pub other: Option<Row>,
}

/// What differs in an hour.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The hour's first moment, UTC.
    pub hour: Timestamp,
    /// Keys that only the reference has.
    pub missing: u64,
    /// Keys that only the other target has.
    pub extra: u64,
    /// Keys that both have, with other columns.
    pub changed: u64,
    /// Rows that one has and the other refused.
    pub explained: u64,
    /// The first few.
    pub samples: Vec<Sample>,
}

/// Rows that targets refused, by entity, moment and version.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// By the reference.
    pub by_reference: HashSet<(EntityId, Timestamp, RowVersion)>,
    /// By the other target.
    pub by_other: HashSet<(EntityId, Timestamp, RowVersion)>,
}

impl Refused {
    /// Whether a letter says why two targets differ: what one has, the other refused.
    pub fn explains(&self, sample: &Sample) -> bool {
        let known = |row: &Option<Row>, by: &HashSet<_>| {
            row.as_ref().is_some_and(|row| by.contains(&(row.entity, row.ts, row.version)))
        };
        known(&sample.reference, &self.by_other) || known(&sample.other, &self.by_reference)
    }
}

impl Keyed for Row {
    type Key = (EntityId, Timestamp);
    fn key(&self) -> Self::Key {
        (self.entity, self.ts)
    }
}

/// Keys that wait to be looked up among recent deletions.
const WAITING: usize = 1_000;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

impl Difference {
    /// Whether the hour is equal after all.
    pub fn is_empty(&self) -> bool {
        self.missing + self.extra + self.changed == 0
    }

    fn add(&mut self, sample: Sample, samples: usize) {
        match sample.change {
            Change::Missing => self.missing += 1,
            Change::Extra => self.extra += 1,
            Change::Changed => self.changed += 1,
        }
        if self.samples.len() < samples {
            self.samples.push(sample);
        }
    }
}

/// Compares an hour. At most `samples` of its keys are kept. Left out are keys whose row in either target is
/// recent, and keys that a deletion of that time covers in either.
pub async fn compare_hour(
    comparison: &Comparison<'_>,
    hour: Timestamp,
    samples: usize,
) -> Result<Difference, Fault> {
    let Comparison { reference, other, org, recent, refused } = *comparison;
    let (mut ours, mut theirs) = tokio::try_join!(reference.borrow(), other.borrow())?;
    unlimited(&mut ours.held).await?;
    unlimited(&mut theirs.held).await?;
    let (missing, extra, changed, explained) = (0, 0, 0, 0);
    let mut difference =
        Difference { hour, missing, extra, changed, explained, samples: Vec::new() };
    let mut waiting = Vec::new();
    let mut pairs =
        Pairs::new(stream(&mut ours.held, org, hour), stream(&mut theirs.held, org, hour));
    loop {
        let pair = pairs.next().await?;
        let end = pair.is_none();
        waiting.extend(pair.and_then(|pair| judge(pair, recent)));
        if end || waiting.len() >= WAITING {
            let of = [reference, other];
            let kept = ignored::without_deleted(of, org, recent.from, std::mem::take(&mut waiting));
            for sample in kept.await? {
                if refused.explains(&sample) {
                    difference.explained += 1;
                } else {
                    difference.add(sample, samples);
                }
            }
        }
        if end {
            break;
        }
    }
    drop(pairs);
    for mut side in [ours, theirs] {
        sqlx::raw_sql("commit").execute(&mut *side.held).await?;
        side.give_back();
    }
    Ok(difference)
}

type Pair = (Option<Row>, Option<Row>);

fn judge((reference, other): Pair, recent: Recent) -> Option<Sample> {
    let is_recent =
        |row: &Option<Row>| row.as_ref().is_some_and(|row| recent.holds(row.version.accepted_at));
    if is_recent(&reference) || is_recent(&other) {
        return None;
    }
    let change = match (&reference, &other) {
        (Some(_), None) => Change::Missing,
        (None, Some(_)) => Change::Extra,
        (Some(a), Some(b)) if !same(a, b) => Change::Changed,
        _ => return None,
    };
    Some(Sample { change, reference, other })
}

/// Whether all columns are equal; a NaN is equal to itself, as in PostgreSQL.
pub fn same(a: &Row, b: &Row) -> bool {
    let number = |row: &Row| {
        row.values.n.map(|n| if n.is_nan() { f64::NAN.to_bits() } else { (n + 0.0).to_bits() })
    };
    let rest = |row: &Row| (row.version, row.values.b, row.values.ts);
    number(a) == number(b) && rest(a) == rest(b) && a.values.s == b.values.s
}

fn stream<'c>(connection: &'c mut PgConnection, org: &OrgRef, hour: Timestamp) -> Rows<'c, Row> {
    let sql = format!(
        "select {COLUMNS} from {} where ts >= $1 and ts < $2 order by entity_id, ts",
        org.values()
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(hour.to_chrono())
        .bind(hour.plus_micros(HOUR).to_chrono())
        .fetch(connection);
    rows.map(|row| decode(&row?)).boxed()
}
