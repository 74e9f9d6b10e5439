//! The whole platform, privately: every server real, every service the real binary.

use crate::{
    Database, Mosquitto, Nats, Postgres, guard,
    process::{Failpoint, Process, begin, run},
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};
use tokio::io::AsyncWriteExt;

/// Longest wait for something that is to become true.
const EVENTUALLY: Duration = Duration::from_mins(1);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// What PostgreSQL says of a table that is not there.
const NO_TABLE: &str = "42P01";

/// A platform of a test: one broker, one stream server, two databases that can be stopped apart.
pub struct Platform {
    /// The stream server.
    pub nats: Nats,
    /// The broker.
    pub mosquitto: Mosquitto,
    /// The cluster of the primary target.
    pub primary_cluster: Postgres,
    /// The cluster of the secondary target.
    pub secondary_cluster: Postgres,
    /// The primary target.
    pub primary: Database,
    /// The secondary target.
    pub secondary: Database,
    /// Simulators' state, in the primary's cluster.
    pub state: Option<Box<Database>>,
    folder: PathBuf,
    config: PathBuf,
}

impl Platform {
    /// Starts the servers, migrates, and makes the demonstration org. `extra` is added to the
    /// configuration, e.g. `streams.readings_max_bytes = 65536`.
    pub async fn start(extra: &str) -> Self {
        let (nats, mosquitto, primary_cluster, secondary_cluster) =
            tokio::join!(Nats::start(), Mosquitto::start(), Postgres::start(), Postgres::start());
        let (primary, secondary) =
            tokio::join!(primary_cluster.database(), secondary_cluster.database());
        let folder = guard::folder("platform");
        let secrets = folder.join("secrets");
        fs::create_dir_all(&secrets).expect("the folder is ours");
        for from in [nats.secrets(), mosquitto.secrets()] {
            copy_files(from, &secrets);
        }
        let passwords = [&primary, &secondary]
            .map(|database| fs::read_to_string(database.passfile()).expect("was written"));
        local::secret::write(&secrets.join("pgpass"), passwords.concat().as_bytes())
            .expect("the folder is ours");
        let config = folder.join("haystack.toml");
        let platform = Self {
            nats,
            mosquitto,
            primary_cluster,
            secondary_cluster,
            primary,
            secondary,
            state: None,
            folder,
            config,
        };
        platform.configure(extra);
        platform.succeed(&["migrate", "--seed"]);
        // From here on the broker keeps messages for the bridge, whether it runs or not.
        let mut bridge = platform.service("bridge");
        bridge.says("subscribed").await;
        bridge.stop().await;
        platform
    }

    /// The same with a database of simulators' state, and leases of two seconds.
    pub async fn with_simulators(extra: &str) -> Self {
        let mut platform = Self::start("").await;
        platform.state = Some(platform.primary_cluster.state_database().await.into());
        platform.configure(extra);
        platform.succeed(&["migrate"]);
        platform
    }

    /// Writes the configuration anew, with lines added (dotted keys).
    pub fn configure(&self, extra: &str) {
        let target = |name: &str, database: &Database, primary: bool| {
            format!(
                "targets.{name}.url = {:?}\ntargets.{name}.owner_url = {:?}\n\
                 targets.{name}.primary = {primary}\n",
                database.ingest_url(),
                database.owner_url()
            )
        };
        let state = self.state.as_ref().map_or(String::new(), |state| {
            format!(
                "state.url = {:?}\nstate.owner_url = {:?}\nsimulator.lease_seconds = 2\n",
                state.simulator_url(),
                state.owner_url()
            )
        });
        let text = format!(
            "{state}secrets.dir = \"{}\"\nnats.url = {:?}\nmqtt.url = {:?}\n{}{}\
             log.level = \"debug\"\n{extra}\n",
            self.folder.join("secrets").display(),
            self.nats.url(),
            self.mosquitto.url(),
            target("primary", &self.primary, true),
            target("secondary", &self.secondary, false),
        );
        fs::write(&self.config, text).expect("the folder is ours");
    }

