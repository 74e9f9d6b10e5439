//! Whether two targets hold the same rows: by hour from hashes that the databases compute, and row
//! by row where those differ.

mod beside;
mod current;
mod deletions;
mod ignored;
mod pairs;
mod rows;

pub use beside::{EndKey, ends, presences};
pub use current::stale_current;
pub use deletions::{Range, deletions};
pub use pairs::Unlike;
pub use rows::{Change, Difference, Refused, Sample, compare_hour, same};

use crate::{
    connect::{Database, answered},
    fault::Fault,
    org::OrgRef,
    read::{Key, moment},
    write::COLUMNS,
};
use chrono::{DateTime, Utc};
use domain::Timestamp;
use sqlx::{AssertSqlSafe, PgConnection};
use std::collections::{BTreeMap, BTreeSet};

/// An hour of an org's rows in one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Rows.
    pub rows: i64,
    /// The rows' hashes, combined so that their order does not matter.
    pub hash: i64,
}

/// What was compared, and what differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The org.
    pub org: OrgRef,
    /// Hours compared.
    pub hours: usize,
    /// Rows of the reference in those hours.
    pub rows: i64,
    /// Hours that differ, in order; empty where the targets are equal.
    pub differing: Vec<Difference>,
    /// Rows that one target has and the other refused.
    pub explained: u64,
}

/// What was accepted in this time may be on its way to one of two targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recent {
    /// What was accepted before is in both.
    pub from: Timestamp,
    /// Nothing can have been accepted after this: what says so was not made by the platform.
    pub to: Timestamp,
}

impl Recent {
    /// All that was accepted from a moment on.
    pub fn since(from: Timestamp) -> Self {
        Self { from, to: Timestamp::MAX }
    }

    /// Whether a row or a deletion of that acceptance may be on its way.
    pub fn holds(&self, accepted_at: Timestamp) -> bool {
        (self.from..=self.to).contains(&accepted_at)
    }
}

/// Sums of each hour (its first moment, UTC) over rows that are not recent.
pub async fn hours(
    database: &Database,
    org: &OrgRef,
    recent: Recent,
) -> Result<BTreeMap<Timestamp, Sum>, Fault> {
    let sql = format!(
        "select date_bin('1 hour', ts, timestamptz '2000-01-01 00:00:00+00') as hour, count(*), \
            bit_xor(hash_record_extended(row({COLUMNS}), 0)) \
         from {} where accepted_at < $1 or accepted_at > $2 group by 1",
        org.values()
    );
    let mut connection = database.borrow().await?;
    unlimited(&mut connection.held).await?;
    let sums: Vec<(DateTime<Utc>, i64, i64)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(recent.from.to_chrono())
        .bind(recent.to.to_chrono())
        .fetch_all(&mut *connection.held)
        .await?;
    sqlx::raw_sql("commit").execute(&mut *connection.held).await?;
    connection.give_back();
    sums.into_iter().map(|(hour, rows, hash)| Ok((moment(hour)?, Sum { rows, hash }))).collect()
}

/// Sums over the rows from one key to another, both included.
pub async fn span(
    database: &Database,
    org: &OrgRef,
    (first, last): (Key, Key),
) -> Result<Sum, Fault> {
    let sql = format!(
        "select count(*), coalesce(bit_xor(hash_record_extended(row({COLUMNS}), 0)), 0) from {} \
         where (entity_id, ts) >= ($1, $2) and (entity_id, ts) <= ($3, $4)",
        org.values()
    );
    let asked = sqlx::query_as(AssertSqlSafe(sql))
        .bind(first.0.0)
        .bind(first.1.to_chrono())
        .bind(last.0.0)
        .bind(last.1.to_chrono())
        .fetch_one(&database.pool);
    let (rows, hash) = answered(database.patience(false), asked).await?;
    Ok(Sum { rows, hash })
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub struct Comparison<'a> {
    /// What the other is held against.
    pub reference: &'a Database,
    /// The other.
    pub other: &'a Database,
    /// Whose rows.
    pub org: &'a OrgRef,
    /// What may be on its way: accepted after a moment that both have passed, older than what the slowest
    /// consumer still has before it. What such rows and deletions touched on either side is left out.
    pub recent: Recent,
    /// Rows that a target refused: their letters explain why it has them not.
    pub refused: &'a Refused,
}

impl Comparison<'_> {
    /// Hours whose sums differ, and the hours and rows that were compared.
    pub async fn hours(&self) -> Result<(Vec<Timestamp>, usize, i64), Fault> {
        let (ours, theirs) = tokio::try_join!(
            hours(self.reference, self.org, self.recent),
            hours(self.other, self.org, self.recent)
        )?;
        let all: BTreeSet<Timestamp> = ours.keys().chain(theirs.keys()).copied().collect();
        let differing = all.iter().filter(|hour| ours.get(hour) != theirs.get(hour));
        Ok((differing.copied().collect(), all.len(), ours.values().map(|sum| sum.rows).sum()))
    }

    /// Compares an org in two targets; each hour's difference with at most `samples` of its keys.
    pub async fn run(&self, samples: usize) -> Result<Report, Fault> {
        let (hours, count, rows) = self.hours().await?;
        let (mut differing, mut explained) = (Vec::new(), 0);
        for hour in hours {
            let difference = compare_hour(self, hour, samples).await?;
            explained += difference.explained;
            if !difference.is_empty() {
                differing.push(difference);
            }
        }
        Ok(Report { org: self.org.clone(), hours: count, rows, differing, explained })
    }
}

/// Begins a transaction whose statements may read whole tables, for as long as somebody waits for them: the server
/// looks now and then whether the connection is still there.
pub(crate) async fn unlimited(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(
        "begin isolation level repeatable read read only; set local statement_timeout = 0; \
         set local idle_in_transaction_session_timeout = 0; \
         select set_config(name, '2s', true) from pg_settings \
         where name = 'client_connection_check_interval'",
    )
    .execute(connection)
    .await?;
    Ok(())
}
