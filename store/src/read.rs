//! Whole tables of an org in memory, as [`domain::merge::Tables`] knows them: for tests, judges and
//! small orgs.

use crate::{
    connect::{Database, answered},
    fault::Fault,
    org::OrgRef,
    write::COLUMNS,
};
use chrono::{DateTime, Utc};
use domain::{EntityId, OrgId, OrgKey, Row, RowVersion, Timestamp, Values, merge::Tables};
use sqlx::{
    AssertSqlSafe, Row as _,
    postgres::{PgBindIterExt, PgRow},
};
use std::time::Duration;

/// The orgs that a target knows, by number.
pub async fn orgs(database: &Database) -> Result<Vec<OrgRef>, Fault> {
    let asked = sqlx::query_as("select org_id, org_key from core.org order by org_id")
        .fetch_all(&database.pool);
    let rows: Vec<(i32, String)> = answered(database.patience(false), asked).await?;
    let org = |(id, key): (i32, String)| {
        let key = OrgKey::parse(&key).map_err(|error| Fault::hold(error.to_string()))?;
        Ok(OrgRef { id: OrgId(id), key })
    };
    rows.into_iter().map(org).collect()
}

/// Entity, from, to, accepted at, version.
type Deletion = (i32, DateTime<Utc>, DateTime<Utc>, DateTime<Utc>, i64);

/// Values and deletions of an org.
pub async fn tables(database: &Database, org: &OrgRef) -> Result<Tables, Fault> {
    let mut tables = Tables::default();
    for row in rows(database, &org.values()).await? {
        tables.values.insert((row.entity, row.ts), (row.version, row.values));
    }
    let sql = "select entity_id, ts_from, ts_to, accepted_at, version \
        from core.deletions where org_id = $1";
    let deletions: Vec<Deletion> =
        sqlx::query_as(sql).bind(org.id.0).fetch_all(&database.pool).await?;
    for (entity, from, to, accepted_at, packed) in deletions {
        let version = RowVersion { accepted_at: moment(accepted_at)?, packed };
        tables.deletions.insert((EntityId(entity), moment(from)?, moment(to)?), version);
    }
    Ok(tables)
}

/// The rows of an org that are there under these keys, in no order.
pub async fn at(
    database: &Database,
    org: &OrgRef,
    keys: &[(EntityId, Timestamp)],
) -> Result<Vec<Row>, Fault> {
    let moments = || keys.iter().map(|(_, ts)| *ts);
    let (Some(first), Some(last)) = (moments().min(), moments().max()) else {
        return Ok(Vec::new());
    };
    let columns: Vec<_> = COLUMNS.split(", ").map(|column| format!("v.{column}")).collect();
    let sql = format!(
        "select {} from {} v join unnest($1::integer[], $2::timestamptz[]) as k (e, t) \
         on v.entity_id = k.e and v.ts = k.t where v.ts between $3 and $4",
        columns.join(", "),
        org.values()
    );
    let asked = sqlx::query(AssertSqlSafe(sql))
        .bind(keys.iter().map(|(entity, _)| entity.0).bind_iter())
        .bind(moments().map(Timestamp::to_chrono).bind_iter())
        .bind(first.to_chrono())
        .bind(last.to_chrono())
        .fetch_all(&database.pool);
    let rows = answered(database.patience(false), asked).await?;
    rows.iter().map(decode).collect()
}

/// A row's key.
pub type Key = (EntityId, Timestamp);

/// The rows of an org behind a key, in the order of their keys; `most` of them.
pub async fn page(
    database: &Database,
    org: &OrgRef,
    after: Option<Key>,
    most: usize,
) -> Result<Vec<Row>, Fault> {
    let sql = format!(
        "select {COLUMNS} from {} where $1::integer is null or (entity_id, ts) > ($1, $2) \
         order by entity_id, ts limit $3",
        org.values()
    );
    let asked = sqlx::query(AssertSqlSafe(sql))
        .bind(after.map(|(entity, _)| entity.0))
        .bind(after.map(|(_, ts)| ts.to_chrono()))
        .bind(most as i64)
        .fetch_all(&database.pool);
    let rows = answered(database.patience(false), asked).await?;
    rows.iter().map(decode).collect()
}

/// When the row under a key was committed; `None` where the database does not keep that
/// (`track_commit_timestamp`), or not any more.
pub async fn committed_at(
    database: &Database,
    org: &OrgRef,
    (entity, ts): Key,
) -> Option<Timestamp> {
    let sql = format!(
        "select pg_xact_commit_timestamp(xmin) from {} where entity_id = $1 and ts = $2",
        org.values()
    );
    let asked = sqlx::query_as(AssertSqlSafe(sql))
        .bind(entity.0)
        .bind(ts.to_chrono())
        .fetch_optional(&database.pool);
    let found: Option<(Option<DateTime<Utc>>,)> =
        answered(database.patience(false), asked).await.ok()?;
    found?.0.and_then(|at| moment(at).ok())
}

