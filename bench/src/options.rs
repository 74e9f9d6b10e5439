//! What to measure, and how much of it.

use anyhow::Context;
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Where the peers are.
pub(crate) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// What a person can choose.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What to measure [default: all of it]
    families: Vec<Family>,
    /// Rounds of each measure; the table shows medians
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    /// Readings for COPY and ingest
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) readings: u64,
    /// Readings that wait while ingest's memory is watched
    #[arg(long, default_value_t = 5_000_000)]
    pub(crate) waiting: u64,
    /// Readings in one device message, in what ingest reads
    #[arg(long, default_value_t = 1)]
    pub(crate) group: u64,
    /// Days of the default building that are simulated into both databases
    #[arg(long, default_value_t = 365)]
    pub(crate) days: u32,
    /// MQTT messages of one reading; 0: none
    #[arg(long, default_value_t = 400_000)]
    pub(crate) messages: u64,
    /// MQTT messages of thirty readings; 0: none
    #[arg(long, default_value_t = 40_000)]
    pub(crate) large_messages: u64,
    /// Reports in parts
    #[arg(long, default_value_t = 50)]
    pub(crate) reports: u32,
    /// Devices of the crowd
    #[arg(long, default_value_t = 10_000)]
    pub(crate) crowd: u32,
    /// Readings of the history of which ledger, trace and verify are asked
    #[arg(long, default_value_t = 2_000_000)]
    pub(crate) history: u64,
    /// Readings that a replay processes again
    #[arg(long, default_value_t = 4_000_000)]
    pub(crate) replayed: u64,
    /// How long clients of the API send, in each of its measures, in seconds
    #[arg(long, default_value_t = 6)]
    api_seconds: u64,
    /// A folder with what bench/peers/requirements.txt names, to measure the peer beside us [default:
    /// .tools/peers, where it is there: `make peers`]
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Longest wait for other work on the machine to end, before each measure, in seconds
    #[arg(long, default_value_t = 25)]
    quiet_wait: u64,
    /// The binary to measure [default: `haystack` beside this one]
    #[arg(long, value_name = "FILE")]
    haystack: Option<PathBuf>,
    /// Where the results go as JSON [default: bench/results.json in the target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Family {
    /// COPY straight into the table
    Copy,
    /// Our ingest, beside COPY
    Ingest,
    /// Ingest's memory with much waiting
    Waiting,
    /// Durable publishing
    Publish,
    /// Simulated buildings, up to a year in both databases
    Simulator,
    /// MQTT to both databases, beside Mosquitto alone and a Python pipeline
    Mqtt,
    /// The same with 1 and 50 devices, without and with certificates
    Devices,
    /// How long a message takes at 1,000 a second
    Latency,
    /// Gateways' reports in parts
    Chunks,
    /// 10,000 devices that connect at once, twice
    Crowd,
    /// Ledger, trace and verify of a long history; a replay beside live readings
    Custody,
    /// Values and history by HTTP, beside a Python API
    Api,
}

impl Options {
    /// Whether the family is asked for.
    pub(crate) fn asks_for(&self, family: Family) -> bool {
        self.families.is_empty() || self.families.contains(&family)
    }

    /// The binary to measure.
    pub(crate) fn haystack(&self) -> anyhow::Result<PathBuf> {
        let beside = || Ok(beside_us()?.join("haystack"));
        let path = self.haystack.clone().map_or_else(beside, anyhow::Ok)?;
        anyhow::ensure!(
            path.is_file(),
            "there is no {}; build it first: cargo build --release -p haystack-cli",
            path.display()
        );
        Ok(path)
    }

    /// The libraries of the peer; `None`: it is not measured.
    pub(crate) fn peers(&self) -> Option<PathBuf> {
        let default = PathBuf::from(PEERS).join("../../.tools/peers");
        self.peers.clone().or_else(|| default.join("asyncpg").is_dir().then_some(default))
    }

    /// Where the results go.
    pub(crate) fn json(&self) -> anyhow::Result<PathBuf> {
        let default = || {
            let folder = beside_us()?;
            Ok(folder.parent().unwrap_or(&folder).join("bench/results.json"))
        };
        self.json.clone().map_or_else(default, anyhow::Ok)
    }

    /// How long clients of the API send.
    pub(crate) fn api_time(&self) -> Duration {
        Duration::from_secs(self.api_seconds)
    }

    /// Longest wait for a quiet machine.
    pub(crate) fn quiet_wait(&self) -> Duration {
        Duration::from_secs(self.quiet_wait)
    }
}

fn beside_us() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("can't tell where this program is")?;
    Ok(program.parent().context("a program is in a folder")?.to_owned())
}
