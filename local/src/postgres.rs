//! A PostgreSQL cluster of our own: made once, started in the foreground, on loopback TCP only.

use crate::{Account, PROBE_EVERY, PROBE_TIMEOUT, Server, account, find, secret};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tokio::time::timeout;

/// The server's configuration as we ship it.
pub const CONFIG: &str = include_str!("../conf/postgresql.conf");
/// What is added where TimescaleDB is installed.
pub const TIMESCALEDB: &str = include_str!("../conf/timescaledb.conf");
/// The superuser of a cluster. Only [`crate::set_up`] uses it.
pub const SUPERUSER: &str = "postgres";

/// A cluster that is being made; the pid of its maker follows.
const UNFINISHED: &str = "data.new-";
/// The superuser's password, while `initdb` reads it.
const PASSWORD: &str = "initdb-password-";
/// PostgreSQL's answer to a wrong password (SQLSTATE).
const WRONG_PASSWORD: &str = "28P01";
/// PostgreSQL's answer to an unknown role.
const UNKNOWN_ROLE: &str = "28000";

/// A PostgreSQL cluster laid out in a folder.
#[derive(Clone)]
pub struct Postgres {
    name: String,
    tools: find::PostgresTools,
    folder: PathBuf,
    account: Account,
    port: u16,
    password: String,
    timescaledb: bool,
    safe: bool,
}

/// How to lay out a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// The cluster's name, `primary`, `secondary`, …
    pub name: &'a str,
    /// Its folder. Made if need be.
    pub folder: &'a Path,
    /// The folder of secrets.
    pub secrets: &'a Path,
    /// The port to listen on.
    pub port: u16,
    /// Lines added to the configuration. They win.
    pub extra: &'a str,
    /// Whether TimescaleDB is used where it is installed.
    pub timescaledb: bool,
    /// Whether `initdb` waits for the disk. Only a test does without.
    pub safe: bool,
}

impl Postgres {
    /// Finds PostgreSQL (the version that wrote the data, where there is data), writes the
    /// configuration, and makes the superuser's password where it is not there yet. The data is
    /// made by [`Postgres::init`].
    pub fn lay_out(layout: Layout<'_>) -> Result<Self> {
        let chosen = Account::choose(&["postgres"])?.context(
            "started by root, PostgreSQL runs as the user postgres, which does not exist; run \
             `make setup`",
        )?;
        let folder = account::home(chosen, layout.folder)?;
        let account = account::owner(&folder.join("data"), chosen)?;
        let tools = find::postgres(major_of(&folder.join("data"))?)?;
        let password = secret::ensure(layout.secrets, &superuser_secret(layout.name))?;
        let mut config = CONFIG.replace("@PORT@", &layout.port.to_string());
        let timescaledb = layout.timescaledb && tools.timescaledb;
        if timescaledb {
            config += TIMESCALEDB;
        }
        config += layout.extra;
        let path = folder.join("postgresql.conf");
        secret::write(&path, config.as_bytes())?;
        account.own(&path)?;
        Ok(Self {
            name: format!("postgres-{}", layout.name),
            tools,
            folder,
            account,
            port: layout.port,
            password,
            timescaledb,
            safe: layout.safe,
        })
    }

    /// Makes the cluster's data where it is not there yet; tells whether it did. Takes a few
    /// seconds. A run that is killed in the middle leaves nothing that counts as a cluster.
    pub fn init(&self) -> Result<bool> {
        let data = self.data();
        if data.join("PG_VERSION").exists() {
            return Ok(false);
        }
        self.remove_unfinished()?;
        // A name of its own: an `initdb` of a run that was killed may still be writing.
        let unfinished = self.folder.join(format!("{UNFINISHED}{}", std::process::id()));
        self.account.folder(&unfinished)?;
        let password = self.folder.join(format!("{PASSWORD}{}", std::process::id()));
        secret::write(&password, self.password.as_bytes())?;
        self.account.own(&password)?;
        let done = self.initdb(&unfinished, &password);
        fs::remove_file(&password).context("can't remove the password file of initdb")?;
        done?;
        fs::rename(&unfinished, &data).with_context(|| {
            format!(
                "{} is there and holds no whole cluster: put back what was taken from it, or move \
                 it away to begin with an empty one",
                data.display()
            )
        })?;
        Ok(true)
    }

