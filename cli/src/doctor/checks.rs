//! The checks of `doctor`, one place each.

use super::{Finding, Health};
use crate::{connect, databases};
use domain::{TargetName, Timestamp};
use nats::{Wire, inspect, report, streams};
use service::{Config, config::Target};
use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};
use store::{Database, inspect::Migrations};

/// Clocks that differ by more than this make readings look late or early, in seconds.
const CLOCK_LIMIT: f64 = 1.0;
/// Less free disk than this is worth a warning, in bytes.
const LOW_DISK: u64 = 2 << 30;
/// How long services have to answer.
const ANSWER: Duration = Duration::from_millis(500);
/// A stream fuller than this is worth a warning.
const NEARLY_FULL: f64 = 0.8;
/// The largest device message, with room for its envelope, in bytes.
const NEEDED_PAYLOAD: usize = 9 << 20;

/// Secrets and disk on this machine.
pub(super) fn files(config: &Config, data_dir: &Path) -> Vec<Finding> {
    let mut findings = vec![secrets(&config.secrets.dir)];
    if data_dir.is_dir() {
        findings.extend(disk(config, data_dir));
    }
    findings
}

fn secrets(dir: &Path) -> Finding {
    let what = format!("secrets in {}", dir.display());
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            let remedy = "`haystack up` makes them; or set secrets.dir to where they lie";
            return Finding::bad(Health::Fail, what, error.to_string(), remedy);
        }
    };
    let open: Vec<String> = entries
        .flatten()
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o077 != 0)
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    if open.is_empty() {
        return Finding::ok(what, "readable by their owner only");
    }
    let found = format!("others can read {}", open.join(", "));
    Finding::bad(Health::Fail, what, found, format!("chmod 600 {}/*", dir.display()))
}

fn disk(config: &Config, data_dir: &Path) -> Option<Finding> {
    let stat = nix::sys::statvfs::statvfs(data_dir).ok()?;
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    let what = format!("disk of {}", data_dir.display());
    let found = format!("{} GiB free", free >> 30);
    if free < LOW_DISK {
        let remedy = "make room: the databases stop when it is full, and hold what comes in";
        return Some(Finding::bad(Health::Fail, what, found, remedy));
    }
    let streams = 2 * config.streams.readings_max_bytes + 4 * config.streams.others_max_bytes;
    if free < streams {
        let remedy = format!(
            "the streams may grow to {} GiB: lower streams.readings_max_bytes, or they meet the \
             end of the disk before they refuse",
            streams >> 30
        );
        return Some(Finding::bad(Health::Warn, what, found, remedy));
    }
    Some(Finding::ok(what, found))
}

/// The stream server: version, settings, clock, streams.
pub(super) async fn stream_server(config: &Config) -> Vec<Finding> {
    let what = format!("NATS at {}", config.nats.url);
    let wire = match connect::now(config, "operator").await {
        Ok(wire) => wire,
        Err(error) => {
            let remedy = "start it (`haystack up`), or set nats.url";
            return vec![Finding::bad(Health::Fail, what, format!("{error:#}"), remedy)];
        }
    };
    let info = wire.client.server_info();
    let mut findings = vec![Finding::ok(what, format!("nats-server {}", info.version))];
    findings.push(payload(info.max_payload));
    findings.push(sync_interval(config).await);
    findings.extend(stream_clock(&wire).await);
    for name in streams::ALL {
        findings.push(stream(&wire, name).await);
    }
    findings.extend(services(&wire).await);
    findings
}

/// Whether each service that is needed answers, and what the services are held by.
async fn services(wire: &Wire) -> Vec<Finding> {
    let reports = report::gather(wire, ANSWER).await;
    let simulators = nats::model::load(wire).await.is_ok_and(|model| !model.pollers().is_empty());
    let silent = report::silent(&reports, simulators).into_iter().map(|name| {
        let remedy = format!(
            "start it (`haystack up` starts all, `haystack {name}` one); where it runs, it hangs: \
             end it, and it goes on from where it was"
        );
        Finding::bad(Health::Fail, format!("service {name}"), "does not answer", remedy)
    });
    let running = reports.iter().map(|report| {
        let what = format!("service {} ({})", report.service, report.instance);
        match report.holds.first() {
            None => Finding::ok(what, "answers, waits for nothing"),
            Some(hold) => {
                let found = format!("{} is held since {}: {}", hold.what, hold.since, hold.why);
                let remedy = "end what it waits for; it goes on by itself";
                Finding::bad(Health::Warn, what, found, remedy)
            }
        }
    });
    silent.chain(running).collect()
}

