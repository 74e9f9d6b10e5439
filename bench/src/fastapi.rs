//! The API that ours replaces: `bench/peers/seed_api.py` under uvicorn, which writes two databases one after
//! the other, each in one of the clusters that ours writes.

use crate::{bulk::Door, http::Connection, options::PEERS, stack::Stack};
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::AssertSqlSafe;
use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Its databases, in the order of the targets.
const DATABASES: [&str; 2] = ["tele_primary", "tele_secondary"];
/// Processes that serve.
const WORKERS: u32 = 2;
/// Longest wait until it answers, and until it has ended.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// As `bench/peers/common.py` makes them.
const TABLES: &str = "create schema core; \
    create table core.values_demo(entity_id int not null, ts timestamptz not null, \
        value_n double precision, value_b boolean, value_s text, value_ts timestamptz, \
        primary key(entity_id, ts)); \
    create table core.values_demo_current(entity_id int primary key, ts timestamptz not null, \
        value_n double precision, value_b boolean, value_s text, value_ts timestamptz)";

/// The peer, while it runs.
pub(crate) struct FastApi {
    child: Child,
    /// Where it answers.
    pub(crate) door: Door,
}

impl FastApi {
    /// Starts it on fresh databases, and waits until it answers.
    pub(crate) async fn start(stack: &Stack, libraries: &Path) -> Result<Self> {
        let mut command = Command::new("python3");
        for (target, (name, port)) in stack.targets.iter().zip(DATABASES.into_iter().zip(PORTS)) {
            command.env(port, target.for_peers(&[name]).await?.0.to_string());
            let sql = format!("set role {}; {TABLES}", local::roles::OWNER);
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut target.beside(name).await?).await?;
        }
        let port = local::port::free(&[])?;
        let log = File::create(stack.folder().join("fastapi.log"))?;
        let child = command
            .args(["-m", "uvicorn", "seed_api:app", "--log-level", "warning"])
            .args(["--workers", &WORKERS.to_string(), "--port", &port.to_string()])
            .current_dir(PEERS)
            .env("PYTHONPATH", libraries.canonicalize()?)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PG_USER", local::roles::OWNER)
            .env("PGPASSFILE", stack.pgpass())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("can't start python3")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let door = Door { address, key: None, org: 1, first: 1 };
        let mut peer = Self { child, door };
        peer.answers(stack).await?;
        Ok(peer)
    }

    async fn answers(&mut self, stack: &Stack) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Ok(mut connection) = Connection::open(self.door.address, None).await {
                return connection.get("/openapi.json").await?.yes();
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || started.elapsed() > LIMIT {
                let log = std::fs::read_to_string(stack.folder().join("fastapi.log"));
                anyhow::bail!("the peer does not start:\n{}", log.unwrap_or_default());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The process that started the others.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Empty tables, nothing left to write back.
    pub(crate) async fn empty(&self, stack: &Stack) -> Result<()> {
        for (target, name) in stack.targets.iter().zip(DATABASES) {
            let sql = "truncate core.values_demo, core.values_demo_current";
            sqlx::raw_sql(sql).execute(&mut target.beside(name).await?).await?;
            target.checkpoint().await?;
        }
        Ok(())
    }

    /// Fails unless each database holds at least so many rows: an answer may be lost, a row may not.
    pub(crate) async fn check(&self, stack: &Stack, rows: u64) -> Result<()> {
        for (target, name) in stack.targets.iter().zip(DATABASES) {
            let query = sqlx::query_scalar("select count(*) from core.values_demo");
            let count: i64 = query.fetch_one(&mut target.beside(name).await?).await?;
            anyhow::ensure!(count as u64 >= rows, "the peer's {name} holds {count} of {rows} rows");
        }
        Ok(())
    }

    /// Stops it and waits until it has ended.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.terminate();
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            anyhow::ensure!(started.elapsed() < LIMIT, "the peer does not stop");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// As a service manager would: it ends its workers itself.
    fn terminate(&self) {
        let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM);
    }
}

/// The variables with the ports of its databases.
const PORTS: [&str; 2] = ["PG_PORT", "PG_PORT_SECONDARY"];

impl Drop for FastApi {
    fn drop(&mut self) {
        // After `stop` its number may be another's.
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
        }
    }
}
