//! Deletions: what is older goes now, what is older and comes later is dropped then. Runs under
//! the org's exclusive lock.

use super::copy::COLUMNS;
use crate::org::OrgRef;
use chrono::{DateTime, Utc};
use domain::{DeletionRow, EntityId, RowVersion, Timestamp};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, postgres::PgArguments, query::Query};
use std::collections::BTreeMap;

/// Columns of arrays, as UNNEST takes them: entity, from, to, accepted at, version.
#[derive(Default)]
struct Arrays {
    entities: Vec<i32>,
    from: Vec<DateTime<Utc>>,
    to: Vec<DateTime<Utc>>,
    accepted_at: Vec<DateTime<Utc>>,
    versions: Vec<i64>,
}

const UNNEST: &str = "unnest($1::integer[], $2::timestamptz[], $3::timestamptz[], \
    $4::timestamptz[], $5::bigint[]) as d (entity_id, ts_from, ts_to, accepted_at, version)";

/// Keeps the deletions and takes away what they cover. Gives the number of rows that went.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    org: &OrgRef,
    deletions: &[DeletionRow],
) -> sqlx::Result<u64> {
    let arrays = arrays(deletions);
    let keep = format!(
        "insert into core.deletions as kept \
            (org_id, entity_id, ts_from, ts_to, accepted_at, version) \
         select $6, d.* from {UNNEST} order by d.entity_id, d.ts_from, d.ts_to \
         on conflict (org_id, entity_id, ts_from, ts_to) do update \
         set accepted_at = excluded.accepted_at, version = excluded.version \
         where (excluded.accepted_at, excluded.version) > (kept.accepted_at, kept.version)"
    );
    arrays.bind(keep).bind(org.id.0).execute(&mut *connection).await?;

    let gone = arrays.bind(delete(&org.values())).execute(&mut *connection).await?;
    let current = delete(&org.current()) + " returning v.entity_id";
    let entities: Vec<(i32,)> = as_rows(arrays.bind(current), connection).await?;
    let entities: Vec<i32> = entities.into_iter().map(|(entity,)| entity).collect();
    if !entities.is_empty() {
        restore(connection, org, &entities).await?;
    }
    Ok(gone.rows_affected())
}

/// Deletes from `table` what is older than a deletion that covers it. The outer bounds let the
/// planner leave out chunks.
fn delete(table: &str) -> String {
    format!(
        "delete from {table} v using {UNNEST} \
         where v.entity_id = d.entity_id and v.ts >= d.ts_from and v.ts < d.ts_to \
         and (v.accepted_at, v.version) < (d.accepted_at, d.version) \
         and v.ts >= (select min(f) from unnest($2::timestamptz[]) f) \
         and v.ts < (select max(t) from unnest($3::timestamptz[]) t)"
    )
}

/// The newest row that is left of each entity becomes its current one.
pub(crate) async fn restore(
    connection: &mut PgConnection,
    org: &OrgRef,
    entities: &[i32],
) -> sqlx::Result<()> {
    let (current, values) = (org.current(), org.values());
    let sql = format!(
        "insert into {current} ({COLUMNS}) \
         select newest.* from unnest($1::integer[]) as gone (id) \
         cross join lateral (select {COLUMNS} from {values} v \
            where v.entity_id = gone.id order by v.ts desc limit 1) newest"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(entities).execute(connection).await?;
    Ok(())
}

async fn as_rows(
    query: Query<'_, Postgres, PgArguments>,
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<(i32,)>> {
    let rows = query.fetch_all(connection).await?;
    rows.iter().map(sqlx::FromRow::from_row).collect()
}

/// One row a key, with the highest version: an upsert can't touch a row twice.
fn arrays(deletions: &[DeletionRow]) -> Arrays {
    let mut highest: BTreeMap<(EntityId, Timestamp, Timestamp), RowVersion> = BTreeMap::new();
    for deletion in deletions {
        let key = (deletion.entity, deletion.from, deletion.to);
        let version = highest.entry(key).or_insert(deletion.version);
        *version = deletion.version.max(*version);
    }
    let mut arrays = Arrays::default();
    for ((entity, from, to), version) in highest {
        arrays.entities.push(entity.0);
        arrays.from.push(from.to_chrono());
        arrays.to.push(to.to_chrono());
        arrays.accepted_at.push(version.accepted_at.to_chrono());
        arrays.versions.push(version.packed);
    }
    arrays
}

impl Arrays {
    fn bind(&self, sql: String) -> Query<'_, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(sql))
            .bind(&self.entities)
            .bind(&self.from)
            .bind(&self.to)
            .bind(&self.accepted_at)
            .bind(&self.versions)
    }
}