fn payload(max: usize) -> Finding {
    let (what, found) = ("NATS max_payload", format!("{} MiB", max >> 20));
    if max >= NEEDED_PAYLOAD {
        return Finding::ok(what, found);
    }
    let remedy = "set `max_payload: 12MB` in the server's configuration (nats/conf)";
    Finding::bad(Health::Fail, what, found, remedy)
}

async fn sync_interval(config: &Config) -> Finding {
    let what = "NATS sync_interval";
    let asked = async {
        let wire = connect::now(config, "doctor").await?;
        anyhow::Ok(inspect::syncs_always(&wire).await?)
    };
    match asked.await {
        Ok(true) => Finding::ok(what, "always"),
        Ok(false) => Finding::bad(
            Health::Fail,
            what,
            "not `always`: a power cut loses what was acknowledged",
            "set `sync_interval: always` in the server's jetstream block (nats/conf)",
        ),
        Err(error) => Finding::bad(
            Health::Warn,
            what,
            format!("can't be asked: {error:#}"),
            "give the server the system account of nats/conf/nats-server.conf",
        ),
    }
}

async fn stream_clock(wire: &Wire) -> Option<Finding> {
    let server = inspect::server_time(wire).await.ok()??;
    Some(clock("clock of the NATS server", server))
}

fn clock(what: &str, server: Timestamp) -> Finding {
    let seconds = (server.micros() - connect::now_here().micros()) as f64 / 1e6;
    let found = format!("{seconds:+.3} s from this machine's");
    if seconds.abs() <= CLOCK_LIMIT {
        return Finding::ok(what, found);
    }
    let remedy = "keep the clocks in step (chrony, systemd-timesyncd); a stream server whose \
                  clock steps back gives later readings lower versions";
    Finding::bad(Health::Fail, what, found, remedy)
}

async fn stream(wire: &Wire, name: &str) -> Finding {
    let what = format!("stream {name}");
    let state = match inspect::stream(wire, name).await {
        Ok(state) => state,
        Err(error) => {
            let remedy = "`haystack migrate` makes the streams";
            return Finding::bad(Health::Fail, what, error.to_string(), remedy);
        }
    };
    let found = format!("{} messages, {:.1} % full", state.messages, state.fill() * 100.0);
    let behind = state
        .last_at
        .is_some_and(|at| (at.micros() - connect::now_here().micros()) as f64 / 1e6 > CLOCK_LIMIT);
    if behind {
        let remedy = "its last message is from the future: the server's clock stepped back";
        return Finding::bad(Health::Fail, what, found, remedy);
    }
    if state.fill() > NEARLY_FULL {
        let remedy = "raise streams.readings_max_bytes or streams.others_max_bytes: a full stream \
                      refuses, and devices wait";
        return Finding::bad(Health::Warn, what, found, remedy);
    }
    Finding::ok(what, found)
}

/// Whether the broker listens.
pub(super) async fn broker(config: &Config) -> Vec<Finding> {
    let what = format!("MQTT broker at {}", config.mqtt.url);
    let address = config.mqtt.url.split("://").last().unwrap_or_default().to_owned();
    vec![match tokio::net::TcpStream::connect(&address).await {
        Ok(_) => Finding::ok(what, "listens"),
        Err(error) => {
            let remedy = "start it (`haystack up`), or set mqtt.url";
            Finding::bad(Health::Fail, what, error.to_string(), remedy)
        }
    }]
}

