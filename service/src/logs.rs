//! Logs on standard error: for people, or one JSON object a line.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging; once a process.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter(&log.level))
        .map_err(|error| anyhow::anyhow!("log.level {:?}: {error}", log.level))?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    let started = match log.format {
        LogFormat::Pretty => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging: {error}"))
}

/// A plain level is about us; what libraries say below a warning is their own business.
fn filter(level: &str) -> String {
    if level.contains(['=', ',']) {
        return level.to_owned();
    }
    format!("{level},async_nats=warn,sqlx=warn,rumqttc=warn")
}
