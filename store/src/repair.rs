//! Making a target what it should be, beside the merge rule: what somebody changed behind the platform's back
//! keeps its version, so no upsert would mend it.
//!
//! Each change names the version that it expects, under the org's exclusive lock: what came in meanwhile is
//! never touched. Done twice, it is done once.

use crate::{
    connect::{Database, answered},
    fault::{Fault, classify},
    org::OrgRef,
    write::{current, deletions::restore, open::ORG_LOCK, presence, staging, transactions},
};
use domain::{
    DeletionRow, EntityId, Row, RowVersion, Timestamp, chunk::Ended, presence::PresenceRow,
};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgBindIterExt};

/// One key to be mended.
#[derive(Debug, Clone, PartialEq)]
pub struct Mend {
    /// Whose row.
    pub entity: EntityId,
    /// Of which moment.
    pub ts: Timestamp,
    /// The version that stands there; `None`: no row does.
    pub expected: Option<RowVersion>,
    /// What is to stand there; `None`: nothing.
    pub row: Option<Row>,
}

/// Most keys of one transaction: others wait while it holds the org's lock.
pub const MOST: usize = 5_000;

/// Mends at most [`MOST`] keys of an org. What a deletion covers is not put back. `off`: how many rows more the
/// org's table has than were counted. Rows that make that less were counted before, or never, and what is
/// `unexplained` was never counted; all others are counted in the same transaction.
///
/// How many rows were taken away or written (of a key whose row is replaced, two), and how many the table is off
/// now.
pub async fn mend(
    database: &Database,
    org: &OrgRef,
    mends: &[Mend],
    unexplained: bool,
    off: i64,
) -> Result<(u64, i64), Fault> {
    debug_assert!(mends.len() <= MOST, "a transaction has a limit");
    let (mut changed, mut left) = (0, off);
    exclusive(database, org, async |connection| {
        let mut rows: Vec<Row> = mends.iter().filter_map(|mend| mend.row.clone()).collect();
        domain::merge::tidy(&mut rows);
        staging::fill(connection, "", &rows).await?;
        staging::drop_deleted(connection, org).await?;
        let known = || mends.iter().filter_map(|mend| Some((mend, mend.expected?)));
        let times = || known().map(|(mend, _)| mend.ts);
        if let (Some(first), Some(last)) = (times().min(), times().max()) {
            let sql = format!(
                "delete from {} v using unnest($1::integer[], $2::timestamptz[], $3::timestamptz[], \
                    $4::bigint[]) as k (entity_id, ts, accepted_at, version) \
                 where v.entity_id = k.entity_id and v.ts = k.ts and v.accepted_at = k.accepted_at \
                    and v.version = k.version and v.ts between $5 and $6",
                org.values()
            );
            let gone = sqlx::query(AssertSqlSafe(sql))
                .bind(known().map(|(mend, _)| mend.entity.0).bind_iter())
                .bind(times().map(Timestamp::to_chrono).bind_iter())
                .bind(known().map(|(_, version)| version.accepted_at.to_chrono()).bind_iter())
                .bind(known().map(|(_, version)| version.packed).bind_iter())
                .bind(first.to_chrono())
                .bind(last.to_chrono())
                .execute(&mut *connection)
                .await?;
            changed += gone.rows_affected();
        }
        let met = staging::look(connection, org).await?;
        let more = met.new as i64 - changed as i64;
        changed += staging::merge(connection, org, &met).await?;
        let uncounted = match more {
            more if unexplained => more,
            1.. => more.min((-off).max(0)),
            _ => more.max((-off).min(0)),
        };
        left = off + uncounted;
        sqlx::query("select core.note_rows($1, $2)")
            .bind(org.id.0)
            .bind(more - uncounted)
            .execute(&mut *connection)
            .await?;
        let mut entities: Vec<i32> = mends.iter().map(|mend| mend.entity.0).collect();
        entities.sort_unstable();
        entities.dedup();
        renew_current(connection, org, &entities).await
    })
    .await?;
    Ok((changed, left))
}

/// Makes the current row of each entity its newest one.
pub async fn restore_current(
    database: &Database,
    org: &OrgRef,
    entities: &[EntityId],
) -> Result<(), Fault> {
    let entities: Vec<i32> = entities.iter().map(|entity| entity.0).collect();
    exclusive(database, org, async |connection| renew_current(connection, org, &entities).await)
        .await
}

