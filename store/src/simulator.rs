//! What simulators remember between two intervals, and their activity log, in the state database.
//!
//! Every write bears the epoch of the writer's lease. A row that a later owner wrote is left alone,
//! and the writer is told.

use crate::{
    connect::{Borrowed, Database, answered},
    fault::Fault,
    view::bounded,
};
use domain::{
    SimulatorId, Timestamp,
    simulator::{Activity, EventType, Pace, SimulatorConfig, Status},
};
use sqlx::{PgConnection, Row as _, postgres::PgRow, types::Json};
use std::collections::BTreeMap;

/// Lines of the activity log that a simulator keeps.
const KEPT_ACTIVITIES: i64 = 20_000;
/// What is older goes once a simulated day (in microseconds), and when it is told something while
/// it stands.
const TRIM_EVERY: i64 = 86_400_000_000;

/// A simulator as it was saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// Which.
    pub id: SimulatorId,
    /// The instance of the service that saved it.
    pub service_name: String,
    /// The last interval boundary whose readings are stored.
    pub at: Timestamp,
    /// What each meter shows.
    pub totalizers: BTreeMap<String, f64>,
    /// What it does.
    pub status: Status,
    /// What it simulates.
    pub config: SimulatorConfig,
    /// Why it waits or can't run.
    pub error: Option<String>,
    /// How it goes through time.
    pub pace: Pace,
    /// How often it began anew.
    pub run: u64,
    /// Where this run's building remembered nothing.
    pub begun_at: Timestamp,
    /// Whether the run had more than one description: then it can't be played again.
    pub changed: bool,
    /// Stands for all descriptions of the run, in their order.
    pub lineage: u64,
    /// The building's memory, as bytes that the simulator reads.
    pub memory: Vec<u8>,
    /// The epoch under which it was saved; [`save`] is told the one to save under.
    pub epoch: u64,
    /// When it was saved first.
    pub created_at: Timestamp,
    /// When it was saved last.
    pub updated_at: Timestamp,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saving {
    /// It is committed.
    Done,
    /// A later owner has written: this one lost its lease.
    Fenced,
}

/// Reads a simulator's state; `None` where it never ran.
pub async fn load(database: &Database, id: SimulatorId) -> Result<Option<Saved>, Fault> {
    let mut connection = database.borrow().await?;
    let row = sqlx::query(
        "select service_name, last_run_timestamp, totalizers, status, config, error_message, \
             pace, run, begun_at, changed, lineage, memory, epoch, created_at, updated_at \
             from core.simulator_state where simulator_id = $1",
    )
    .bind(id.0)
    .fetch_optional(&mut *connection.held);
    let row = answered(database.patience(false), row).await?;
    connection.give_back();
    row.map(|row| read(id, &row)).transpose()
}

