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
    ledger::{BLOCK, Fates},
};
use sqlx::{AssertSqlSafe, postgres::PgBindIterExt};

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

    fn name(self) -> &'static str {
        match self {
            Self::Telemetry => "TELEMETRY",
            Self::Raw => "RAW",
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

/// Messages from one sequence to another, both included, that no org has noted and nothing explains.
pub async fn holes(
    database: &Database,
    stream: Noted,
    (first, last): (u64, u64),
) -> Result<Holes, Fault> {
    if first > last {
        return Ok(Holes::default());
    }
    let sql = format!(
        "select g.block, coalesce(b.seen, 0::bit(1024))::text \
         from generate_series($1::bigint, $2::bigint) as g (block) \
         left join (select block, bit_or(seen) as seen from {} where block between $1 and $2 \
            group by block) b using (block) \
         where b.seen is null or b.seen <> ~(0::bit(1024)) order by 1 limit $3",
        stream.table()
    );
    let blocks = (first / BLOCK, last / BLOCK);
    let asked = sqlx::query_as(AssertSqlSafe(sql))
        .bind(blocks.0.cast_signed())
        .bind(blocks.1.cast_signed())
        .bind(MOST_BLOCKS)
        .fetch_all(&database.pool);
    let found: Vec<(i64, String)> = answered(database.patience(false), asked).await?;
    let cut = found.len() as i64 >= MOST_BLOCKS;
    let of_block = |(block, bits): &(i64, String)| {
        let start = block.unsigned_abs() * BLOCK;
        let holes = bits.bytes().zip(start..).filter(|(bit, _)| *bit == b'0');
        holes.map(|(_, sequence)| sequence).collect::<Vec<_>>()
    };
    let mut sequences: Vec<u64> = found.iter().flat_map(of_block).collect();
    sequences.retain(|sequence| (first..=last).contains(sequence));
    let explained = explained(database, stream, &sequences).await?;
    sequences.retain(|sequence| explained.binary_search(sequence).is_err());
    Ok(Holes { sequences, cut })
}

async fn explained(
    database: &Database,
    stream: Noted,
    sequences: &[u64],
) -> Result<Vec<u64>, Fault> {
    if sequences.is_empty() {
        return Ok(Vec::new());
    }
    let asked = sqlx::query_scalar(
        "select sequence from core.ledger_explained where stream = $1 and sequence = any($2) \
         order by 1",
    )
    .bind(stream.name())
    .bind(sequences.iter().map(|sequence| sequence.cast_signed()).bind_iter())
    .fetch_all(&database.pool);
    let found: Vec<i64> = answered(database.patience(false), asked).await?;
    Ok(found.into_iter().map(i64::unsigned_abs).collect())
}

/// Writes down why nothing was noted of messages: sequence, fate, detail.
pub async fn explain(
    database: &Database,
    stream: Noted,
    found: &[(u64, &'static str, String)],
) -> Result<(), Fault> {
    let each = || found.iter();
    let written = sqlx::query(
        "insert into core.ledger_explained (stream, sequence, fate, detail) \
         select $1, t.* from unnest($2::bigint[], $3::text[], $4::text[]) as t \
         on conflict do nothing",
    )
    .bind(stream.name())
    .bind(each().map(|(sequence, ..)| sequence.cast_signed()).bind_iter())
    .bind(each().map(|(_, fate, _)| *fate).bind_iter())
    .bind(each().map(|(.., detail)| detail.as_str()).bind_iter())
    .execute(&database.pool);
    answered(database.patience(false), written).await?;
    Ok(())
}

/// How many messages are noted, and how many explained otherwise, from one sequence to another.
pub async fn noted(
    database: &Database,
    stream: Noted,
    (first, last): (u64, u64),
) -> Result<(u64, u64), Fault> {
    let sql = format!(
        "select coalesce((select sum(bit_count(seen)) from (select bit_or(seen) as seen from {} \
            where block between $1 and $2 group by block) b), 0)::bigint, \
         (select count(*) from core.ledger_explained e where stream = $3 \
            and sequence between $4 and $5 and not exists (select from {} l \
                where l.block = e.sequence / 1024 \
                and get_bit(l.seen, (e.sequence % 1024)::integer) = 1))",
        stream.table(),
        stream.table()
    );
    let asked = sqlx::query_as(AssertSqlSafe(sql))
        .bind((first / BLOCK).cast_signed())
        .bind((last / BLOCK).cast_signed())
        .bind(stream.name())
        .bind(first.cast_signed())
        .bind(last.cast_signed())
        .fetch_one(&database.pool);
    let (noted, explained): (i64, i64) = answered(database.patience(false), asked).await?;
    Ok((noted.unsigned_abs(), explained.unsigned_abs()))
}

/// What became of readings, by org and hour, from one hour to another, both included.
pub async fn hours(
    database: &Database,
    (first, last): (Timestamp, Timestamp),
) -> Result<Vec<Hour>, Fault> {
    let asked = sqlx::query_as(
        "select org_id, hour, array[sum(messages), sum(readings), sum(stored), sum(superseded), \
            sum(duplicate), sum(deleted), sum(dead)]::bigint[] \
         from core.ledger where hour between $1 and $2 group by 1, 2 order by 2, 1",
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

/// How many rows an org has, by the ledger, and where `look` says so, by counting them: of one moment, beside
/// writers.
pub async fn rows(database: &Database, org: &OrgRef, look: bool) -> Result<Rows, Fault> {
    let asked = sqlx::query_scalar("select to_regclass($1) is not null").bind(org.values());
    let there = answered(database.patience(false), asked.fetch_one(&database.pool));
    // An org that is new here has no table yet.
    let found = if look && there.await? {
        format!("(select count(*) from {})", org.values())
    } else {
        "null".to_owned()
    };
    let sql = format!(
        "select coalesce((select counted from core.ledger_rows where org_id = $1), 0), {found}::bigint"
    );
    let mut connection = database.borrow().await?;
    unlimited(&mut connection.held).await?;
    let (counted, found): (i64, Option<i64>) =
        sqlx::query_as(AssertSqlSafe(sql)).bind(org.id.0).fetch_one(&mut *connection.held).await?;
    sqlx::raw_sql("commit").execute(&mut *connection.held).await?;
    connection.give_back();
    Ok(Rows { counted, found })
}

/// Makes the ledger say as many rows as there are, after somebody made sure that they are right. How many more
/// there are now.
pub async fn settle_rows(database: &Database, org: &OrgRef) -> Result<i64, Fault> {
    let Rows { counted, found } = rows(database, org, true).await?;
    let more = found.unwrap_or(counted) - counted;
    if more != 0 {
        let settled = sqlx::query("select core.note_rows($1, $2)")
            .bind(org.id.0)
            .bind(more)
            .execute(&database.pool);
        answered(database.patience(false), settled).await?;
    }
    Ok(more)
}
