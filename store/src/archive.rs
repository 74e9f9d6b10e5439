//! Device messages as they came, on record: added once, never changed.

use crate::{
    connect::{Database, answered},
    copy::{copy, field, fields, optional, time},
    fault::{Fault, Verdict, classify},
    read::moment,
    write::Committed,
};
use chrono::{DateTime, Utc};
use domain::{
    DeviceId, OrgKey, Position, Timestamp, TypeId,
    raw::{ProfileRef, RawMessage, Sender},
};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use std::borrow::Cow;

const TABLE: &str = "core.telemetry_raw";
/// Lives as long as its connection, empty between transactions.
const STAGING: &str = "archive_staging";
const COLUMNS: &str = "accepted_at, sequence, index, received_at, org_key, device_id, device_type, \
     profile_version, name, content_type, session, packet_id, number, payload";
const FIELDS: i16 = 14;
/// Rows that one call of [`expire`] removes at most.
pub const EXPIRE_ROWS: i32 = 10_000;

/// A message and where it stands in `RAW`.
#[derive(Debug, Clone)]
pub struct Entry<'m> {
    /// Of the pack.
    pub position: Position,
    /// Its place in the pack.
    pub index: u16,
    /// The message.
    pub message: RawMessage<'m>,
}

/// A message of the archive by its place in `RAW`, and when it was accepted, where that is known: then only
/// a part of the archive is looked at.
pub async fn find(
    database: &Database,
    sequence: u64,
    index: u16,
    accepted_at: Option<Timestamp>,
) -> Result<Option<(Position, RawMessage<'static>)>, Fault> {
    let sql = format!(
        "select {COLUMNS} from {TABLE} where sequence = $1 and index = $2 \
         and ($3::timestamptz is null or accepted_at = $3) limit 1"
    );
    let asked = sqlx::query(AssertSqlSafe(sql))
        .bind(sequence as i64)
        .bind(i32::from(index))
        .bind(accepted_at.map(Timestamp::to_chrono))
        .fetch_optional(&database.pool);
    let Some(row) = answered(database.patience(false), asked).await? else { return Ok(None) };
    let (org, device): (Option<String>, Option<String>) = (row.try_get(4)?, row.try_get(5)?);
    let (kind, version): (Option<String>, Option<i32>) = (row.try_get(6)?, row.try_get(7)?);
    // What can't have been written is read as a sender that nobody knew.
    let sender = || {
        let id = TypeId::parse(&kind?).ok()?;
        let profile = ProfileRef { id, version: version?.try_into().ok()? };
        Some(Sender {
            org: OrgKey::parse(&org?).ok()?,
            device: DeviceId::parse(&device?).ok()?,
            profile,
        })
    };
    let stored_at = moment(row.try_get::<DateTime<Utc>, _>(0)?)?;
    let message = RawMessage {
        name: row.try_get::<String, _>(8)?.into(),
        sender: sender(),
        content_type: row.try_get::<String, _>(9)?.into(),
        received_at: moment(row.try_get::<DateTime<Utc>, _>(3)?)?,
        session: row.try_get::<i64, _>(10)? as u64,
        packet_id: row.try_get::<i32, _>(11)? as u16,
        number: row.try_get::<i64, _>(12)? as u64,
        payload: row.try_get::<Vec<u8>, _>(13)?.into(),
    };
    Ok(Some((Position { sequence, stored_at }, message)))
}

/// How many messages of a device were accepted in a span of time, as far as the archive goes.
pub async fn count(
    database: &Database,
    device: &DeviceId,
    (from, to): (Timestamp, Timestamp),
) -> Result<u64, Fault> {
    let sql = format!(
        "select count(*) from {TABLE} where device_id = $1 and accepted_at between $2 and $3"
    );
    let asked = sqlx::query_as(AssertSqlSafe(sql))
        .bind(device.as_str())
        .bind(from.to_chrono())
        .bind(to.to_chrono())
        .fetch_one(&database.pool);
    let (count,): (i64,) = answered(database.patience(false), asked).await?;
    Ok(count.max(0) as u64)
}

