//! The ledger of a target: which messages it has applied, what became of their readings, and whether its rows
//! are as many as it wrote.

use crate::{
    connect::{Database, answered},
    fault::Fault,
    org::OrgRef,
    read::moment,
    verify::unlimited,
};
use chrono::{DateTime, Utc};
use domain::{
    OrgId, Timestamp,
    ledger::{BLOCK, Fates, blocks, hour_of},
};
use sqlx::AssertSqlSafe;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// A stream whose messages are noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// `TELEMETRY`: messages that were applied.
    Telemetry,
    /// `RAW`: messages of which something came.
    Raw,
}

impl Noted {
    fn table(self) -> &'static str {
        match self {
            Self::Telemetry => "core.ledger",
            Self::Raw => "core.ledger_origins",
        }
    }
}

/// From which sequences on a target counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// In `TELEMETRY`.
    pub telemetry: u64,
    /// In `RAW`.
    pub raw: u64,
}

/// Readings of an org in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hour {
    /// Whose.
    pub org: OrgId,
    /// The hour in which the stream stored the messages: its first moment, UTC.
    pub hour: Timestamp,
    /// Messages applied.
    pub messages: u64,
    /// Readings in them.
    pub readings: u64,
    /// What became of those.
    pub fates: Fates,
}

/// An org's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// By what was inserted and deleted.
    pub counted: i64,
    /// That are there; `None`: not looked.
    pub found: Option<i64>,
}

/// Messages that were not noted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holes {
    /// Their sequences, in order.
    pub sequences: Vec<u64>,
    /// There may be more behind them.
    pub cut: bool,
}

/// Blocks with holes that are looked at.
const MOST_BLOCKS: i64 = 200;

/// Where the ledger begins; `None`: nothing was written here yet.
pub async fn since(database: &Database) -> Result<Option<Since>, Fault> {
    let asked = sqlx::query_as("select telemetry, raw from core.ledger_since")
        .fetch_optional(&database.pool);
    let found: Option<(i64, i64)> = answered(database.patience(false), asked).await?;
    let since = |(telemetry, raw): (i64, i64)| Since {
        telemetry: telemetry.unsigned_abs(),
        raw: raw.unsigned_abs(),
    };
    Ok(found.map(since))
}

/// Begins the ledger. One that was begun stays as it is.
pub async fn begin(database: &Database, since: Since) -> Result<(), Fault> {
    let sql =
        "insert into core.ledger_since (telemetry, raw) values ($1, $2) on conflict do nothing";
    let begun = sqlx::query(sql)
        .bind(since.telemetry.cast_signed())
        .bind(since.raw.cast_signed())
        .execute(&database.pool);
    answered(database.patience(false), begun).await?;
    Ok(())
}

/// Lets the ledger begin later, where a target is not given what was before.
pub async fn begin_later(database: &Database, since: Since) -> Result<(), Fault> {
    let sql =
        "update core.ledger_since set telemetry = greatest(telemetry, $1), raw = greatest(raw, $2)";
    let moved = sqlx::query(sql)
        .bind(since.telemetry.cast_signed())
        .bind(since.raw.cast_signed())
        .execute(&database.pool);
    answered(database.patience(false), moved).await?;
    Ok(())
}

/// Which messages of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The stream.
    pub stream: Noted,
    /// From this sequence,
    pub first: u64,
    /// up to this one.
    pub last: u64,
    /// When the stream was made: one that was there before had other messages with these numbers.
    pub made: Timestamp,
}

/// Why nothing needs to be noted of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It can give nothing: it is a letter, or has no reading.
    Explained = 0,
    /// Somebody settled it.
    Settled = -1,
}

/// How many messages are noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// By orgs.
    pub applied: u64,
    /// Not by an org, and explained.
    pub explained: u64,
    /// Neither, and settled.
    pub settled: u64,
}

