//! Private PostgreSQL clusters, and fresh databases in them.

use crate::{Running, guard};
use local::{Roles, postgres::Layout, roles, secret};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::sync::OnceCell;

/// Times that another free port is tried.
const ATTEMPTS: usize = 5;
/// The clusters' name inside their folders.
const CLUSTER: &str = "test";
/// Set to 1 to run on TimescaleDB, which must then be installed.
pub const TIMESCALE: &str = "HAYSTACK_TEST_TIMESCALE";
/// Quick instead of safe: what a test writes need not survive the machine.
const QUICK: &str = "\nfsync = off\nfull_page_writes = off\n";
/// Many tests share one cluster.
const CONNECTIONS: &str = "\nmax_connections = 300\n";

static SHARED: OnceCell<Postgres> = OnceCell::const_new();
static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
/// Two at once would alter the same roles, which PostgreSQL refuses.
static SET_UP: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A private PostgreSQL cluster with the roles `haystack` and `haystack_ingest`.
pub struct Postgres {
    running: Running<local::Postgres>,
    roles: Roles,
    passfile: PathBuf,
}

/// A fresh, empty database of its own in a cluster.
#[derive(Clone)]
pub struct Database {
    name: String,
    roles: Roles,
    superuser: PgConnectOptions,
    passfile: PathBuf,
}

/// The cluster that all tests of this process share. Don't stop it; start your own for that.
pub async fn shared() -> &'static Postgres {
    SHARED.get_or_init(Postgres::start).await
}

/// A fresh database in the [`shared`] cluster.
pub async fn database() -> Database {
    shared().await.database().await
}

impl Postgres {
    /// Starts a cluster that does not wait for the disk.
    pub async fn start() -> Self {
        Self::start_with(QUICK, timescale_wanted()).await
    }

    /// Starts a cluster with the configuration that we ship, as for production.
    pub async fn start_safe() -> Self {
        Self::start_with("", timescale_wanted()).await
    }

    /// Starts a cluster with lines added to the configuration that we ship.
    pub async fn start_with(extra: &str, timescaledb: bool) -> Self {
        let folder = guard::folder("postgres");
        let secrets = guard::folder("postgres-secrets");
        let template = TEMPLATE.get_or_init(make_template).await;
        let superuser = local::postgres::superuser_secret(CLUSTER);
        let password = fs::read(template.join("secrets").join(&superuser)).expect("was written");
        secret::private_folder(&secrets).expect("the folder is ours");
        secret::write(&secrets.join(superuser), &password).expect("the folder is ours");
        let extra = format!("{CONNECTIONS}{extra}");
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let layout = Layout {
                name: CLUSTER,
                folder: &folder,
                secrets: &secrets,
                port: local::port::free(&[]).expect("a free port"),
                extra: &extra,
                timescaledb,
                safe: false,
            };
            let server = lay_out(layout);
            assert!(
                !timescaledb || server.timescaledb(),
                "{TIMESCALE}=1, but TimescaleDB is not installed for the PostgreSQL in {}",
                server.tools().bin.display()
            );
            copy_data(template, &server.data());
            match Running::start(server, &folder).await {
                Ok(running) => return Self::ready(running, &secrets).await,
                Err(error) => why = error,
            }
        }
        panic!("{why}");
    }

    async fn ready(running: Running<local::Postgres>, secrets: &Path) -> Self {
        let roles = Roles::ensure(secrets, CLUSTER, running.port()).expect("the folder is ours");
        local::set_up(running.server(), &roles, &[]).await.expect("roles can be made");
        let passfile = secrets.join("pgpass");
        roles::write_pgpass(&passfile, &[&roles]).expect("the folder is ours");
        Self { running, roles, passfile }
    }

    /// A fresh database, empty but for the extension where the cluster has it, owned by
    /// `haystack`; `haystack_ingest` may connect.
    pub async fn database(&self) -> Database {
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let turn = SET_UP.lock().await;
        local::set_up(self.server(), &self.roles, &[&name]).await.expect("a database can be made");
        drop(turn);
        Database {
            superuser: self.server().superuser(&name),
            roles: self.roles.clone(),
            passfile: self.passfile.clone(),
            name,
        }
    }
}

