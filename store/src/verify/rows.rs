//! One hour of two targets, row by row, in bounded memory: both are read in the order of their keys
//! and merged.

use super::{ignored, unlimited};
use crate::{connect::Database, fault::Fault, org::OrgRef, read::decode, write::COLUMNS};
use domain::{Row, Timestamp};
use futures_util::{Stream, StreamExt as _};
use sqlx::{AssertSqlSafe, PgConnection};
use std::pin::Pin;

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
    /// The first few.
    pub samples: Vec<Sample>,
}

/// Samples that a difference keeps.
const SAMPLES: usize = 10;
/// Keys that wait to be looked up among recent deletions.
const WAITING: usize = 1_000;
/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;

impl Difference {
    /// Whether the hour is equal after all.
    pub fn is_empty(&self) -> bool {
        self.missing + self.extra + self.changed == 0
    }

    fn add(&mut self, sample: Sample) {
        match sample.change {
            Change::Missing => self.missing += 1,
            Change::Extra => self.extra += 1,
            Change::Changed => self.changed += 1,
        }
        if self.samples.len() < SAMPLES {
            self.samples.push(sample);
        }
    }
}

/// Compares an hour. Left out are keys whose row in either target was accepted at `cutoff` or
/// later, and keys that a deletion of that time covers in either.
pub async fn compare_hour(
    reference: &Database,
    other: &Database,
    org: &OrgRef,
    hour: Timestamp,
    cutoff: Timestamp,
) -> Result<Difference, Fault> {
    let (mut ours, mut theirs) = tokio::try_join!(reference.borrow(), other.borrow())?;
    unlimited(&mut ours.held).await?;
    unlimited(&mut theirs.held).await?;
    let mut difference = Difference { hour, missing: 0, extra: 0, changed: 0, samples: vec![] };
    let mut waiting = Vec::new();
    let mut pairs = Pairs {
        ours: Side::new(stream(&mut ours.held, org, hour)),
        theirs: Side::new(stream(&mut theirs.held, org, hour)),
    };
    loop {
        let pair = pairs.next().await?;
        let end = pair.is_none();
        waiting.extend(pair.and_then(|pair| judge(pair, cutoff)));
        if end || waiting.len() >= WAITING {
            let of = [reference, other];
            let kept = ignored::without_deleted(of, org, cutoff, std::mem::take(&mut waiting));
            kept.await?.into_iter().for_each(|sample| difference.add(sample));
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

fn judge((reference, other): Pair, cutoff: Timestamp) -> Option<Sample> {
    let recent =
        |row: &Option<Row>| row.as_ref().is_some_and(|row| row.version.accepted_at >= cutoff);
    if recent(&reference) || recent(&other) {
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
fn same(a: &Row, b: &Row) -> bool {
    let number = |row: &Row| {
        row.values.n.map(|n| if n.is_nan() { f64::NAN.to_bits() } else { (n + 0.0).to_bits() })
    };
    let rest = |row: &Row| (row.version, row.values.b, row.values.ts);
    number(a) == number(b) && rest(a) == rest(b) && a.values.s == b.values.s
}

type Rows<'c> = Pin<Box<dyn Stream<Item = Result<Row, Fault>> + Send + 'c>>;

fn stream<'c>(connection: &'c mut PgConnection, org: &OrgRef, hour: Timestamp) -> Rows<'c> {
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

/// One target's rows with a look at the next.
struct Side<'c> {
    rows: Rows<'c>,
    next: Option<Row>,
    started: bool,
}

impl<'c> Side<'c> {
    fn new(rows: Rows<'c>) -> Self {
        Self { rows, next: None, started: false }
    }

    async fn peek(&mut self) -> Result<Option<(i32, Timestamp)>, Fault> {
        if !self.started {
            self.started = true;
            self.advance().await?;
        }
        Ok(self.next.as_ref().map(|row| (row.entity.0, row.ts)))
    }

    async fn advance(&mut self) -> Result<Option<Row>, Fault> {
        let following = self.rows.next().await.transpose()?;
        Ok(std::mem::replace(&mut self.next, following))
    }
}

struct Pairs<'c> {
    ours: Side<'c>,
    theirs: Side<'c>,
}

impl Pairs<'_> {
    /// The rows of the next key.
    async fn next(&mut self) -> Result<Option<Pair>, Fault> {
        let (a, b) = (self.ours.peek().await?, self.theirs.peek().await?);
        let key = match (a, b) {
            (None, None) => return Ok(None),
            (Some(a), Some(b)) => a.min(b),
            (Some(key), None) | (None, Some(key)) => key,
        };
        let ours = if a == Some(key) { self.ours.advance().await? } else { None };
        let theirs = if b == Some(key) { self.theirs.advance().await? } else { None };
        Ok(Some((ours, theirs)))
    }
}