impl Span {
    fn bind<'q, O>(
        &self,
        query: sqlx::query::QueryAs<'q, sqlx::Postgres, O, sqlx::postgres::PgArguments>,
    ) -> sqlx::query::QueryAs<'q, sqlx::Postgres, O, sqlx::postgres::PgArguments> {
        query
            .bind((self.first / BLOCK).cast_signed())
            .bind((self.last / BLOCK).cast_signed())
            .bind(hour_of(self.made).to_chrono())
    }

    /// Messages that nobody has noted.
    pub async fn holes(&self, database: &Database) -> Result<Holes, Fault> {
        if self.first > self.last {
            return Ok(Holes::default());
        }
        let sql = format!(
            "select g.block, coalesce(b.seen, 0::bit(1024))::text \
             from generate_series($1::bigint, $2::bigint) as g (block) \
             left join (select block, bit_or(seen) as seen from {} \
                where block between $1 and $2 and hour >= $3 group by block) b using (block) \
             where b.seen is null or b.seen <> ~(0::bit(1024)) order by 1 limit $4",
            self.stream.table()
        );
        let asked = self.bind(sqlx::query_as(AssertSqlSafe(sql))).bind(MOST_BLOCKS);
        let found: Vec<(i64, String)> =
            answered(database.patience(false), asked.fetch_all(&database.pool)).await?;
        let cut = found.len() as i64 >= MOST_BLOCKS;
        let mut sequences: Vec<u64> = found.iter().flat_map(|block| with(block, b'0')).collect();
        sequences.retain(|sequence| (self.first..=self.last).contains(sequence));
        Ok(Holes { sequences, cut })
    }

    /// How many messages are noted.
    pub async fn sums(&self, database: &Database) -> Result<Sums, Fault> {
        let sql = format!(
            "select coalesce(sum(bit_count(own)), 0)::bigint, \
                coalesce(sum(bit_count(explained & ~own)), 0)::bigint, \
                coalesce(sum(bit_count(settled & ~own & ~explained)), 0)::bigint \
             from (select coalesce(bit_or(seen) filter (where org_id > 0 or org_id = -2), 0::bit(1024)) as own, \
                coalesce(bit_or(seen) filter (where org_id = 0), 0::bit(1024)) as explained, \
                coalesce(bit_or(seen) filter (where org_id = -1), 0::bit(1024)) as settled \
                from {} where block between $1 and $2 and hour >= $3 group by block) blocks",
            self.stream.table()
        );
        let asked = self.bind(sqlx::query_as(AssertSqlSafe(sql)));
        let (applied, explained, settled): (i64, i64, i64) =
            answered(database.patience(false), asked.fetch_one(&database.pool)).await?;
        let [applied, explained, settled] = [applied, explained, settled].map(i64::unsigned_abs);
        Ok(Sums { applied, explained, settled })
    }

    /// Messages that somebody settled.
    pub async fn settled(&self, database: &Database) -> Result<BTreeSet<u64>, Fault> {
        let sql = format!(
            "select block, bit_or(seen)::text from {} \
             where org_id = {} and block between $1 and $2 and hour >= $3 group by block",
            self.stream.table(),
            Why::Settled as i32
        );
        let asked = self.bind(sqlx::query_as(AssertSqlSafe(sql))).fetch_all(&database.pool);
        let found: Vec<(i64, String)> = answered(database.patience(false), asked).await?;
        Ok(found.iter().flat_map(|block| with(block, b'1')).collect())
    }

    /// Notes messages of which no org has anything to note.
    pub async fn settle(
        &self,
        database: &Database,
        sequences: &[u64],
        why: Why,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let none = match self.stream {
            Noted::Telemetry => ", 0, 0, 0, 0, 0, 0, 0",
            Noted::Raw => "",
        };
        let table = self.stream.table();
        let mut sql = String::from("begin;");
        for (block, bits) in blocks(sequences) {
            let _ = write!(
                sql,
                "insert into {table} as l values ({}, '{}', {block}, B'{}'{none}) \
                 on conflict (org_id, hour, block) do update set seen = l.seen | excluded.seen;",
                why as i32,
                hour_of(now),
                bits.text()
            );
        }
        sql.push_str("commit");
        let mut connection = database.borrow().await?;
        let noted = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection.held);
        answered(database.patience(false), noted).await?;
        connection.give_back();
        Ok(())
    }
}

/// Sequences of a block whose bit is that.
fn with((block, bits): &(i64, String), wanted: u8) -> impl Iterator<Item = u64> {
    let start = block.unsigned_abs() * BLOCK;
    let found = bits.bytes().zip(start..).filter(move |(bit, _)| *bit == wanted);
    found.map(|(_, sequence)| sequence)
}

/// What became of readings, by org and hour, from one hour to another, both included.
pub async fn hours(
    database: &Database,
    (first, last): (Timestamp, Timestamp),
) -> Result<Vec<Hour>, Fault> {
    let asked = sqlx::query_as(
        "select org_id, hour, array[sum(messages), sum(readings), sum(stored), sum(superseded), \
            sum(duplicate), sum(deleted), sum(dead)]::bigint[] \
         from core.ledger where org_id > 0 and hour between $1 and $2 group by 1, 2 order by 2, 1",
    )
    .bind(first.to_chrono())
    .bind(last.to_chrono())
    .fetch_all(&database.pool);
    let found: Vec<(i32, DateTime<Utc>, Vec<i64>)> =
        answered(database.patience(false), asked).await?;
    let hour = |(org, hour, sums): (i32, DateTime<Utc>, Vec<i64>)| {
        let sum = |at: usize| sums.get(at).map_or(0, |sum| sum.unsigned_abs());
        let [stored, superseded, duplicate, deleted, dead] = [2, 3, 4, 5, 6].map(sum);
        Ok(Hour {
            org: OrgId(org),
            hour: moment(hour)?,
            messages: sum(0),
            readings: sum(1),
            fates: Fates { stored, superseded, duplicate, deleted, dead },
        })
    };
    found.into_iter().map(hour).collect()
}

