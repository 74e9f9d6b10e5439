//! The Python pipeline of `bench/peers` beside ours: fed by the same load generator, writing two
//! databases of the same server version, with a broker that lets anybody in.

use crate::{
    machine,
    meter::Cost,
    options::{Options, PEERS},
    stack::Stack,
    traffic::Traffic,
};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt::Write,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, process::Child};

/// Rows of one of its transactions.
const BATCH: u32 = 5_000;

/// The figures that `bench/peers/common.py` records.
#[derive(Deserialize)]
struct Recorded {
    wall: f64,
}

/// Runs it once.
pub(crate) async fn pipeline(
    stack: &Stack,
    options: &Options,
    libraries: &Path,
    traffic: Traffic,
) -> Result<(bool, Cost)> {
    let primary = stack.targets.first().context("there are targets")?;
    let names = ["tele_primary", "tele_secondary"];
    let (port, passfile) = primary.for_peers(&names).await?;
    let broker = Broker::start(stack.folder()).await?;
    let results = stack.folder().join("peers");
    let file = results.join("pypipe.jsonl");
    let _ = std::fs::remove_file(&file);
    let quiet = machine::quiet(options.quiet_wait()).await;
    let mut command = Command::new("python3");
    command
        .arg("peer_pipeline.py")
        .args([&traffic.messages.to_string(), &traffic.readings.to_string()])
        .args(["copy", "2", "1", &BATCH.to_string()])
        .current_dir(PEERS)
        .env("PYTHONPATH", libraries.canonicalize()?)
        .env("PG_PORT", port.to_string())
        .env("PG_USER", local::roles::OWNER)
        .env("PGPASSFILE", &passfile)
        .env("MQTT_PORT", broker.port.to_string())
        .env("JSBENCH", std::env::current_exe()?)
        .env("RESULTS", &results)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the Python pipeline: {}\n{said}", output.status);
    let text = std::fs::read_to_string(&file).context("it recorded nothing")?;
    let recorded: Recorded = serde_json::from_str(text.lines().next_back().unwrap_or_default())?;
    let (cpu, peak) = (BTreeMap::new(), BTreeMap::new());
    Ok((quiet, Cost { seconds: recorded.wall, cpu, peak, others: 0.0, requests: None }))
}

/// A broker for the peer alone: it keeps nothing on the disk, and lets anybody publish anything.
struct Broker {
    port: u16,
    _child: Child,
}

impl Broker {
    async fn start(folder: &Path) -> Result<Self> {
        const LIMIT: Duration = Duration::from_secs(10);
        let port = local::port::free(&[])?;
        let mut config = String::from("allow_anonymous true\nset_tcp_nodelay true\n");
        writeln!(config, "listener {port} 127.0.0.1\nmax_inflight_messages 4096")?;
        writeln!(config, "max_queued_messages 1000000\nlog_type error")?;
        let file = folder.join("open-broker.conf");
        std::fs::write(&file, config)?;
        let child = tokio::process::Command::new(local::find::mosquitto()?.path)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            anyhow::ensure!(started.elapsed() < LIMIT, "the peer's broker does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { port, _child: child })
    }
}
