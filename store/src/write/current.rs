//! `_current`: the newest row of each entity.

use super::{copy::COLUMNS, staging};
use crate::org::OrgRef;
use domain::{Row, merge};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgBindIterExt};

/// From rows of which none is deleted. A row that lost against a newer version of its key loses
/// here too: what it lost to was current, or something newer was.
pub(crate) async fn from_rows(
    connection: &mut PgConnection,
    org: &OrgRef,
    rows: &[Row],
) -> sqlx::Result<()> {
    let newest: Vec<&Row> = merge::newest(rows).collect();
    let rows = || newest.iter().copied();
    let source = "select * from unnest($1::integer[], $2::timestamptz[], $3::double precision[], \
        $4::boolean[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::bigint[])";
    sqlx::query(AssertSqlSafe(upsert(org, source)))
        .bind(rows().map(|row| row.entity.0).bind_iter())
        .bind(rows().map(|row| row.ts.to_chrono()).bind_iter())
        .bind(rows().map(|row| row.values.n).bind_iter())
        .bind(rows().map(|row| row.values.b).bind_iter())
        .bind(rows().map(|row| row.values.s.as_deref()).bind_iter())
        .bind(rows().map(|row| row.values.ts.map(domain::Timestamp::to_chrono)).bind_iter())
        .bind(rows().map(|row| row.version.accepted_at.to_chrono()).bind_iter())
        .bind(rows().map(|row| row.version.packed).bind_iter())
        .execute(connection)
        .await?;
    Ok(())
}

/// From what is left in the staging table after deleted rows went.
pub(crate) async fn from_staging(connection: &mut PgConnection, org: &OrgRef) -> sqlx::Result<()> {
    let sql = upsert(org, &staging::newest());
    sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// Takes the current rows of entities away.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    org: &OrgRef,
    entities: &[i32],
) -> sqlx::Result<()> {
    let sql = format!("delete from {} where entity_id = any($1)", org.current());
    sqlx::query(AssertSqlSafe(sql)).bind(entities).execute(connection).await?;
    Ok(())
}

/// Rows come sorted by entity, so that two writers don't deadlock.
fn upsert(org: &OrgRef, source: &str) -> String {
    let current = org.current();
    format!(
        "insert into {current} as c ({COLUMNS}) {source} \
         on conflict (entity_id) do update set \
            ts = excluded.ts, value_n = excluded.value_n, value_b = excluded.value_b, \
            value_s = excluded.value_s, value_ts = excluded.value_ts, \
            accepted_at = excluded.accepted_at, version = excluded.version \
         where (excluded.ts, excluded.accepted_at, excluded.version) \
            > (c.ts, c.accepted_at, c.version)"
    )
}