    /// The first admin's key at the API.
    pub fn admin_key(&self) -> String {
        let file = self.folder.join("secrets").join("api-admin-key");
        fs::read_to_string(file).expect("`migrate --seed` wrote it").trim().to_owned()
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts a service; `bridge` or `ingest`.
    pub fn service(&self, role: &str) -> Process {
        self.start_service(role, None)
    }

    /// Starts a service that dies at a failpoint.
    pub fn doomed(&self, role: &str, failpoint: Failpoint) -> Process {
        self.start_service(role, Some(failpoint))
    }

    /// Starts one of several services of a kind, by its name.
    pub fn instance(&self, role: &str, name: &str) -> Process {
        self.instance_with(role, name, &[])
    }

    /// The same with settings (`key=value`).
    pub fn instance_with(&self, role: &str, name: &str, settings: &[String]) -> Process {
        let instance = format!("{}.instance={name}", section(role));
        self.start_named(role, &[&[instance], settings].concat(), name, None)
    }

    fn start_service(&self, role: &str, failpoint: Option<Failpoint>) -> Process {
        self.start_named(role, &[], role, failpoint)
    }

    fn start_named(
        &self,
        role: &str,
        settings: &[String],
        name: &str,
        failpoint: Option<Failpoint>,
    ) -> Process {
        let config = self.config.display().to_string();
        let log = self.folder.join(format!("{name}.log"));
        // Port 0: health is asked of nobody here, and two of a kind may run.
        let http = format!("{}.http=127.0.0.1:0", section(role));
        let mut arguments = vec!["--config", &config, "--set", &http];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        arguments.push(role);
        Process::start(&arguments, &log, failpoint)
    }

    /// Judges by the platform's own ledger: waits until nothing is in flight; at no moment may anything be
    /// unaccounted for.
    pub async fn balances(&self) {
        eventually("a ledger with nothing in flight", || async {
            let output = self.command(&["ledger", "--rows", "--entries", "--json"]);
            let text = String::from_utf8_lossy(&output.stdout);
            let ledger: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                format!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
            })?;
            assert!(output.status.success(), "the ledger does not balance: {ledger:#}");
            let hops = ledger["targets"].as_array().into_iter().flatten().map(|it| &it["hop"]);
            let flying: Vec<_> = hops
                .chain([&ledger["normalize"]])
                .filter(|hop| hop["in_flight"] != 0)
                .map(ToString::to_string)
                .collect();
            if flying.is_empty() { Ok(()) } else { Err(flying.join("; ")) }
        })
        .await;
    }

    /// Runs a command to its end.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let config = self.config.display().to_string();
        run(&[&["--config", &config], arguments].concat())
    }

    /// Begins a command that is to be killed.
    pub fn begin(&self, arguments: &[&str]) -> tokio::process::Child {
        let config = self.config.display().to_string();
        begin(&[&["--config", &config], arguments].concat())
    }

    /// Runs a command that must succeed; gives its standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(
            output.status.success(),
            "haystack {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command that must fail; what it says.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(!output.status.success(), "haystack {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Registers a device of type `temperature-sensor`; gives the entities of its points
    /// `humidity` and `temperature`.
    pub fn add_device(&self, id: &str) -> (i32, i32) {
        self.succeed(&["device", "add", id, "--type", "temperature-sensor"]);
        let shown = self.succeed(&["device", "show", id]);
        let entity = |metric: &str| {
            let after = shown.split(&format!("\"{metric}\"")).nth(1).expect("the metric");
            let digits = after.split("\"entity\": ").nth(1).expect("its entity");
            let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect("a number")
        };
        (entity("humidity"), entity("temperature"))
    }

    /// Makes the broker forget the session of the bridge, as one does that lost its state.
    pub async fn forget_bridge_session(&self) {
        let secrets = self.mosquitto.secrets();
        let session =
            fs::read_to_string(secrets.join(local::mosquitto::SESSION)).expect("laid out");
        let client = format!("bridge-1-{}", session.trim());
        let password = self.mosquitto.password();
        // A clean session takes the place of the one that was there, and goes with its client.
        let arguments = ["-i", &client, "-u", local::mosquitto::USER, "-P", password.trim()];
        self.publish_with(&arguments, "devices/x/status", [String::new()]).await;
    }

    /// Publishes lines with a client that is not ours, at `QoS` 1. Ends when the broker has said yes
    /// to each.
    pub async fn publish(&self, topic: &str, lines: impl IntoIterator<Item = String>) {
        self.publish_with(&[], topic, lines).await;
    }

    /// The same with more arguments for `mosquitto_pub`.
    pub async fn publish_with(
        &self,
        arguments: &[&str],
        topic: &str,
        lines: impl IntoIterator<Item = String>,
    ) {
        let mut child = tokio::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.mosquitto.port().to_string()])
            .args(["-q", "1", "-l", "-t", topic])
            .args(arguments)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_pub is installed (make setup)");
        let mut input = child.stdin.take().expect("piped");
        for line in lines {
            input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
        }
        drop(input);
        let status = child.wait().await.expect("our child");
        assert!(status.success(), "mosquitto_pub: {status}");
    }
}

/// The section of a role's settings.
fn section(role: &str) -> &str {
    if role == "control-api" { "api" } else { role }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("the folder is ours");
        }
    }
}

/// Waits until `look` gives what is wanted. Panics with what it gave last.
pub async fn eventually<T, F>(what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = tokio::time::Instant::now() + EVENTUALLY;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(why) if tokio::time::Instant::now() > deadline => {
                panic!("{what} did not come true in {EVENTUALLY:?}: {why}")
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Connects to a database; an error while it is stopped.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, String> {
    PgConnection::connect_with(options).await.map_err(|error| error.to_string())
}

/// Runs SQL as soon as the tables that it names are there: an org's are made when a target hears
/// of the org, which a test that has just made its first device can be ahead of.
pub async fn change(options: &PgConnectOptions, sql: &str) {
    eventually(sql, || async {
        let mut connection = connect(options).await?;
        match sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await {
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_TABLE) => {
                Err(error.to_string())
            }
            Err(error) => panic!("{sql}: {error}"),
            Ok(_) => Ok(()),
        }
    })
    .await;
}