async fn renew_current(
    connection: &mut PgConnection,
    org: &OrgRef,
    entities: &[i32],
) -> sqlx::Result<()> {
    current::forget(connection, org, entities).await?;
    restore(connection, org, entities).await
}

/// Takes deletions out of the record that nothing explains. What they took is not put back by this.
pub async fn forget_deletions(
    database: &Database,
    org: &OrgRef,
    deletions: &[DeletionRow],
) -> Result<(), Fault> {
    exclusive(database, org, async |connection| {
        let all = || deletions.iter();
        sqlx::query(
            "delete from core.deletions d using unnest($1::integer[], $2::timestamptz[], \
                $3::timestamptz[], $4::bigint[]) as k (entity_id, ts_from, ts_to, version) \
             where d.org_id = $5 and d.entity_id = k.entity_id and d.ts_from = k.ts_from \
                and d.ts_to = k.ts_to and d.version = k.version",
        )
        .bind(all().map(|it| it.entity.0).bind_iter())
        .bind(all().map(|it| it.from.to_chrono()).bind_iter())
        .bind(all().map(|it| it.to.to_chrono()).bind_iter())
        .bind(all().map(|it| it.version.packed).bind_iter())
        .bind(org.id.0)
        .execute(connection)
        .await
        .map(drop)
    })
    .await
}

/// Puts presences in the place of what stands there of their devices, unless that is newer.
pub async fn put_presences(
    database: &Database,
    org: &OrgRef,
    rows: &[PresenceRow],
) -> Result<(), Fault> {
    exclusive(database, org, async |connection| {
        let all = || rows.iter();
        sqlx::query(
            "delete from core.device_presence p \
             using unnest($1::text[], $2::timestamptz[], $3::bigint[]) as k (device, accepted, version) \
             where p.org_id = $4 and p.device_id = k.device \
                and (p.accepted_at, p.version) <= (k.accepted, k.version)",
        )
        .bind(all().map(|row| row.device.as_str()).bind_iter())
        .bind(all().map(|row| row.version.accepted_at.to_chrono()).bind_iter())
        .bind(all().map(|row| row.version.packed).bind_iter())
        .bind(org.id.0)
        .execute(&mut *connection)
        .await?;
        presence::apply(connection, org, rows).await
    })
    .await
}

/// The same of ends of gateways' transactions.
pub async fn put_ends(database: &Database, org: &OrgRef, ends: &[Ended]) -> Result<(), Fault> {
    exclusive(database, org, async |connection| {
        let all = || ends.iter();
        sqlx::query(
            "delete from core.telemetry_transactions t \
             using unnest($1::text[], $2::text[], $3::bigint[]) as k (gateway, name, sequence) \
             where t.org_id = $4 and t.gateway_id = k.gateway and t.transaction_id = k.name \
                and t.end_sequence = k.sequence",
        )
        .bind(all().map(|it| it.gateway.as_str()).bind_iter())
        .bind(all().map(|it| it.transaction.as_str()).bind_iter())
        .bind(all().map(|it| it.sequence.cast_signed()).bind_iter())
        .bind(org.id.0)
        .execute(&mut *connection)
        .await?;
        transactions::apply(connection, org, ends).await
    })
    .await
}

/// A transaction under the org's exclusive lock, also into compressed history.
async fn exclusive(
    database: &Database,
    org: &OrgRef,
    work: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<()>,
) -> Result<(), Fault> {
    let millis = database.limits.deletion.as_millis();
    let begin = format!(
        "begin isolation level read committed; set local statement_timeout = {millis}; \
         set local timescaledb.max_tuples_decompressed_per_dml_transaction = 0; \
         select true from pg_advisory_xact_lock({ORG_LOCK}, {})",
        org.id
    );
    let mut connection = database.borrow().await?;
    let transaction = async {
        let held = &mut *connection.held;
        sqlx::raw_sql(AssertSqlSafe(begin)).execute(&mut *held).await.map_err(|e| classify(&e))?;
        work(&mut *held).await.map_err(|error| classify(&error))?;
        sqlx::raw_sql("commit").execute(held).await.map_err(|error| classify(&error))
    };
    answered(database.patience(true), transaction).await?;
    connection.give_back();
    Ok(())
}
