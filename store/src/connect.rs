//! A target's connections: where it is, who we are there, and how long we wait.

use crate::{
    fault::Fault,
    nodelay,
    pgpass::{self, Lookup},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

/// Where a database is and who we are there.
#[derive(Debug, Clone)]
pub struct Login {
    /// `postgres://user@host:port/database`, without a password.
    pub url: String,
    /// The password file (`PGPASSFILE`); `None`: as libpq finds it.
    pub pgpass: Option<PathBuf>,
}

/// How many connections, and how long each thing may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most connections at once.
    pub connections: u32,
    /// Until a connection is there, or one in use is free.
    pub connect: Duration,
    /// One statement.
    pub statement: Duration,
    /// Waiting for a lock.
    pub lock: Duration,
    /// One statement of a transaction that applies deletions or rewrites compressed history.
    pub deletion: Duration,
    /// A transaction in which we say nothing: how long its locks outlive a client that hangs.
    pub idle_in_transaction: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8,
            connect: Duration::from_secs(5),
            statement: Duration::from_mins(1),
            lock: Duration::from_secs(10),
            deletion: Duration::from_mins(10),
            idle_in_transaction: Duration::from_mins(1),
        }
    }
}

/// Prepared statements that a connection keeps: some ten an org.
const STATEMENT_CACHE: usize = 256;
/// After a statement's own limit, how long until a silent server counts as away.
const SILENCE: Duration = Duration::from_secs(15);

/// A connection that rested so long is tried before it is used.
const RESTED: Duration = Duration::from_secs(1);

/// Why a login can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadLogin {
    /// A secret where everybody can read it.
    #[error("the database URL holds a password; put it into the password file (PGPASSFILE)")]
    PasswordInUrl,
    /// Not a URL of a database.
    #[error(
        "the database URL can't be read ({0}); write it like postgres://user@host:5432/database"
    )]
    Url(String),
    /// The password file.
    #[error(transparent)]
    Password(#[from] pgpass::Unreadable),
}

/// A database that we talk to. Opening it connects nobody: a server that is away shows at the
/// first statement. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Database {
    pub(crate) pool: PgPool,
    pub(crate) limits: Limits,
    cut: Cut,
}

impl Database {
    /// Prepares the connections. `application` is what `pg_stat_activity` shows.
    pub fn open(login: &Login, application: &str, limits: Limits) -> Result<Self, BadLogin> {
        let options = options(login)?.application_name(application).options(settings(&limits));
        let tcp = (!by_unix_socket(&options)).then(|| options.get_port());
        let cut = Cut::default();
        let cut_seen = cut.clone();
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections)
            .acquire_timeout(limits.connect)
            .test_before_acquire(false)
            .after_connect(move |_, _| {
                if let Some(port) = tcp {
                    without_nagle(port);
                }
                Box::pin(async { Ok(()) })
            })
            .before_acquire(move |connection, meta| {
                let doubtful = cut_seen.doubts(meta.idle_for);
                Box::pin(async move { Ok(!doubtful || connection.ping().await.is_ok()) })
            })
            .connect_lazy_with(options);
        Ok(Self { pool, limits, cut })
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), Fault> {
        self.run("select 1").await
    }

    /// Runs statements that a person wrote, in one transaction unless they say otherwise.
    pub async fn run(&self, sql: &str) -> Result<(), Fault> {
        let mut connection = self.borrow().await?;
        let statements = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection.held);
        answered(self.patience(false), statements).await?;
        connection.give_back();
        Ok(())
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) async fn borrow(&self) -> Result<Borrowed, Fault> {
        let held = self.pool.acquire().await?;
        Ok(Borrowed { held, clean: false, cut: self.cut.clone() })
    }

    /// How long to wait for a server that says nothing. Its own limits come first, so it is frozen
    /// or cut off. `long` is for what may take as long as a deletion.
    pub(crate) fn patience(&self, long: bool) -> Duration {
        let statement = if long { self.limits.deletion } else { self.limits.statement };
        self.limits.connect + self.limits.lock + statement + SILENCE
    }
}

