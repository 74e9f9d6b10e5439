//! The two databases that everything is written into, and what only a measure asks of them.

use crate::machine;
use anyhow::{Context, Result};
use domain::{Timestamp, model::Record};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use std::{path::PathBuf, time::Duration};
use store::{Database, Limits, Login, OrgRef, Projection, verify};
use testkit::Postgres;

/// Settings that decide how fast it can be; all that differ from PostgreSQL's defaults are shown.
const SETTINGS: &str = "select name || ' = ' || current_setting(name) from pg_settings \
    where source = 'configuration file' and context <> 'internal' \
      and name !~ '^(lc_|log_timezone|port|listen|unix_socket|default_text)' order by name";

/// One target: a cluster of its own with one database.
pub(crate) struct Target {
    /// Its name in the configuration.
    pub(crate) name: &'static str,
    cluster: Postgres,
    inside: testkit::Database,
    /// As the role that writes.
    pub(crate) writer: Database,
}

impl Target {
    /// Starts a cluster with production settings and brings a database to this release.
    pub(crate) async fn start(name: &'static str) -> Result<Self> {
        let cluster = Postgres::start_safe().await;
        let inside = cluster.database().await;
        let open = |url| {
            let login = Login { url, pgpass: Some(inside.passfile().to_owned()) };
            Database::open(&login, "haystack bench", Limits::default())
        };
        let owner = open(inside.owner_url())?;
        store::migrate::run(&owner).await.context("migrating")?;
        owner.close().await;
        let writer = open(inside.ingest_url())?;
        Ok(Self { name, cluster, inside, writer })
    }

    /// A database of simulators' state in the same cluster.
    pub(crate) async fn state(&self) -> Result<testkit::Database> {
        let state = self.cluster.state_database().await;
        let login = Login { url: state.owner_url(), pgpass: Some(state.passfile().to_owned()) };
        let owner = Database::open(&login, "haystack bench", Limits::default())?;
        store::migrate::run_state(&owner).await.context("migrating")?;
        owner.close().await;
        Ok(state)
    }

    /// Fresh databases for `bench/peers`, by the names that they expect: the port and the passwords.
    pub(crate) async fn for_peers(&self, names: &[&str]) -> Result<(u16, PathBuf)> {
        let mut connection = self.superuser().await?;
        let owner = local::roles::OWNER;
        let mut statements = vec![format!("grant pg_checkpoint to {owner}")];
        for name in names {
            statements.push(format!("drop database if exists {name}"));
            statements.push(format!("create database {name} owner {owner}"));
        }
        for statement in statements {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        }
        Ok((self.cluster.port(), self.inside.passfile().to_owned()))
    }

    /// Into another database of the cluster.
    pub(crate) async fn beside(&self, name: &str) -> Result<PgConnection> {
        Ok(self.inside.superuser().database(name).connect().await?)
    }

    /// The postmaster.
    pub(crate) fn pid(&self) -> u32 {
        self.cluster.pid().unwrap_or(0)
    }

    /// The URL of the role that writes.
    pub(crate) fn url(&self) -> String {
        self.inside.ingest_url()
    }

    /// Lines of a `pgpass` file.
    pub(crate) fn pgpass(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.inside.passfile())?)
    }

    /// Makes the org's tables; ingest goes on from there.
    pub(crate) async fn make_org(&self, sequence: u64, org: &Record) -> Result<()> {
        let mut projection = Projection::begin(&self.writer).await?;
        projection.apply(sequence, org).await?;
        projection.commit(sequence).await?;
        Ok(())
    }

    pub(crate) async fn superuser(&self) -> Result<PgConnection> {
        Ok(self.inside.superuser().connect().await?)
    }

    /// New, empty files for the org's tables, nothing left to write back.
    pub(crate) async fn empty(&self, org: &OrgRef) -> Result<()> {
        let key = &org.key;
        let sql = format!(
            "truncate core.values_{key}, core.values_{key}_current, core.telemetry_raw, \
             core.device_presence, core.ledger, core.ledger_origins, core.ledger_rows, \
             core.ledger_since; checkpoint"
        );
        let mut connection = self.superuser().await?;
        for statement in sql.split(';') {
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
        }
        Ok(())
    }

    /// Writes back what is dirty, so that the next measure does not pay for the last one.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        sqlx::raw_sql("checkpoint").execute(&mut self.superuser().await?).await?;
        Ok(())
    }

    /// Devices that are there.
    pub(crate) async fn online(&self) -> Result<u64> {
        let query = sqlx::query_scalar("select count(*) from core.device_presence where online");
        let count: i64 = query.fetch_one(&mut self.superuser().await?).await?;
        Ok(count as u64)
    }

    /// Forgets which devices are there.
    pub(crate) async fn forget_presence(&self) -> Result<()> {
        let sql = "truncate core.device_presence";
        sqlx::raw_sql(sql).execute(&mut self.superuser().await?).await?;
        Ok(())
    }

    /// Rows of an org.
    pub(crate) async fn count(&self, org: &OrgRef) -> Result<u64> {
        let sql = format!("select count(*) from core.values_{}", org.key);
        let query = sqlx::query_scalar(AssertSqlSafe(sql));
        let count: i64 = query.fetch_one(&mut self.superuser().await?).await?;
        Ok(count as u64)
    }

    /// What the configuration sets.
    pub(crate) async fn settings(&self) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(SETTINGS).fetch_all(&mut self.superuser().await?).await?)
    }

    /// What it is.
    pub(crate) async fn version(&self) -> Result<String> {
        let server = store::inspect::server(&self.writer).await?;
        Ok(match server.timescale {
            Some(timescale) => {
                format!("PostgreSQL {} with TimescaleDB {timescale}", server.version)
            }
            None => format!("PostgreSQL {}", server.version),
        })
    }
}

/// Fails unless each target holds exactly `rows` rows and, where there are several, the same.
pub(crate) async fn check(targets: &[&Target], org: &OrgRef, rows: u64) -> Result<()> {
    let mut first = None;
    for target in targets {
        let hours =
            verify::hours(&target.writer, org, verify::Recent::since(Timestamp::MAX)).await?;
        let count: i64 = hours.values().map(|sum| sum.rows).sum();
        let name = target.name;
        anyhow::ensure!(count as u64 == rows, "{name} holds {count} rows, {rows} are expected");
        let same = first.get_or_insert_with(|| hours.clone()) == &hours;
        anyhow::ensure!(same, "{name} differs from the first target");
    }
    Ok(())
}

/// Empties tables, waits for a quiet machine and tells whether it came to that.
pub(crate) async fn fresh(targets: &[Target], org: &OrgRef, wait: Duration) -> Result<bool> {
    for target in targets {
        target.empty(org).await?;
    }
    Ok(machine::quiet(wait).await)
}