/// Hours whose readings are not all accounted for, of any time.
pub async fn unbalanced(database: &Database) -> Result<Vec<(OrgId, Timestamp, i64)>, Fault> {
    let asked = sqlx::query_as(
        "select org_id, hour, (sum(readings) - sum(stored + superseded + duplicate + deleted + dead))\
            ::bigint \
         from core.ledger where readings <> stored + superseded + duplicate + deleted + dead \
         group by 1, 2 having sum(readings) <> sum(stored + superseded + duplicate + deleted + dead) \
         order by 2, 1 limit 100",
    )
    .fetch_all(&database.pool);
    let found: Vec<(i32, DateTime<Utc>, i64)> = answered(database.patience(false), asked).await?;
    found.into_iter().map(|(org, hour, off)| Ok((OrgId(org), moment(hour)?, off))).collect()
}

/// How many rows each org has, by the ledger.
pub async fn counted(database: &Database) -> Result<BTreeMap<OrgId, i64>, Fault> {
    let asked =
        sqlx::query_as("select org_id, counted from core.ledger_rows").fetch_all(&database.pool);
    let found: Vec<(i32, i64)> = answered(database.patience(false), asked).await?;
    Ok(found.into_iter().map(|(org, rows)| (OrgId(org), rows)).collect())
}

/// How many rows an org has, by the ledger and by counting them: of one moment, beside writers.
pub async fn rows(database: &Database, org: &OrgRef) -> Result<Rows, Fault> {
    let asked = sqlx::query_scalar("select to_regclass($1) is not null").bind(org.values());
    let there = answered(database.patience(false), asked.fetch_one(&database.pool)).await?;
    // An org that is new here has no table yet.
    let found =
        if there { format!("(select count(*) from {})", org.values()) } else { "0".to_owned() };
    let sql = format!(
        "select coalesce((select counted from core.ledger_rows where org_id = $1), 0), {found}::bigint"
    );
    let mut connection = database.borrow().await?;
    unlimited(&mut connection.held).await?;
    let (counted, found): (i64, i64) =
        sqlx::query_as(AssertSqlSafe(sql)).bind(org.id.0).fetch_one(&mut *connection.held).await?;
    sqlx::raw_sql("commit").execute(&mut *connection.held).await?;
    connection.give_back();
    Ok(Rows { counted, found: Some(found) })
}

/// Folds what is below blocks in which nothing can be delivered again, of hours before one; whether there is
/// more.
pub async fn fold(
    database: &Database,
    (below, origins_below): (u64, u64),
    before: Timestamp,
) -> Result<bool, Fault> {
    const MOST: i32 = 200;
    let asked = sqlx::query_scalar("select core.fold_ledger($1, $2, $3, $4)")
        .bind((below / BLOCK).cast_signed())
        .bind((origins_below / BLOCK).cast_signed())
        .bind(hour_of(before).to_chrono())
        .bind(MOST)
        .fetch_one(&database.pool);
    let folded: i32 = answered(database.patience(false), asked).await?;
    Ok(folded >= MOST)
}

/// Makes the ledger say as many rows as there are, after somebody made sure that they are right.
pub async fn settle_rows(database: &Database, org: &OrgRef) -> Result<(), Fault> {
    let Rows { counted, found } = rows(database, org).await?;
    note_more(database, org, found.unwrap_or(counted) - counted).await
}

/// Makes the ledger say so many rows more.
pub async fn note_more(database: &Database, org: &OrgRef, more: i64) -> Result<(), Fault> {
    if more != 0 {
        let noted = sqlx::query("select core.note_rows($1, $2)")
            .bind(org.id.0)
            .bind(more)
            .execute(&database.pool);
        answered(database.patience(false), noted).await?;
    }
    Ok(())
}

/// Takes the fates of readings as they are, where there are more or fewer than readings.
pub async fn settle_fates(database: &Database) -> Result<(), Fault> {
    let settled = sqlx::query(
        "update core.ledger set readings = stored + superseded + duplicate + deleted + dead \
         where readings <> stored + superseded + duplicate + deleted + dead",
    )
    .execute(&database.pool);
    answered(database.patience(false), settled).await?;
    Ok(())
}
