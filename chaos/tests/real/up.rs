//! `haystack up` as a user meets it: taken ports, a second `up`, SIGKILL, the next start, `down`.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use testkit::{
    eventually,
    judge::{FIRST, payload},
    process::run,
};

/// A data folder of a test, and `haystack` on it.
struct Home {
    folder: PathBuf,
}

impl Home {
    fn new() -> Self {
        Self { folder: testkit::folder("up") }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let folder = self.folder.display().to_string();
        run(&[&["--data-dir", &folder], arguments].concat())
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {}\n{text}{error}", output.status);
        text
    }

    /// What `env` prints, read by a shell as its documentation says.
    fn env(&self) -> BTreeMap<String, String> {
        let script = format!(
            "eval \"$('{}' --data-dir '{}' env | sed 's/^/export /')\"; env",
            testkit::process::binary().display(),
            self.folder.display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| key.starts_with("HAYSTACK_") || *key == "PGPASSFILE")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// Processes that name this folder: what `up` runs.
    fn processes(&self) -> Vec<i32> {
        let named = |pid: &i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            command.contains(&self.folder.display().to_string())
        };
        let all = std::fs::read_dir("/proc").expect("proc").flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
    }

    /// The process that is `up` itself.
    fn up(&self) -> i32 {
        let is_up = |pid: &&i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).split('\0').any(|word| word == "up")
        };
        let processes = self.processes();
        *processes.iter().find(is_up).expect("up runs")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

fn port(url: &str) -> u16 {
    let after = url.rsplit(':').next().expect("a port");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Readings of TS-001-2024 with the value n, counted by psql as a user would.
fn stored(env: &BTreeMap<String, String>, target: &str, n: u32) -> Result<(), String> {
    let moment = FIRST + i64::from(n);
    let sql = format!(
        "select count(*) from core.values_demo where value_n = {n} and ts = to_timestamp({moment})"
    );
    let output = Command::new("psql")
        .args([&env[target], "-X", "-A", "-t", "-c", &sql])
        .env("PGPASSFILE", &env["PGPASSFILE"])
        .output()
        .expect("psql");
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if text == "1" { Ok(()) } else { Err(format!("{text:?} {error}")) }
}

async fn send_and_see(env: &BTreeMap<String, String>, n: u32) {
    let port = port(&env["HAYSTACK_MQTT_URL"]).to_string();
    let sent = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1"])
        .args(["-t", "devices/TS-001-2024/telemetry", "-m", &payload(n)])
        .status()
        .expect("mosquitto_pub");
    assert!(sent.success());
    for target in ["HAYSTACK_PRIMARY_URL", "HAYSTACK_SECONDARY_URL"] {
        eventually("the reading to be stored", || async { stored(env, target, n) }).await;
    }
}

fn modes(folder: &Path) -> Vec<(String, u32)> {
    use std::os::unix::fs::PermissionsExt;
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mode = |entry: &std::fs::DirEntry| entry.metadata().expect("is there").permissions().mode();
    entries.map(|e| (e.file_name().to_string_lossy().into_owned(), mode(&e) & 0o777)).collect()
}

/// One story in one test: two `up`s at once would race for the default ports.
#[tokio::test]
async fn up_is_taken_down_killed_and_comes_back() {
    let home = Home::new();
    // The defaults are taken, by us or by whoever runs on this machine.
    let taken: Vec<_> =
        [1883, 4222, 5432].map(|port| TcpListener::bind(("127.0.0.1", port))).into_iter().collect();
    let printed = home.succeed(&["up", "--detach"]);
    for port in [1883, 4222, 5432] {
        assert!(printed.contains(&port.to_string()), "{port} is said to be taken:\n{printed}");
    }
    let env = home.env();
    for key in ["HAYSTACK_MQTT_URL", "HAYSTACK_NATS_URL", "HAYSTACK_PRIMARY_URL"] {
        assert!(![1883, 4222, 5432].contains(&port(&env[key])), "{env:?}");
    }
    drop(taken);
    for (name, mode) in modes(&home.folder.join("secrets")) {
        assert_eq!(mode, 0o600, "{name}");
    }
    send_and_see(&env, 1).await;
    certificates_decide(&home, &env).await;

    // A second one says so and leaves the first alone.
    let second = home.run(&["up", "--detach"]);
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&home.up().to_string()), "it names the first: {text}");
    send_and_see(&env, 2).await;

    // Killed: its children are orphans. The next one goes on with the same data.
    let killed = nix::unistd::Pid::from_raw(home.up());
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    ended(killed).await;
    home.succeed(&["up", "--detach"]);
    let env = home.env();
    send_and_see(&env, 3).await;
    for target in ["HAYSTACK_PRIMARY_URL", "HAYSTACK_SECONDARY_URL"] {
        for n in [1, 2] {
            stored(&env, target, n).unwrap();
        }
    }
    home.succeed(&["verify"]);
    home.succeed(&["doctor"]);

    home.succeed(&["down"]);
    assert!(home.processes().is_empty(), "nothing is left running");
    // A warm start on the same ports, with the same data.
    home.succeed(&["up", "--detach"]);
    assert_eq!(home.env(), env);
    stored(&env, "HAYSTACK_PRIMARY_URL", 3).unwrap();
}