/// A target: version, migrations, settings, rights.
pub(super) async fn target(config: &Config, name: &TargetName, target: &Target) -> Vec<Finding> {
    let what = format!("target {name}");
    let opened = databases::open(config, &target.url, "doctor");
    let database = match opened {
        Ok(database) => database,
        Err(error) => {
            let remedy = format!("correct targets.{name}.url");
            return vec![Finding::bad(Health::Fail, what, format!("{error:#}"), remedy)];
        }
    };
    let server = match store::inspect::server(&database).await {
        Ok(server) => server,
        Err(fault) => {
            let remedy = "start it; its readings wait in TELEMETRY until it is back";
            return vec![Finding::bad(Health::Fail, what, fault.to_string(), remedy)];
        }
    };
    let engine = server
        .timescale
        .as_ref()
        .map_or("plain tables".to_owned(), |version| format!("TimescaleDB {version}"));
    let mib = server.bytes >> 20;
    let found = format!("PostgreSQL {}, {engine}, {mib} MiB", server.version);
    let mut findings = vec![if server.read_only {
        let remedy = "point targets.*.url at the server that takes writes";
        Finding::bad(Health::Fail, &what, format!("{found}, read-only"), remedy)
    } else {
        Finding::ok(&what, found)
    }];
    findings.push(migrations(&what, &database).await);
    findings.extend(durability(&what, &database).await);
    findings.extend(access(&what, &database, &server.role).await);
    findings
}

async fn migrations(what: &str, database: &Database) -> Finding {
    let what = format!("{what}: tables");
    match store::inspect::migrations(database).await {
        Ok(Migrations::Current) => Finding::ok(what, "as this release needs them"),
        Ok(Migrations::Missing(count)) => {
            let found = format!("{count} migrations are missing");
            Finding::bad(Health::Fail, what, found, "haystack migrate")
        }
        Ok(Migrations::Foreign) => {
            let remedy = "use the release that made them, or a later one";
            Finding::bad(Health::Fail, what, "made by another release", remedy)
        }
        Err(fault) => Finding::bad(Health::Fail, what, fault.to_string(), "haystack migrate"),
    }
}

async fn durability(what: &str, database: &Database) -> Vec<Finding> {
    let settings = match store::inspect::durability(database).await {
        Ok(settings) => settings,
        Err(fault) => {
            let what = format!("{what}: durability");
            let remedy = "look at the server's log";
            return vec![Finding::bad(Health::Warn, what, fault.to_string(), remedy)];
        }
    };
    let what_settings = format!("{what}: durability");
    let off = settings.off;
    let durable = if off.is_empty() {
        Finding::ok(what_settings, "a COMMIT survives a power cut")
    } else {
        let found = format!("{} off: a power cut loses what was committed", off.join(", "));
        Finding::bad(Health::Fail, what_settings, found, "switch them on in postgresql.conf")
    };
    vec![durable, clock(&format!("{what}: clock"), settings.now)]
}

async fn access(what: &str, database: &Database, role: &str) -> Vec<Finding> {
    let all = match store::inspect::access(database, role).await {
        Ok(all) => all,
        Err(fault) => {
            let what = format!("{what}: permissions");
            return vec![Finding::bad(Health::Fail, what, fault.to_string(), "haystack migrate")];
        }
    };
    let missing = all.into_iter().filter(|access| !access.missing.is_empty());
    missing
        .map(|access| {
            let what = format!("{what}: permissions on org {}", access.org.key);
            let found = format!("{role} lacks {}", access.missing.join(", "));
            let remedy = "`haystack migrate` grants them again; its readings wait until then";
            Finding::bad(Health::Fail, what, found, remedy)
        })
        .collect()
}

/// Whether everything that was accepted is accounted for. What is away says so itself.
pub(super) async fn ledger(config: &Config) -> Option<Finding> {
    let found = crate::ledger::look(config).await.ok()?;
    let what = "ledger";
    if !found.is_balanced() {
        let remedy = "`haystack ledger` says what is missing, `haystack verify --repair` mends it";
        return Some(Finding::bad(Health::Fail, what, "something is unaccounted for", remedy));
    }
    Some(Finding::ok(what, "everything that was accepted is accounted for"))
}