    /// Removes what earlier runs left when they were killed.
    fn remove_unfinished(&self) -> Result<()> {
        let entries = fs::read_dir(&self.folder).context("can't read the cluster's folder")?;
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let removed = if name.starts_with(UNFINISHED) {
                // While its maker still writes, this fails; the next start removes the rest.
                let _ = fs::remove_dir_all(&path);
                Ok(())
            } else if name.starts_with(PASSWORD) {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            removed.with_context(|| format!("can't remove {}", path.display()))?;
        }
        Ok(())
    }

    fn initdb(&self, data: &Path, password: &Path) -> Result<()> {
        let mut command = Command::new(self.tools.bin.join("initdb"));
        command.arg("--pgdata").arg(data).arg("--pwfile").arg(password).args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
        ]);
        if !self.safe {
            command.arg("--no-sync");
        }
        self.account.apply(&mut command);
        let output = command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .context("can't run initdb")?;
        anyhow::ensure!(
            output.status.success(),
            "initdb failed in {}: {}",
            self.folder.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// Where its files are; not where they were asked to be if its user could not reach that.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that PostgreSQL calls its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The programs that run it.
    pub fn tools(&self) -> &find::PostgresTools {
        &self.tools
    }

    /// Whether it runs with TimescaleDB.
    pub fn timescaledb(&self) -> bool {
        self.timescaledb
    }

    /// How to sign in as the superuser. For setting up roles and databases, and for tests.
    pub fn superuser(&self, database: &str) -> PgConnectOptions {
        options(self.port, SUPERUSER, &self.password, database)
    }
}

/// The file in the folder of secrets that holds the superuser's password of a cluster.
pub fn superuser_secret(cluster: &str) -> String {
    format!("postgres-{cluster}-superuser")
}

/// How to sign in on loopback, with nothing taken from the environment.
pub fn options(port: u16, user: &str, password: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(&Ipv4Addr::LOCALHOST.to_string())
        .port(port)
        .username(user)
        .password(password)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// The major version that wrote the data; `None` where there is none.
fn major_of(data: &Path) -> Result<Option<u32>> {
    match fs::read_to_string(data.join("PG_VERSION")) {
        Ok(text) => {
            let major = text.trim().parse();
            major.map(Some).with_context(|| format!("{} has a strange PG_VERSION", data.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", data.display())),
    }
}

impl Server for Postgres {
    fn name(&self) -> &str {
        &self.name
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn command(&self) -> Command {
        let mut config = std::ffi::OsString::from("--config-file=");
        config.push(self.folder.join("postgresql.conf"));
        let mut command = Command::new(self.tools.bin.join("postgres"));
        command.arg("-D").arg(self.data()).arg(config).current_dir(&self.folder);
        self.account.apply(&mut command);
        command
    }

    /// A fast shutdown: transactions are aborted, everything is written.
    fn stop_signal(&self) -> Signal {
        Signal::SIGINT
    }

    async fn ready(&self) -> Result<()> {
        let options = self.superuser("postgres");
        loop {
            match timeout(PROBE_TIMEOUT, options.connect()).await {
                Ok(Ok(mut connection)) => {
                    let data = sqlx::query_scalar("show data_directory");
                    let Ok(data): sqlx::Result<String> = data.fetch_one(&mut connection).await
                    else {
                        continue;
                    };
                    let _ = connection.close().await;
                    // Another cluster with our password, e.g. a copy of ours, has our port.
                    anyhow::ensure!(
                        fs::canonicalize(&data).ok() == fs::canonicalize(self.data()).ok(),
                        "what answers on port {} is the PostgreSQL in {data}, not ours",
                        self.port
                    );
                    return Ok(());
                }
                Ok(Err(sqlx::Error::Database(error)))
                    if matches!(error.code().as_deref(), Some(WRONG_PASSWORD | UNKNOWN_ROLE)) =>
                {
                    anyhow::bail!(
                        "what answers on port {} is not our PostgreSQL, or its password is not \
                         the one in the secrets folder: {error}",
                        self.port
                    );
                }
                _ => tokio::time::sleep(PROBE_EVERY).await,
            }
        }
    }
}