/// What a server answers, unless it says nothing for longer than `patience`.
pub(crate) async fn answered<T, E: Into<Fault>>(
    patience: Duration,
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Fault> {
    let silent = |_| {
        let seconds = patience.as_secs();
        Fault::hold(format!("the database gave no answer within {seconds} s"))
    };
    tokio::time::timeout(patience, answer).await.map_err(silent)?.map_err(Into::into)
}

/// A connection that is closed, not used again, unless it is given back: whoever stops in the
/// middle (an error, a cancelled task) leaves a protocol or a transaction half said.
pub(crate) struct Borrowed {
    pub(crate) held: PoolConnection<Postgres>,
    clean: bool,
    cut: Cut,
}

impl Borrowed {
    pub(crate) fn give_back(mut self) {
        self.clean = true;
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.clean {
            self.held.close_on_drop();
            self.cut.note();
        }
    }
}

/// When a connection last ended in the middle: its idle neighbours may have lost the same server,
/// so they are tried before they are used.
#[derive(Debug, Clone, Default)]
struct Cut(Arc<Mutex<Option<Instant>>>);

impl Cut {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn doubts(&self, idle_for: Duration) -> bool {
        let cut = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle_for >= RESTED || cut.is_some_and(|cut| cut.elapsed() <= idle_for)
    }
}

fn by_unix_socket(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

/// Where it can't be done, a write takes some 40 ms longer and nothing else is wrong: said once.
fn without_nagle(port: u16) {
    static SAID: Once = Once::new();
    if let Err(error) = nodelay::set(port) {
        SAID.call_once(|| {
            tracing::warn!(%error, "can't set TCP_NODELAY on connections to databases: each write \
                may take 40 ms longer");
        });
    }
}

fn options(login: &Login) -> Result<PgConnectOptions, BadLogin> {
    if names_password(&login.url) {
        return Err(BadLogin::PasswordInUrl);
    }
    let options = PgConnectOptions::from_str(&login.url)
        .map_err(|error| BadLogin::Url(error.to_string()))?
        .statement_cache_capacity(STATEMENT_CACHE)
        .disable_statement_logging();
    let Some(path) = &login.pgpass else { return Ok(options) };
    let socket = options.get_socket().map(|path| path.display().to_string());
    let lookup = Lookup {
        host: socket.as_deref().unwrap_or_else(|| options.get_host()),
        port: options.get_port(),
        database: options.get_database().unwrap_or_else(|| options.get_username()),
        user: options.get_username(),
    };
    let password = pgpass::read(path, lookup)?;
    Ok(match password {
        Some(password) => options.password(&password),
        None => options,
    })
}

/// Whether a URL has a password, before the host or among the parameters.
fn names_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
    let user = address.rsplit_once('@').map_or("", |(user, _)| user);
    let mut names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
    user.contains(':')
        || names.any(|name| {
            percent_encoding::percent_decode_str(name).decode_utf8_lossy() == "password"
        })
}

/// Settings of every session. The keepalives let a server notice a client that is gone and free
/// its locks.
fn settings(limits: &Limits) -> [(&'static str, String); 8] {
    let millis = |limit: Duration| limit.as_millis().to_string();
    [
        ("statement_timeout", millis(limits.statement)),
        ("lock_timeout", millis(limits.lock)),
        ("idle_in_transaction_session_timeout", millis(limits.idle_in_transaction)),
        ("client_min_messages", "warning".to_owned()),
        // The planner knows nothing of a temporary table's size, takes the merge for expensive and
        // compiles it anew for each batch: measured, that took as long as the merge itself.
        ("jit", "off".to_owned()),
        ("tcp_keepalives_idle", "30".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str) -> Result<PgConnectOptions, BadLogin> {
        options(&Login { url: url.to_owned(), pgpass: None })
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for url in [
            "postgres://me:s3cret@localhost/x",
            "postgres://localhost/x?user=me&password=s3cret",
            "postgres://localhost/x?p%61ssword=s3cret",
        ] {
            let error = open(url).unwrap_err();
            assert!(matches!(error, BadLogin::PasswordInUrl), "{error}");
            assert!(!error.to_string().contains("s3cret"));
        }
        assert_eq!(open("postgres://me@localhost:5433/x").unwrap().get_port(), 5433);
        assert!(matches!(open("nonsense"), Err(BadLogin::Url(_))));
    }
}