/// Adds messages; those that are there already stay as they are.
pub async fn write(database: &Database, entries: &[Entry<'_>]) -> Result<Committed, Fault> {
    let mut connection = database.borrow().await?;
    let held = &mut *connection.held;
    let added = answered(database.patience(false), async {
        let added = add(held, entries).await;
        if added.is_err() {
            // What the server said counts; a connection that is gone is not given back.
            let _ = sqlx::raw_sql("rollback").execute(&mut *held).await;
        }
        added
    })
    .await?;
    connection.give_back();
    Ok(Committed::archived(entries.len() as u64, added))
}

async fn add(connection: &mut PgConnection, entries: &[Entry<'_>]) -> sqlx::Result<u64> {
    let run = |sql: String| sqlx::raw_sql(AssertSqlSafe(sql));
    run("begin; savepoint straight".to_owned()).execute(&mut *connection).await?;
    let added = match copy(connection, TABLE, COLUMNS, entries, encode).await {
        // Some came again.
        Err(error) if classify(&error).verdict == Verdict::Conflict => {
            let stage = format!(
                "rollback to savepoint straight; \
                 create temp table if not exists {STAGING} (like {TABLE}) on commit delete rows"
            );
            run(stage).execute(&mut *connection).await?;
            copy(connection, STAGING, COLUMNS, entries, encode).await?;
            let merge = format!(
                "insert into {TABLE} ({COLUMNS}) select {COLUMNS} from {STAGING} \
                 on conflict do nothing"
            );
            run(merge).execute(&mut *connection).await?.rows_affected()
        }
        added => added?,
    };
    run("commit".to_owned()).execute(connection).await?;
    Ok(added)
}

fn encode(buffer: &mut Vec<u8>, entry: &Entry<'_>) {
    let Entry { position, index, message } = entry;
    let sender = message.sender.as_ref();
    let text = |buffer: &mut Vec<u8>, text: Option<&str>| optional(buffer, text.map(str::as_bytes));
    fields(buffer, FIELDS);
    field(buffer, &time(position.stored_at));
    field(buffer, &position.sequence.to_be_bytes());
    field(buffer, &i32::from(*index).to_be_bytes());
    field(buffer, &time(message.received_at));
    text(buffer, sender.map(|sender| sender.org.as_str()));
    text(buffer, sender.map(|sender| sender.device.as_str()));
    text(buffer, sender.map(|sender| sender.profile.id.as_str()));
    optional(
        buffer,
        sender.map(|sender| sender.profile.version.to_be_bytes()).as_ref().map(AsRef::as_ref),
    );
    text(buffer, Some(&keepable(&message.name)));
    text(buffer, Some(&keepable(&message.content_type)));
    field(buffer, &message.session.to_be_bytes());
    field(buffer, &i32::from(message.packet_id).to_be_bytes());
    field(buffer, &message.number.to_be_bytes());
    field(buffer, &message.payload);
}

/// A text as PostgreSQL takes it: without NUL characters.
fn keepable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// Removes what is older than the policy says, at most so many rows; gives how many went. Called again
/// until it gives none; with fewer rows where it takes too long (SQLSTATE 57014).
pub async fn expire(database: &Database, most: i32) -> Result<u64, Fault> {
    let mut connection = database.borrow().await?;
    let asked = sqlx::query_scalar("select core.expire_telemetry_raw($1)")
        .bind(most)
        .fetch_one(&mut *connection.held);
    let removed: i64 = answered(database.patience(false), asked).await?;
    connection.give_back();
    Ok(removed.cast_unsigned())
}

/// Makes the view of all orgs' values name the orgs that there are now. Short: where somebody reads the
/// view for long, it fails, and is to be tried again.
pub async fn refresh_history(database: &Database) -> Result<(), Fault> {
    database.run("set local lock_timeout = '200ms'; select core.refresh_history()").await
}

/// Sets how long the archive keeps messages, in days; 0: for ever. For the owner of the tables.
pub async fn set_policy(database: &Database, keep_days: u16) -> Result<(), Fault> {
    database.run(&format!("update core.archive_policy set keep_days = {keep_days}")).await
}