/// Waits until the kernel has taken a killed process away: until then it holds its locks.
async fn ended(process: nix::unistd::Pid) {
    eventually("the killed process has ended", || async {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    })
    .await;
}

/// A device's connection by certificate that stays, made by OpenSSL's own client.
struct Connected {
    process: tokio::process::Child,
}

impl Connected {
    /// MQTT 3.1.1 CONNECT with another client id than the certificate's name.
    const CONNECT: [u8; 19] = *b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05thief";

    async fn open(env: &BTreeMap<String, String>, certificate: &[String; 3]) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let [ca, cert, key] = certificate;
        let mut process = tokio::process::Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_return_error", "-verify_hostname", "localhost"])
            .args(["-connect", &format!("127.0.0.1:{}", mqtts(env))])
            .args(["-CAfile", ca, "-cert", cert, "-key", key])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is installed");
        process.stdin.as_mut().unwrap().write_all(&Self::CONNECT).await.unwrap();
        let mut answer = [0; 4];
        process.stdout.as_mut().unwrap().read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0], "accepted");
        Self { process }
    }

    async fn ended(mut self) {
        let ended = tokio::time::timeout(std::time::Duration::from_mins(1), self.process.wait());
        ended.await.expect("the broker ends the connection").unwrap();
    }
}

fn mqtts(env: &BTreeMap<String, String>) -> u16 {
    port(&env["HAYSTACK_MQTTS_URL"])
}

