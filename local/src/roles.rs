//! Roles and databases of a cluster, made once and then left alone, and the `pgpass` file.

use crate::{Postgres, Server, postgres, secret};
use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions,
};
use std::{fmt::Write, path::Path};

/// Owns the tables; migrations run as it.
pub const OWNER: &str = "haystack";
/// Writes them.
pub const INGEST: &str = "haystack_ingest";
/// Keeps simulators' state; in the state database alone.
pub const SIMULATOR: &str = "haystack_simulator";
/// Reads for callers of the API, under row-level security.
pub const API: &str = "haystack_api";
/// The database of building data, in every cluster.
pub const BUILDING: &str = "haystack";
/// The database of simulator state, in the primary's cluster.
pub const STATE: &str = "haystack_state";

/// The passwords of one cluster's roles.
#[derive(Clone)]
pub struct Roles {
    port: u16,
    owner: String,
    ingest: String,
    simulator: String,
    api: String,
}

impl Roles {
    /// Reads the passwords of a cluster's roles, or makes them at the first call.
    pub fn ensure(secrets: &Path, cluster: &str, port: u16) -> Result<Self> {
        let secret = |role| secret::ensure(secrets, &format!("postgres-{cluster}-{role}"));
        let (owner, ingest) = (secret("owner")?, secret("ingest")?);
        let (simulator, api) = (secret("simulator")?, secret("api")?);
        Ok(Self { port, owner, ingest, simulator, api })
    }

    /// How to sign in as the owner.
    pub fn owner(&self, database: &str) -> PgConnectOptions {
        postgres::options(self.port, OWNER, &self.owner, database)
    }

    /// How to sign in as the writer.
    pub fn ingest(&self, database: &str) -> PgConnectOptions {
        postgres::options(self.port, INGEST, &self.ingest, database)
    }

    /// How to sign in as the keeper of simulators' state.
    pub fn simulator(&self, database: &str) -> PgConnectOptions {
        postgres::options(self.port, SIMULATOR, &self.simulator, database)
    }

    /// How to sign in as the API.
    pub fn api(&self, database: &str) -> PgConnectOptions {
        postgres::options(self.port, API, &self.api, database)
    }

    fn all(&self) -> [(&'static str, &String); 4] {
        let Self { owner, ingest, simulator, api, .. } = self;
        [(OWNER, owner), (INGEST, ingest), (SIMULATOR, simulator), (API, api)]
    }

    /// `postgresql://{role}@127.0.0.1:{port}/{database}`, without the password.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// The lines of these roles in a `pgpass` file.
    pub fn pgpass(&self) -> String {
        let mut lines = String::new();
        for (role, password) in self.all() {
            for host in ["127.0.0.1", "localhost"] {
                let _ = writeln!(lines, "{host}:{}:*:{role}:{password}", self.port);
            }
        }
        lines
    }
}

/// Writes a `pgpass` file (0600) for the roles of all clusters.
pub fn write_pgpass(path: &Path, clusters: &[&Roles]) -> Result<()> {
    let lines: String = clusters.iter().map(|roles| roles.pgpass()).collect();
    secret::write(path, lines.as_bytes())
}

/// Makes roles, their passwords and the named databases of a running cluster, each only where it
/// is not there yet, and the extension `timescaledb` in the building database where it is
/// installed. Safe to repeat.
pub async fn set_up(cluster: &Postgres, roles: &Roles, databases: &[&str]) -> Result<()> {
    let what = || format!("can't set up the roles and databases of {}", cluster.name());
    let mut admin = cluster.superuser("postgres").connect().await.with_context(what)?;
    make_roles(&mut admin, roles).await.with_context(what)?;
    // Who has nothing to do there need not get in.
    let elsewhere = "revoke all on database postgres, template1 from public";
    admin.execute(elsewhere).await.with_context(what)?;
    for database in databases {
        make_database(&mut admin, database).await.with_context(what)?;
    }
    admin.close().await.with_context(what)?;
    for database in databases {
        let mut inside = cluster.superuser(database).connect().await.with_context(what)?;
        // Only the owner makes tables; before PostgreSQL 15 everybody could.
        inside.execute("revoke create on schema public from public").await.with_context(what)?;
        if cluster.timescaledb() && *database != STATE {
            inside
                .execute("create extension if not exists timescaledb")
                .await
                .with_context(what)?;
        }
        inside.close().await.with_context(what)?;
    }
    Ok(())
}

async fn make_roles(admin: &mut PgConnection, roles: &Roles) -> sqlx::Result<()> {
    // A statement that fails must not carry a password into the server's log.
    admin.execute("set log_min_error_statement = 'panic'").await?;
    admin.execute("set log_statement = 'none'").await?;
    for (role, password) in roles.all() {
        let known: Option<i32> = sqlx::query_scalar("select 1 from pg_roles where rolname = $1")
            .bind(role)
            .fetch_optional(&mut *admin)
            .await?;
        let verb = if known.is_some() { "alter" } else { "create" };
        // Passwords are letters and digits: `secret::ensure` lets nothing else through.
        let statement = format!(
            "{verb} role {role} login nosuperuser nocreatedb nocreaterole noreplication \
             nobypassrls password '{password}'"
        );
        admin.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
    }
    Ok(())
}

async fn make_database(admin: &mut PgConnection, database: &str) -> sqlx::Result<()> {
    let known: Option<i32> = sqlx::query_scalar("select 1 from pg_database where datname = $1")
        .bind(database)
        .fetch_optional(&mut *admin)
        .await?;
    if known.is_none() {
        let statement = format!("create database \"{database}\" owner {OWNER}");
        admin.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await?;
    }
    let role = if database == STATE { SIMULATOR } else { INGEST };
    // A state database of an earlier release was open to the other role.
    let rights = format!(
        "revoke all on database \"{database}\" from public, {INGEST}, {SIMULATOR}, {API};
         grant connect, temporary on database \"{database}\" to {role};
         grant connect on database \"{database}\" to {API}"
    );
    admin.execute(sqlx::raw_sql(AssertSqlSafe(rights))).await.map(drop)
}
