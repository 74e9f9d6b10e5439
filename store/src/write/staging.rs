//! The careful way: rows into a temporary table, and from there what is newer into the org's.

use super::{
    copy::{self, COLUMNS},
    open::MERGE_LOCK,
};
use crate::org::OrgRef;
use domain::Row;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

/// Lives as long as its connection, empty between transactions.
const TABLE: &str = "pg_temp.haystack_staging";

const CREATE: &str = "create temp table if not exists haystack_staging (\
    entity_id integer not null, ts timestamptz not null, value_n double precision, \
    value_b boolean, value_s text, value_ts timestamptz, \
    accepted_at timestamptz not null, version bigint not null) on commit delete rows";

/// Fills the staging table. `first` is run before, in the same round trip.
pub(crate) async fn fill(
    connection: &mut PgConnection,
    first: &str,
    rows: &[Row],
) -> sqlx::Result<()> {
    let sql = format!("{first}{CREATE}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await?;
    copy::rows(connection, TABLE, rows).await?;
    Ok(())
}

/// Takes staged rows away that a newer deletion covers. Gives their number.
pub(crate) async fn drop_deleted(connection: &mut PgConnection, org: &OrgRef) -> sqlx::Result<u64> {
    let delete = |range: &str| {
        format!(
            "delete from {TABLE} s using core.deletions d \
             where d.org_id = {} and d.entity_id = s.entity_id and {range} \
             and (s.accepted_at, s.version) < (d.accepted_at, d.version);",
            org.id
        )
    };
    // A replay can leave a removal for each of a million rows: those are met by equality.
    let removals = delete("d.ts_from = s.ts and d.ts_to = s.ts + interval '1 microsecond'");
    let tombstones = delete(
        "d.ts_to - d.ts_from <> interval '1 microsecond' and d.ts_from <= s.ts and s.ts < d.ts_to",
    );
    let sql = removals + &tombstones;
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(done.rows_affected())
}

/// What staged rows meet in the org's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Met {
    /// Nothing.
    pub(crate) new: u64,
    /// A row with a lower version.
    pub(crate) higher: u64,
    /// Their own version.
    pub(crate) same: u64,
    /// A row with a higher version.
    pub(crate) lower: u64,
}

impl Met {
    /// Rows that will be written.
    pub(crate) fn newer(&self) -> u64 {
        self.new + self.higher
    }
}

/// Looks what the staged rows meet, after the org's merge lock is taken: nobody else writes the org's rows then.
///
/// `offset 0`: else it would be looked anew for each of the sums.
pub(crate) async fn look(connection: &mut PgConnection, org: &OrgRef) -> sqlx::Result<Met> {
    let (values, id) = (org.values(), org.id);
    let sql = format!(
        "select true from pg_advisory_xact_lock({MERGE_LOCK}, {id}); \
         select count(*) filter (where old is null), count(*) filter (where old = 1), \
            count(*) filter (where old = 0), count(*) filter (where old = -1) \
         from (select (select case \
                when (s.accepted_at, s.version) > (v.accepted_at, v.version) then 1 \
                when (s.accepted_at, s.version) = (v.accepted_at, v.version) then 0 else -1 end \
            from {values} v where v.entity_id = s.entity_id and v.ts = s.ts) as old \
            from {TABLE} s offset 0) looked"
    );
    let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
    let row = rows.last().ok_or(sqlx::Error::RowNotFound)?;
    let number = |at: usize| row.try_get::<i64, _>(at).map(i64::unsigned_abs);
    Ok(Met { new: number(0)?, higher: number(1)?, same: number(2)?, lower: number(3)? })
}

/// Puts the staged rows that are newer into the org's table. Gives the number of rows changed.
///
/// Rows that lose are left out by a look at the index first: it is twice as cheap as a conflict,
/// which locks the row it loses to.
pub(crate) async fn merge(
    connection: &mut PgConnection,
    org: &OrgRef,
    met: &Met,
) -> sqlx::Result<u64> {
    if met.newer() == 0 {
        return Ok(0);
    }
    let values = org.values();
    let newer = if met.same + met.lower == 0 {
        String::new()
    } else {
        format!(
            "where coalesce((select (s.accepted_at, s.version) > (old.accepted_at, old.version) \
                from {values} old where old.entity_id = s.entity_id and old.ts = s.ts), true)"
        )
    };
    let sql = format!(
        "insert into {values} as v ({COLUMNS}) select {COLUMNS} from {TABLE} s {newer} \
         order by entity_id, ts \
         on conflict (entity_id, ts) do update set \
            value_n = excluded.value_n, value_b = excluded.value_b, value_s = excluded.value_s, \
            value_ts = excluded.value_ts, accepted_at = excluded.accepted_at, \
            version = excluded.version \
         where (excluded.accepted_at, excluded.version) > (v.accepted_at, v.version)"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(done.rows_affected())
}

/// The newest staged row of each entity, as a source for [`super::current`].
pub(crate) fn newest() -> String {
    format!("select distinct on (entity_id) {COLUMNS} from {TABLE} order by entity_id, ts desc")
}