fn read(id: SimulatorId, row: &sqlx::postgres::PgRow) -> Result<Saved, Fault> {
    let status: String = row.try_get("status")?;
    let status = serde_json::from_value(status.into())
        .map_err(|error| Fault::hold(format!("simulator_state.status: {error}")))?;
    let Json(totalizers) = row.try_get("totalizers")?;
    let Json::<SimulatorConfig>(config) = row.try_get("config")?;
    let Json(pace) = row.try_get("pace")?;
    let lineage: Option<i64> = row.try_get("lineage")?;
    Ok(Saved {
        id,
        lineage: lineage.map_or_else(|| config.fingerprint(), i64::cast_unsigned),
        service_name: row.try_get("service_name")?,
        at: moment(row, "last_run_timestamp")?,
        totalizers,
        status,
        config,
        error: row.try_get("error_message")?,
        pace,
        run: row.try_get::<i64, _>("run")? as u64,
        begun_at: moment(row, "begun_at")?,
        changed: row.try_get("changed")?,
        memory: row.try_get("memory")?,
        epoch: row.try_get::<i64, _>("epoch")? as u64,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}

fn moment(row: &sqlx::postgres::PgRow, column: &str) -> Result<Timestamp, Fault> {
    let at: chrono::DateTime<chrono::Utc> = row.try_get(column)?;
    Timestamp::from_chrono(at).ok_or_else(|| Fault::hold(format!("{column}: out of range")))
}

/// Saves a simulator's state and what happened, in one transaction, unless a later owner has
/// written meanwhile.
pub async fn save(
    database: &Database,
    epoch: u64,
    saved: &Saved,
    activities: &[Activity],
) -> Result<Saving, Fault> {
    let connection = database.borrow().await?;
    answered(database.patience(false), save_on(connection, epoch, saved, activities)).await
}

async fn save_on(
    mut connection: Borrowed,
    epoch: u64,
    saved: &Saved,
    activities: &[Activity],
) -> Result<Saving, Fault> {
    let held = &mut *connection.held;
    sqlx::raw_sql("begin").execute(&mut *held).await?;
    let written = upsert(held, epoch, saved).await?;
    if !written {
        sqlx::raw_sql("rollback").execute(held).await?;
        connection.give_back();
        return Ok(Saving::Fenced);
    }
    for activity in activities {
        log(held, activity).await?;
    }
    let stands = matches!(saved.status, Status::Stopped | Status::Error);
    if stands || saved.at.micros() % TRIM_EVERY == 0 {
        trim(held, saved.id).await?;
    }
    sqlx::raw_sql("commit").execute(held).await?;
    connection.give_back();
    Ok(Saving::Done)
}

async fn upsert(held: &mut PgConnection, epoch: u64, saved: &Saved) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into core.simulator_state as s (simulator_id, service_name, last_run_timestamp, \
             totalizers, status, config, error_message, epoch, run, pace, memory, begun_at, changed, \
             lineage, created_at, updated_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
         on conflict (simulator_id) do update set service_name = excluded.service_name, \
             last_run_timestamp = excluded.last_run_timestamp, totalizers = excluded.totalizers, \
             status = excluded.status, config = excluded.config, \
             error_message = excluded.error_message, epoch = excluded.epoch, run = excluded.run, \
             pace = excluded.pace, memory = excluded.memory, \
             begun_at = excluded.begun_at, changed = excluded.changed, \
             lineage = excluded.lineage, updated_at = excluded.updated_at \
         where s.epoch <= excluded.epoch",
    )
    .bind(saved.id.0)
    .bind(&saved.service_name)
    .bind(saved.at.to_chrono())
    .bind(Json(&saved.totalizers))
    .bind(saved.status.as_str())
    .bind(Json(&saved.config))
    .bind(&saved.error)
    .bind(epoch as i64)
    .bind(saved.run as i64)
    .bind(Json(saved.pace))
    .bind(&saved.memory)
    .bind(saved.begun_at.to_chrono())
    .bind(saved.changed)
    .bind(saved.lineage.cast_signed())
    .bind(saved.created_at.to_chrono())
    .bind(saved.updated_at.to_chrono())
    .execute(held)
    .await?;
    Ok(done.rows_affected() == 1)
}

async fn log(held: &mut PgConnection, activity: &Activity) -> sqlx::Result<()> {
    sqlx::query(
        "insert into core.simulator_activity_log \
             (simulator_id, timestamp, event_type, message, details) \
         values ($1, $2, $3, $4, $5)",
    )
    .bind(activity.simulator_id.0)
    .bind(activity.timestamp.to_chrono())
    .bind(activity.event_type.as_str())
    .bind(&activity.message)
    .bind(&activity.details)
    .execute(held)
    .await
    .map(drop)
}

async fn trim(held: &mut PgConnection, id: SimulatorId) -> sqlx::Result<()> {
    sqlx::query(
        "delete from core.simulator_activity_log where simulator_id = $1 and id <= ( \
             select id from core.simulator_activity_log where simulator_id = $1 \
             order by id desc offset $2 limit 1)",
    )
    .bind(id.0)
    .bind(KEPT_ACTIVITIES)
    .execute(held)
    .await
    .map(drop)
}

/// A line of the activity log with its number.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Logged {
    /// Its number: a reader goes on behind it.
    pub id: i64,
    /// What happened.
    #[serde(flatten)]
    pub activity: Activity,
}

/// Which lines of an activity log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lines {
    /// Behind this number.
    pub after: i64,
    /// Not before this moment.
    pub from: Option<Timestamp>,
    /// Before this moment.
    pub to: Option<Timestamp>,
    /// Of this kind.
    pub event_type: Option<EventType>,
    /// The first of them, instead of the last.
    pub first: bool,
}

/// So many lines of a simulator's log, in order.
pub async fn activities(
    database: &Database,
    id: SimulatorId,
    lines: &Lines,
    limit: i64,
) -> Result<(Vec<Logged>, bool), Fault> {
    let mut connection = database.borrow().await?;
    let direction = if lines.first { "asc" } else { "desc" };
    let sql = format!(
        "select * from (select id, timestamp, event_type, message, details \
             from core.simulator_activity_log where simulator_id = $1 and id > $2 \
             and ($4::timestamptz is null or timestamp >= $4) \
             and ($5::timestamptz is null or timestamp < $5) \
             and ($6::text is null or event_type = $6) \
             order by id {direction} limit $3) as chosen order by id {direction}"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.0)
        .bind(lines.after)
        .bind(limit)
        .bind(lines.from.map(Timestamp::to_chrono))
        .bind(lines.to.map(Timestamp::to_chrono))
        .bind(lines.event_type.map(EventType::as_str))
        .fetch(&mut *connection.held);
    let bytes = |row: &PgRow| {
        row.try_get_raw("details").map_or(0, |it| it.as_bytes().map_or(0, <[u8]>::len))
    };
    let (rows, whole) = answered(database.patience(false), bounded(rows, bytes)).await?;
    if whole {
        connection.give_back();
    }
    let mut logged: Vec<Logged> =
        rows.iter().map(|row| self::logged(id, row)).collect::<Result<_, _>>()?;
    if !lines.first {
        logged.reverse();
    }
    Ok((logged, whole))
}

fn logged(simulator_id: SimulatorId, row: &sqlx::postgres::PgRow) -> Result<Logged, Fault> {
    let event_type: String = row.try_get("event_type")?;
    let event_type: EventType = serde_json::from_value(event_type.into())
        .map_err(|error| Fault::hold(format!("simulator_activity_log: {error}")))?;
    Ok(Logged {
        id: row.try_get("id")?,
        activity: Activity {
            simulator_id,
            timestamp: moment(row, "timestamp")?,
            event_type,
            message: row.try_get("message")?,
            details: row.try_get("details")?,
        },
    })
}