/// The highest version of a deletion that takes a row away; `None`: none does.
pub async fn deletion_over(
    database: &Database,
    org: &OrgRef,
    row: &Row,
) -> Result<Option<RowVersion>, Fault> {
    let sql = "select accepted_at, version from core.deletions \
        where org_id = $1 and entity_id = $2 and ts_from <= $3 and $3 < ts_to \
          and (accepted_at, version) > ($4, $5) order by 1 desc, 2 desc limit 1";
    let asked = sqlx::query_as(sql)
        .bind(org.id.0)
        .bind(row.entity.0)
        .bind(row.ts.to_chrono())
        .bind(row.version.accepted_at.to_chrono())
        .bind(row.version.packed)
        .fetch_optional(&database.pool);
    let found: Option<(DateTime<Utc>, i64)> = answered(database.patience(false), asked).await?;
    let version = |(at, packed)| Ok::<_, Fault>(RowVersion { accepted_at: moment(at)?, packed });
    found.map(version).transpose()
}

/// A time without a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Of which entity.
    pub entity: EntityId,
    /// The last reading before; `None`: there is none.
    pub after: Option<Timestamp>,
    /// The first reading after; `None`: there is none up to the end of what was looked at.
    pub until: Option<Timestamp>,
}

/// Entity, the reading before, the reading after.
type Between = (i32, Option<DateTime<Utc>>, Option<DateTime<Utc>>);

/// Times without a reading between two moments, of entities that should have one every so often: those that
/// are longer than `patience` intervals; `most` of them, by entity and time.
pub async fn holes(
    database: &Database,
    org: &OrgRef,
    entities: Vec<(EntityId, Duration)>,
    (from, to): (Timestamp, Timestamp),
    patience: f64,
    most: usize,
) -> Result<Vec<Hole>, Fault> {
    let values = org.values();
    let sql = format!(
        "with k as (select * from unnest($1::integer[], $2::float8[]) as k (id, seconds)), \
         seen as ( \
            select k.id, k.seconds, r.ts from k cross join lateral ( \
                (select v.ts from {values} v where v.entity_id = k.id and v.ts < $3 \
                 order by v.ts desc limit 1) \
                union all \
                (select v.ts from {values} v where v.entity_id = k.id and v.ts >= $3 and v.ts < $4) \
            ) r), \
         pairs as (select id, seconds, ts as earlier, \
            lead(ts) over (partition by id order by ts) as later from seen) \
         (select id, earlier, later from pairs \
            where extract(epoch from coalesce(later, $4) - greatest(earlier, $3)) > seconds * $5 \
         union all \
         select k.id, null, null from k where not exists (select from seen s where s.id = k.id)) \
         order by 1, 2 nulls first limit $6"
    );
    let mut connection = database.borrow().await?;
    crate::verify::unlimited(&mut connection.held).await?;
    let rows: Vec<Between> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(entities.iter().map(|(entity, _)| entity.0).bind_iter())
        .bind(entities.iter().map(|(_, interval)| interval.as_secs_f64()).bind_iter())
        .bind(from.to_chrono())
        .bind(to.to_chrono())
        .bind(patience)
        .bind(most as i64)
        .fetch_all(&mut *connection.held)
        .await?;
    sqlx::raw_sql("commit").execute(&mut *connection.held).await?;
    connection.give_back();
    let hole = |(entity, after, until): Between| {
        Ok(Hole {
            entity: EntityId(entity),
            after: after.map(moment).transpose()?,
            until: until.map(moment).transpose()?,
        })
    };
    rows.into_iter().map(hole).collect()
}

/// How many rows an org has, as far as the database's statistics tell.
pub async fn estimate(database: &Database, org: &OrgRef) -> Result<u64, Fault> {
    // A hypertable's own row tells nothing; its chunks inherit from it.
    let asked = sqlx::query_as(
        "select coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint from pg_class c \
         where c.oid = to_regclass($1) or c.oid in \
            (select inhrelid from pg_inherits where inhparent = to_regclass($1))",
    )
    .bind(org.values())
    .fetch_one(&database.pool);
    let (rows,): (i64,) = answered(database.patience(false), asked).await?;
    Ok(rows.max(0) as u64)
}

/// `_current` of an org, by entity.
pub async fn current(database: &Database, org: &OrgRef) -> Result<Vec<Row>, Fault> {
    rows(database, &org.current()).await
}

async fn rows(database: &Database, table: &str) -> Result<Vec<Row>, Fault> {
    let sql = format!("select {COLUMNS} from {table} order by entity_id, ts");
    let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&database.pool).await?;
    rows.iter().map(decode).collect()
}

/// A row of a values table, selected as [`COLUMNS`].
pub(crate) fn decode(row: &PgRow) -> Result<Row, Fault> {
    let value_ts: Option<DateTime<Utc>> = row.try_get(5)?;
    Ok(Row {
        entity: EntityId(row.try_get(0)?),
        ts: moment(row.try_get(1)?)?,
        version: RowVersion { accepted_at: moment(row.try_get(6)?)?, packed: row.try_get(7)? },
        values: Values {
            n: row.try_get(2)?,
            b: row.try_get(3)?,
            s: row.try_get::<Option<String>, _>(4)?.map(Into::into),
            ts: value_ts.map(moment).transpose()?,
        },
    })
}

/// A moment as the platform knows them; a table edited by hand may hold others.
pub(crate) fn moment(time: DateTime<Utc>) -> Result<Timestamp, Fault> {
    Timestamp::from_chrono(time)
        .ok_or_else(|| Fault::hold(format!("{time} is outside the years 1 to 9999")))
}
