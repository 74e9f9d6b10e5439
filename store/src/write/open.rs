//! How a write begins: the org's lock first, then what the database knows of deletions.

use crate::org::OrgRef;
use domain::{Timestamp, Work};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// Class of the advisory locks that keep a write and a deletion of one org apart.
pub(crate) const ORG_LOCK: i32 = 1_213_399_041;
/// Class of the advisory lock that lets one instance at a time apply `MODEL`.
pub(crate) const MODEL_LOCK: i32 = 1_213_399_042;

/// Class of the advisory locks of an org's merges: many may COPY new rows side by side, but one that looks
/// first what is there, and counts by that, is alone.
pub(crate) const MERGE_LOCK: i32 = 1_213_399_044;

/// Rolls a conflicting COPY back, and with it gives up the lock under which it was made.
pub(crate) const ANEW: &str = "rollback to savepoint straight;";

/// Begins the transaction and takes the org's lock: shared for rows, exclusive where deletions
/// come along, so that an uncommitted write and a deletion can't pass each other. Gives whether a
/// deletion that the database holds may be newer than one of the rows.
///
/// All in one round trip: each statement sees what was committed before it began, so the question
/// is asked after the lock is held.
pub(crate) async fn open(
    connection: &mut PgConnection,
    org: &OrgRef,
    work: &Work,
    deletion_millis: u128,
    lifted: bool,
) -> sqlx::Result<bool> {
    let deletes = !work.deletions.is_empty();
    let patience = if deletes || lifted {
        format!("set local statement_timeout = {deletion_millis};")
    } else {
        String::new()
    };
    let limit = if lifted {
        "set local timescaledb.max_tuples_decompressed_per_dml_transaction = 0;"
    } else {
        ""
    };
    let (lock, id) = (if deletes { "" } else { "_shared" }, org.id);
    let question = question(org, work);
    let shared = if work.rows.is_empty() || deletes {
        String::new()
    } else {
        format!("select true from pg_advisory_xact_lock_shared({MERGE_LOCK}, {id});")
    };
    let sql = format!(
        "begin isolation level read committed; {patience} {limit} \
         select true from pg_advisory_xact_lock{lock}({ORG_LOCK}, {id}); \
         savepoint straight; {shared} {question}"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
    rows.last().map_or(Ok(true), |row| row.try_get(0))
}

/// Whether a deletion may matter, by the extremes of the batch: rarely yes, and cheap.
fn question(org: &OrgRef, work: &Work) -> String {
    let Some(extent) = Extent::of(work) else { return "select false".to_owned() };
    let Extent { oldest, first, last } = extent;
    format!(
        "select exists (select from core.deletions where org_id = {} \
         and accepted_at >= '{oldest}'::timestamptz \
         and ts_to > '{first}'::timestamptz and ts_from <= '{last}'::timestamptz)",
        org.id
    )
}

struct Extent {
    oldest: Timestamp,
    first: Timestamp,
    last: Timestamp,
}

impl Extent {
    fn of(work: &Work) -> Option<Self> {
        let row = work.rows.first()?;
        let start = Self { oldest: row.version.accepted_at, first: row.ts, last: row.ts };
        Some(work.rows.iter().fold(start, |extent, row| Self {
            oldest: extent.oldest.min(row.version.accepted_at),
            first: extent.first.min(row.ts),
            last: extent.last.max(row.ts),
        }))
    }
}
