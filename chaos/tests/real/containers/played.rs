//! The composition played with processes: what `init` makes, in the places where the containers have
//! it, real servers with it, and each of our containers' commands with its own settings and nothing
//! but its own secrets. In the place of EMQX stands Mosquitto.

use super::compose::{Compose, DATA_DIR, Service, compose, root, shared_files};
use local::find;
use nix::unistd::{getgid, getuid};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::{self, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use testkit::{Mosquitto, Postgres, eventually, process::binary};

/// Where the stream server listens: not where its configuration says, so that the flag is seen to
/// count.
const NATS: &str = "127.0.0.2";

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeed(what: &str, output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}: {}\n{text}{error}", output.status);
    text
}

/// Whether somebody listens there.
fn reached(address: &str) -> Result<(), String> {
    std::net::TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
}

/// A composition in a folder, and what its addresses are here.
struct Played {
    compose: Compose,
    folder: PathBuf,
    here: Vec<(String, String)>,
}

impl Played {
    fn new() -> Self {
        let folder = testkit::folder("containers");
        fs::create_dir_all(folder.join("share")).unwrap();
        for file in shared_files() {
            let name = Path::new(&file).file_name().unwrap();
            fs::copy(root().join(&file), folder.join("share").join(name)).unwrap();
        }
        let mut taken = Vec::new();
        let mut free = || {
            let port = local::port::free(&taken).unwrap();
            taken.push(port);
            port
        };
        let mut here = vec![
            ("nats:4222".to_owned(), format!("{NATS}:{}", free())),
            ("127.0.0.1:8080".to_owned(), format!("127.0.0.1:{}", free())),
        ];
        here.push(("0.0.0.0:8080".to_owned(), here[1].1.clone()));
        let listeners = [8000, 8001, 8002, 8003].map(|port| format!("0.0.0.0:{port}"));
        here.extend(listeners.map(|all| (all, format!("127.0.0.1:{}", free()))));
        Self { compose: compose(), folder, here }
    }

    fn is(&mut self, there: &str, here: String) {
        self.here.push((there.to_owned(), here));
    }

    fn at(&self, there: &str) -> &str {
        let known = self.here.iter().find(|(known, _)| known == there);
        &known.unwrap_or_else(|| panic!("{there} is not here")).1
    }

