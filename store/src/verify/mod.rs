//! Whether two targets hold the same rows: by hour from hashes that the databases compute, and row
//! by row where those differ.

mod ignored;
mod rows;

pub use rows::{Change, Difference, Sample, compare_hour};

use crate::{connect::Database, fault::Fault, org::OrgRef, read::moment, write::COLUMNS};
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
}

/// Sums of each hour (its first moment, UTC) over rows accepted before `cutoff`.
pub async fn hours(
    database: &Database,
    org: &OrgRef,
    cutoff: Timestamp,
) -> Result<BTreeMap<Timestamp, Sum>, Fault> {
    let sql = format!(
        "select date_bin('1 hour', ts, timestamptz '2000-01-01 00:00:00+00') as hour, count(*), \
            bit_xor(hash_record_extended(row({COLUMNS}), 0)) \
         from {} where accepted_at < $1 group by 1",
        org.values()
    );
    let mut connection = database.borrow().await?;
    unlimited(&mut connection.held).await?;
    let sums: Vec<(DateTime<Utc>, i64, i64)> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(cutoff.to_chrono())
        .fetch_all(&mut *connection.held)
        .await?;
    sqlx::raw_sql("commit").execute(&mut *connection.held).await?;
    connection.give_back();
    sums.into_iter().map(|(hour, rows, hash)| Ok((moment(hour)?, Sum { rows, hash }))).collect()
}

/// Compares an org in two targets over rows accepted before `cutoff`.
///
/// The cutoff is a moment that both have passed: older than what the slowest consumer still has
/// before it. What newer rows and deletions touched on either side is left out.
pub async fn compare(
    reference: &Database,
    other: &Database,
    org: &OrgRef,
    cutoff: Timestamp,
) -> Result<Report, Fault> {
    let (ours, theirs) =
        tokio::try_join!(hours(reference, org, cutoff), hours(other, org, cutoff))?;
    let all: BTreeSet<Timestamp> = ours.keys().chain(theirs.keys()).copied().collect();
    let mut differing = Vec::new();
    for &hour in all.iter().filter(|hour| ours.get(hour) != theirs.get(hour)) {
        let difference = compare_hour(reference, other, org, hour, cutoff).await?;
        if !difference.is_empty() {
            differing.push(difference);
        }
    }
    let rows = ours.values().map(|sum| sum.rows).sum();
    Ok(Report { org: org.clone(), hours: all.len(), rows, differing })
}

/// Begins a transaction whose statements may read whole tables.
async fn unlimited(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::raw_sql(
        "begin isolation level repeatable read read only; set local statement_timeout = 0; \
         set local idle_in_transaction_session_timeout = 0",
    )
    .execute(connection)
    .await?;
    Ok(())
}