/// `mosquitto_pub` with these files, MQTT 5: what it says of the attempt.
fn publish_by(
    env: &BTreeMap<String, String>,
    certificate: &[&str],
    topic: &str,
    n: u32,
) -> (bool, String) {
    let output = Command::new("mosquitto_pub")
        .args(["-V", "5", "-h", "localhost", "-p", &mqtts(env).to_string(), "-q", "1"])
        .args(certificate)
        .args(["-t", topic, "-m", &payload(n)])
        .output()
        .expect("mosquitto_pub");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// The files of a device's certificate in an authority's folder.
fn files(pki: &Path, device: &str) -> [String; 3] {
    let path = |name: &str| pki.join(name).display().to_string();
    let of_device = |name: &str| path(&format!("devices/{device}/{name}"));
    [path("ca.pem"), of_device("cert.pem"), of_device("key.pem")]
}

fn arguments(certificate: &[String; 3]) -> [&str; 6] {
    let [ca, cert, key] = certificate;
    ["--cafile", ca, "--cert", cert, "--key", key]
}

/// Who may speak as a device, by certificates.
async fn certificates_decide(home: &Home, env: &BTreeMap<String, String>) {
    const DEVICE: &str = "TS-001-2024";
    const TOPIC: &str = "devices/TS-001-2024/telemetry";
    // The printed line works as it is pasted.
    let printed = home.succeed(&["pki", "issue", "device", DEVICE]);
    let pasted = printed.lines().find(|it| it.trim().starts_with("mosquitto_pub")).unwrap();
    let sent = Command::new("sh").args(["-c", pasted]).status().unwrap();
    assert!(sent.success(), "{pasted}");
    let pki = home.folder.join("pki");
    let own = files(&pki, DEVICE);
    assert_eq!(publish_by(env, &arguments(&own), TOPIC, 100), (true, String::new()));
    for target in ["HAYSTACK_PRIMARY_URL", "HAYSTACK_SECONDARY_URL"] {
        eventually("a reading by certificate", || async { stored(env, target, 100) }).await;
    }
    // Another's topic.
    let (_, said) = publish_by(env, &arguments(&own), "devices/D-2/telemetry", 101);
    assert!(said.contains("Not authorized"), "{said}");
    // No certificate, a stranger's, one whose time is over.
    let [ca, ..] = &own;
    assert!(!publish_by(env, &["--cafile", ca], TOPIC, 102).0);
    let strangers = testkit::folder("strangers");
    let elsewhere = strangers.display().to_string();
    home.succeed(&["pki", "--dir", &elsewhere, "init"]);
    home.succeed(&["pki", "--dir", &elsewhere, "issue", "device", DEVICE]);
    let [_, cert, key] = &files(&strangers, DEVICE);
    let foreign = ["--cafile", ca, "--cert", cert, "--key", key];
    assert!(!publish_by(env, &foreign, TOPIC, 103).0);
    let authority = local::pki::Authority::open(&pki).unwrap();
    let long_ago = domain::Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
    authority.issue(&domain::DeviceId::parse("OLD-1").unwrap(), 1, long_ago).unwrap();
    let old = files(&pki, "OLD-1");
    assert!(!publish_by(env, &arguments(&old), "devices/OLD-1/telemetry", 104).0);
    eventually("the refusals in status", || async {
        let status = home.succeed(&["status"]);
        let counted =
            ["(bad_certificate)", "(no_certificate)"].iter().all(|it| status.contains(it));
        if counted { Ok(()) } else { Err(status) }
    })
    .await;
    // Revoked: the live connection ends, and no other is made.
    let renewed = home.succeed(&["pki", "renew", DEVICE]);
    assert!(renewed.contains("previous-cert.pem"), "{renewed}");
    let next = files(&pki, DEVICE);
    assert!(publish_by(env, &arguments(&next), TOPIC, 105).0, "the next one counts at once");
    let live = Connected::open(env, &next).await;
    home.succeed(&["pki", "revoke", DEVICE]);
    live.ended().await;
    let previous = ["cert.pem", "key.pem"]
        .map(|name| pki.join(format!("devices/{DEVICE}/previous-{name}")).display().to_string());
    let [cert, key] = &previous;
    for refused in [arguments(&next), ["--cafile", ca, "--cert", cert, "--key", key]] {
        assert!(!publish_by(env, &refused, TOPIC, 106).0, "{refused:?}");
    }
    let listed = home.succeed(&["pki", "list"]);
    assert_eq!(listed.matches("revoked").count(), 2, "{listed}");
    assert_eq!(listed.matches("expired").count(), 1, "{listed}");
    // Given another, it is back.
    home.succeed(&["pki", "issue", "device", DEVICE]);
    assert!(publish_by(env, &arguments(&next), TOPIC, 107).0);
    for target in ["HAYSTACK_PRIMARY_URL", "HAYSTACK_SECONDARY_URL"] {
        for n in [105, 107] {
            eventually("readings by certificate", || async { stored(env, target, n) }).await;
        }
        for n in [101, 102, 103, 104, 106] {
            assert!(stored(env, target, n).is_err(), "reading {n} was refused");
        }
    }
}