    /// The text with the addresses that they have here.
    fn moved(&self, text: &str) -> String {
        self.here.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    /// What `init` does.
    fn init(&self) {
        let own = format!("{}:{}", getuid(), getgid());
        let script = self.compose.services["init"].entrypoint.as_ref().unwrap();
        let script = script[1].replace("/usr/share/haystack", &self.share());
        let output = Command::new("sh")
            .args([&script, &self.secrets("").display().to_string()])
            .env("SHARE", self.share())
            .env("HAYSTACK", binary())
            .envs(["OURS", "EMQX", "POSTGRES"].map(|name| (name, &own)))
            .output()
            .unwrap();
        succeed("secrets.sh", &output);
    }

    fn share(&self) -> String {
        self.folder.join("share").display().to_string()
    }

    fn secrets(&self, folder: &str) -> PathBuf {
        self.folder.join("secrets").join(folder)
    }

    /// What `init` put into a volume.
    fn volume(&self, name: &str) -> PathBuf {
        let init = &self.compose.services["init"];
        let known = init.mounts().find(|(volume, _)| *volume == name);
        let inside = known.unwrap_or_else(|| panic!("init does not know {name}")).1;
        self.secrets(inside.strip_prefix("/secrets/").unwrap())
    }

    /// Gives the password files the addresses that the databases have here.
    fn move_pgpass(&self) {
        for folder in ["admin", "ingest", "simulator", "api"] {
            let file = self.secrets(folder).join("pgpass");
            let text = fs::read_to_string(&file).unwrap();
            fs::write(&file, self.moved(&text)).unwrap();
        }
    }

    /// A container's own folder, with its volumes in their places and nothing else.
    fn home(&self, name: &str) -> PathBuf {
        let home = self.folder.join("home").join(name);
        fs::create_dir_all(home.join(".haystack")).unwrap();
        for (volume, target) in self.compose.services[name].mounts() {
            let link = home
                .join(".haystack")
                .join(target.strip_prefix(DATA_DIR).unwrap().trim_start_matches('/'));
            if !link.exists() {
                unix::fs::symlink(self.volume(volume), link).unwrap();
            }
        }
        home
    }

    /// The binary as the container runs it.
    fn haystack(&self, name: &str, arguments: &[String]) -> Command {
        let home = self.home(name);
        let environment: BTreeMap<_, _> = self.compose.services[name].environment.iter().collect();
        let mut command = Command::new(binary());
        command
            .arg("--data-dir")
            .arg(home.join(".haystack"))
            .args(arguments.iter().map(|argument| self.moved(argument)))
            .env_clear()
            .envs(environment.into_iter().map(|(key, value)| (key, self.moved(value))))
            .current_dir(&home);
        command
    }

    /// Runs a container to its end.
    fn run(&self, name: &str) -> String {
        let service = &self.compose.services[name];
        succeed(name, &self.haystack(name, &service.command).output().unwrap())
    }

    /// Starts a container and waits until its health check says that it is well.
    async fn start(&self, name: &str) -> Running {
        let log = fs::File::create(self.folder.join(format!("{name}.log"))).unwrap();
        let mut command = self.haystack(name, &self.compose.services[name].command);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let running = Running(command.spawn().unwrap());
        let (check, _) = self.compose.services[name].check();
        self.healthy(name, &check[1..]).await;
        running
    }

    async fn healthy(&self, name: &str, check: &[String]) {
        eventually(&format!("the health of {name}"), async || {
            let output = self.haystack(name, check).output().unwrap();
            let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap();
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(()) } else { Err(format!("{why}{log}")) }
        })
        .await;
    }

    /// Waits until a service waits for nothing.
    async fn ready(&self, name: &str, listens: &str) {
        let url = format!("http://{}/readyz", self.at(listens));
        self.healthy(name, &["healthy".to_owned(), "--url".to_owned(), url]).await;
    }

    /// The stream server with the container's command; only its port and its store are others.
    async fn nats(&self) -> Running {
        let service = &self.compose.services["nats"];
        let conf = self.volume("secrets-nats");
        let store = self.folder.join("nats-data");
        let secrets = fs::read_to_string(conf.join("secrets.conf")).unwrap();
        assert!(
            service.mounts().any(|mount| mount == ("nats", "/data"))
                && secrets.contains("\"/data\"")
        );
        let secrets = secrets.replace("/data", &store.display().to_string());
        fs::write(conf.join("secrets.conf"), secrets).unwrap();
        let (program, arguments) = service.command.split_first().unwrap();
        assert_eq!(program, "nats-server");
        let conf = conf.display().to_string();
        let arguments =
            arguments.iter().map(|it| it.replace("/etc/haystack", &conf).replace("0.0.0.0", NATS));
        let port = self.at("nats:4222").rsplit_once(':').unwrap().1;
        let log = fs::File::create(self.folder.join("nats.log")).unwrap();
        let child = Command::new(find::nats_server().unwrap().path)
            .args(arguments)
            .args(["-p", port])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let running = Running(child);
        eventually("the health of nats", async || self.nats_is_healthy(service)).await;
        running
    }

