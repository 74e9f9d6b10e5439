//! What `status` and `doctor` ask a database.

use crate::{
    connect::{Database, answered},
    fault::Fault,
    migrate,
    org::OrgRef,
};
use chrono::{DateTime, Utc};
use domain::Timestamp;

/// A server and a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// E.g. `15.14`.
    pub version: String,
    /// E.g. `150014`: comparable.
    pub version_number: i32,
    /// TimescaleDB's version, where the extension is in this database.
    pub timescale: Option<String>,
    /// The database's size on disk.
    pub bytes: i64,
    /// Whether it refuses writes: a standby.
    pub read_only: bool,
    /// Connections that the server allows.
    pub max_connections: i32,
    /// The role we are.
    pub role: String,
}

/// Asks what the server is.
pub async fn server(database: &Database) -> Result<Server, Fault> {
    type Answer = (String, i32, Option<String>, i64, bool, i32, String);
    let asked = sqlx::query_as(
        "select current_setting('server_version'), \
                current_setting('server_version_num')::integer, \
                (select extversion::text from pg_extension where extname = 'timescaledb'), \
                pg_database_size(current_database()), pg_is_in_recovery(), \
                current_setting('max_connections')::integer, current_user::text",
    )
    .fetch_one(&database.pool);
    let (version, version_number, timescale, bytes, read_only, max_connections, role): Answer =
        answered(database.patience(false), asked).await?;
    Ok(Server { version, version_number, timescale, bytes, read_only, max_connections, role })
}

/// How a database's tables stand to what this version of the platform expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrations {
    /// As expected.
    Current,
    /// So many are still to be applied: `haystack migrate`.
    Missing(usize),
    /// A newer version of the platform, or a hand, was here.
    Foreign,
}

/// Compares the migrations that were applied with those that this version knows.
pub async fn migrations(database: &Database) -> Result<Migrations, Fault> {
    let known = migrate::building();
    let asked = sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(migrate::TABLE)
        .fetch_one(&database.pool);
    let there: bool = answered(database.patience(false), asked).await?;
    if !there {
        return Ok(Migrations::Missing(known.iter().count()));
    }
    let asked =
        sqlx::query_as("select version, checksum from core.schema_migrations where success")
            .fetch_all(&database.pool);
    let applied: Vec<(i64, Vec<u8>)> = answered(database.patience(false), asked).await?;
    let same = |(version, checksum): &(i64, Vec<u8>)| {
        known.iter().any(|m| m.version == *version && *m.checksum == **checksum)
    };
    if !applied.iter().all(same) {
        return Ok(Migrations::Foreign);
    }
    match known.iter().count() - applied.len() {
        0 => Ok(Migrations::Current),
        missing => Ok(Migrations::Missing(missing)),
    }
}

/// How far `MODEL` has been applied.
pub async fn model_position(database: &Database) -> Result<u64, Fault> {
    let asked =
        sqlx::query_scalar("select sequence from core.model_position").fetch_one(&database.pool);
    let position: i64 = answered(database.patience(false), asked).await?;
    Ok(position as u64)
}

/// Whether a role can write an org's readings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The org.
    pub org: OrgRef,
    /// What is missing, e.g. `insert on core.values_demo`; empty where all is well.
    pub missing: Vec<String>,
}

/// Whether `role` can write each org's tables, in the order of the orgs.
pub async fn access(database: &Database, role: &str) -> Result<Vec<Access>, Fault> {
    let mut all = Vec::new();
    for org in crate::read::orgs(database).await? {
        let missing = missing(database, role, &org).await?;
        all.push(Access { org, missing });
    }
    Ok(all)
}

async fn missing(database: &Database, role: &str, org: &OrgRef) -> Result<Vec<String>, Fault> {
    let tables = [org.values(), org.current(), "core.deletions".to_owned()];
    let tables = tables.map(|table| table.replace('"', ""));
    let asked = sqlx::query_scalar(
        "select case when to_regclass(t) is null then 'table ' || t \
                else p || ' on ' || t end \
         from unnest($1::text[]) with ordinality as tables (t, i) \
         cross join unnest(array['select', 'insert', 'update', 'delete']) with ordinality \
            as rights (p, j) \
         where case when to_regclass(t) is null then j = 1 \
            else not has_table_privilege($2, to_regclass(t), p) end \
         order by i, j",
    )
    .bind(tables.as_slice())
    .bind(role)
    .fetch_all(&database.pool);
    answered(database.patience(false), asked).await
}

/// What a COMMIT is worth on this server, and its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durability {
    /// Settings that are off and must be on for a COMMIT to survive a power cut.
    pub off: Vec<String>,
    /// The server's clock.
    pub now: Timestamp,
}

/// Asks for the settings of this session, which are those of the writing role.
pub async fn durability(database: &Database) -> Result<Durability, Fault> {
    let (off, now): (Vec<String>, DateTime<Utc>) = sqlx::query_as(
        "select coalesce(array_agg(name order by name) filter (where setting = 'off'), '{}'), \
            clock_timestamp() \
         from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit')",
    )
    .fetch_one(&database.pool)
    .await?;
    Ok(Durability { off, now: crate::read::moment(now)? })
}
