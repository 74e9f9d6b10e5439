//! Migrations of building data and simulator state: embedded, forward-only, safe twice and by two at once.

use crate::{
    connect::Database,
    fault::{Fault, Verdict},
};
use sqlx::migrate::{MigrateError, Migrator};
use std::time::Duration;

/// Where applied migrations are kept.
pub(crate) const TABLE: &str = "core.schema_migrations";

/// How long a migration may wait for one that another instance runs, and how long it may run.
const PATIENCE: Duration = Duration::from_hours(1);

/// Why the tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateFault {
    /// The database failed.
    #[error("migration: {0}")]
    Database(#[from] Fault),
    /// The tables were made by a newer version of the platform, or changed by hand.
    #[error("migration: {0}; this database was migrated by another version of the platform")]
    Foreign(String),
}

/// The migrations that this version knows.
pub(crate) fn building() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/building");
    migrator.dangerous_set_table_name(TABLE);
    migrator.create_schema("core");
    migrator
}

/// The same of simulator state.
fn state() -> Migrator {
    let mut migrator = sqlx::migrate!("../migrations/state");
    migrator.dangerous_set_table_name(TABLE);
    migrator.create_schema("core");
    migrator
}

/// Brings the tables of building data up to date, and gives the writing role its rights. The login
/// must be the tables' owner.
pub async fn run(database: &Database) -> Result<(), MigrateFault> {
    migrate(database, building()).await
}

/// The same for the database of simulator state.
pub async fn run_state(database: &Database) -> Result<(), MigrateFault> {
    migrate(database, state()).await
}

/// Tries where a migration and a service that runs lock the same tables in another order.
const TRIES: u32 = 5;

async fn migrate(database: &Database, migrator: Migrator) -> Result<(), MigrateFault> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match migrate_once(database, &migrator).await {
            Err(MigrateFault::Database(fault)) if fault.verdict == Verdict::Again && left > 0 => {}
            done => return done,
        }
    }
}

async fn migrate_once(database: &Database, migrator: &Migrator) -> Result<(), MigrateFault> {
    let mut connection = database.borrow().await?;
    let limit = PATIENCE.as_millis();
    let limits = format!("set statement_timeout = {limit}; set lock_timeout = {limit}");
    let raw = |sql| sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    raw(limits).execute(&mut *connection.held).await.map_err(Fault::from)?;
    migrator.run(&mut *connection.held).await.map_err(fault)?;
    let grants = "begin; select core.grant_access(); commit".to_owned();
    raw(grants).execute(&mut *connection.held).await.map_err(Fault::from)?;
    // The connection is closed, not given back: its limits are those of a migration.
    Ok(())
}

fn fault(error: MigrateError) -> MigrateFault {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            MigrateFault::Database(error.into())
        }
        other => MigrateFault::Foreign(other.to_string()),
    }
}