    /// By the container's own check where a busybox is at hand, as it is in that image.
    fn nats_is_healthy(&self, service: &Service) -> Result<(), String> {
        let address = self.at("nats:4222").replace(':', " ");
        let check = service.check().0[0].replace("127.0.0.1 4222", &address);
        assert!(check.contains(&address), "{check}");
        let check = check.replace("nc ", "busybox nc ");
        let output = match Command::new("busybox").arg("true").status() {
            Ok(_) => Command::new("sh").args(["-c", &check]).output().unwrap(),
            Err(_) => return reached(self.at("nats:4222")),
        };
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).ok_or(error)
    }

    /// A database as the image makes it: superuser with the password of the file, the database, then
    /// what lies in its folder of scripts.
    async fn database(&mut self, name: &str) -> Postgres {
        let cluster = Postgres::start().await;
        let folder = self.volume(&format!("secrets-{name}"));
        let password = fs::read_to_string(folder.join("superuser")).unwrap();
        let service = &self.compose.services[name];
        let database = &service.environment["POSTGRES_DB"];
        let mut admin = cluster.server().superuser("postgres").connect().await.unwrap();
        for statement in [
            format!("alter role postgres password '{password}'"),
            format!("create database {database}"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut admin).await.unwrap();
        }
        admin.close().await.unwrap();
        let script = folder.join("10-haystack.sql").display().to_string();
        // Twice: it may be run again.
        for _ in 0..2 {
            let output = Command::new("psql")
                .args(["-v", "ON_ERROR_STOP=1", "--no-psqlrc", "-U", "postgres", "-h", "127.0.0.1"])
                .args(["-p", &cluster.port().to_string(), "-d", database, "-f", &script])
                .env("PGPASSWORD", &password)
                .env("HAYSTACK_ROLES", &folder)
                .output()
                .unwrap();
            let said = succeed("roles.sql", &output);
            assert!(!said.contains(&password), "{said}");
        }
        self.is(&format!("{name}:5432"), format!("127.0.0.1:{}", cluster.port()));
        cluster
    }
}

#[test]
fn what_init_makes_is_private_and_made_once() {
    let played = Played::new();
    played.init();
    let files = || {
        let mut files = BTreeMap::new();
        let mut folders = vec![played.secrets("")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let open = entry.metadata().unwrap().permissions().mode() & 0o077 != 0;
                let public = entry.file_name().to_string_lossy().ends_with(".pem");
                assert!(!open || public, "{}", entry.path().display());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    files.insert(entry.path(), fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    };
    let before = files();
    played.init();
    assert!(before == files(), "the second run changed something");
    let users: usize = ["admin", "bridge", "ingest", "simulator", "api"]
        .iter()
        .map(|folder| fs::read_dir(played.secrets(folder)).unwrap())
        .flat_map(|folder| folder.map(|entry| entry.unwrap().file_name()))
        .filter(|name| name.to_string_lossy().starts_with("nats-"))
        .count();
    assert_eq!(users, local::nats::USERS.len());
    let spoiled = played.secrets("bridge").join("mqtt-bridge");
    fs::write(&spoiled, "short").unwrap();
    let result = std::panic::catch_unwind(|| played.init());
    assert!(result.is_err(), "a spoiled password is not used");
}

#[tokio::test]
async fn what_init_makes_opens_real_servers() {
    let mut played = Played::new();
    played.init();
    let mosquitto = Mosquitto::start().await;
    played.is("mqtt://emqx:1883", mosquitto.url());
    fs::write(played.secrets("bridge").join("mqtt-bridge"), mosquitto.password()).unwrap();
    let _nats = played.nats().await;
    let _primary = played.database("primary").await;
    let _secondary = played.database("secondary").await;
    let _state = played.database("state").await;
    played.move_pgpass();
    played.run("migrate");
    assert!(played.secrets("admin").join("api-admin-key").is_file(), "the first admin's key");
    let _pki = played.start("pki").await;
    let services = ["bridge", "ingest", "simulator", "control-api"];
    let listeners = ["0.0.0.0:8001", "0.0.0.0:8002", "0.0.0.0:8003", "0.0.0.0:8000"];
    let mut running = Vec::new();
    for (name, listens) in services.into_iter().zip(listeners) {
        running.push(played.start(name).await);
        played.ready(name, listens).await;
    }
    let status = played.run("cli");
    assert!(status.contains("primary"), "{status}");
}