impl Postgres {
    /// A fresh database of simulators' state; `haystack_simulator` may connect.
    pub async fn state_database(&self) -> Database {
        let database = self.database().await;
        let mut admin =
            ConnectOptions::connect(&database.superuser()).await.expect("it was just made");
        let name = database.name();
        let grant = format!("grant connect on database {name} to {}", roles::SIMULATOR);
        sqlx::raw_sql(sqlx::AssertSqlSafe(grant)).execute(&mut admin).await.expect("a grant");
        database
    }
}

impl Deref for Postgres {
    type Target = Running<local::Postgres>;

    fn deref(&self) -> &Self::Target {
        &self.running
    }
}

impl Database {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How to sign in as `haystack`, who owns it.
    pub fn owner(&self) -> PgConnectOptions {
        self.roles.owner(&self.name)
    }

    /// How to sign in as `haystack_ingest`.
    pub fn ingest(&self) -> PgConnectOptions {
        self.roles.ingest(&self.name)
    }

    /// How to sign in as the superuser, to break things.
    pub fn superuser(&self) -> PgConnectOptions {
        self.superuser.clone()
    }

    /// `postgresql://haystack@127.0.0.1:port/name`; the password is in [`Database::passfile`].
    pub fn owner_url(&self) -> String {
        self.roles.url(roles::OWNER, &self.name)
    }

    /// `postgresql://haystack_ingest@127.0.0.1:port/name`.
    pub fn ingest_url(&self) -> String {
        self.roles.url(roles::INGEST, &self.name)
    }

    /// `postgresql://haystack_simulator@127.0.0.1:port/name`, of a database of state.
    pub fn simulator_url(&self) -> String {
        self.roles.url(roles::SIMULATOR, &self.name)
    }

    /// How to sign in as `haystack_api`.
    pub fn api(&self) -> PgConnectOptions {
        self.roles.api(&self.name)
    }

    /// `postgresql://haystack_api@127.0.0.1:port/name`.
    pub fn api_url(&self) -> String {
        self.roles.url(roles::API, &self.name)
    }

    /// The `pgpass` file with the passwords of all roles.
    pub fn passfile(&self) -> &Path {
        &self.passfile
    }
}

/// Whether the tests are to run on TimescaleDB.
pub fn timescale_wanted() -> bool {
    std::env::var(TIMESCALE).is_ok_and(|value| value == "1")
}

fn lay_out(layout: Layout<'_>) -> local::Postgres {
    local::Postgres::lay_out(layout)
        .unwrap_or_else(|error| panic!("PostgreSQL can't be tested: {error:#}"))
}

/// One `initdb` a process: the clusters start from copies of it.
async fn make_template() -> PathBuf {
    let make = || {
        let folder = guard::folder("template");
        let secrets = guard::folder("template-secrets");
        let cluster = lay_out(Layout {
            name: CLUSTER,
            folder: &folder,
            secrets: &secrets,
            port: 1,
            extra: "",
            timescaledb: false,
            safe: false,
        });
        cluster.init().unwrap_or_else(|error| panic!("PostgreSQL can't be tested: {error:#}"));
        fs::rename(&secrets, folder.join("secrets")).expect("both folders are ours");
        folder
    };
    tokio::task::spawn_blocking(make).await.expect("making the template does not panic")
}

fn copy_data(template: &Path, data: &Path) {
    if data.exists() {
        return;
    }
    let copied = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .arg(template.join("data"))
        .arg(data)
        .status();
    assert!(copied.is_ok_and(|status| status.success()), "can't copy the cluster's template");
}

#[cfg(test)]
mod tests {
    use super::*;
    use local::Server;

    /// All clusters here have one template, and with it one password of the superuser.
    #[tokio::test]
    async fn a_cluster_whose_port_another_has_is_not_ready() {
        let other = Postgres::start().await;
        let folder = guard::folder("postgres");
        let secrets = guard::folder("postgres-secrets");
        let template = TEMPLATE.get().unwrap();
        let superuser = local::postgres::superuser_secret(CLUSTER);
        let password = fs::read(template.join("secrets").join(&superuser)).unwrap();
        secret::private_folder(&secrets).unwrap();
        secret::write(&secrets.join(superuser), &password).unwrap();
        let server = lay_out(Layout {
            name: CLUSTER,
            folder: &folder,
            secrets: &secrets,
            port: other.port(),
            extra: "",
            timescaledb: false,
            safe: false,
        });
        copy_data(template, &server.data());
        assert!(server.ready().await.unwrap_err().to_string().contains("not ours"));
    }
}
