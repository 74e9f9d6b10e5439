//! Our own programs as processes of their own, so that what they cost can be seen.

use crate::report::progress;
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Longest wait for a service to drain and end.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for a program of ours to connect.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Lines of a log that an error shows.
const TAIL: usize = 20;

/// `haystack bridge` or `haystack ingest`.
pub(crate) struct Service {
    role: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts the release binary with this configuration.
    pub(crate) fn start(
        haystack: &Path,
        role: &'static str,
        config: &Path,
        log: PathBuf,
    ) -> Result<Self> {
        let file = File::create(&log)?;
        let child = Command::new(haystack)
            .arg(role)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {}", haystack.display()))?;
        Ok(Self { role, child, log })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// An error where it has ended, with the end of its log.
    pub(crate) fn check(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        anyhow::bail!("haystack {} ended ({status}):\n{}", self.role, self.tail())
    }

    /// What it complained about, cut short.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        let line = |line: &str| format!("{}: {line}", self.role);
        text.lines().filter(loud).take(TAIL).map(line).collect()
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Stops it as a service manager would, and waits until it has ended.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.check()?;
        kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM)?;
        let ended = timeout(STOP_LIMIT, self.child.wait()).await;
        let status = ended.with_context(|| format!("haystack {} does not stop", self.role))??;
        anyhow::ensure!(status.success(), "haystack {}: {status}\n{}", self.role, self.tail());
        // A figure that was reached with complaints is to be looked at.
        self.complaints().iter().for_each(|line| progress(line));
        Ok(())
    }
}

/// `haystack-bench load` or `drain`: it says when it is ready and when it is done.
pub(crate) struct Helper {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    /// Starts this program again as `name` and waits until it is ready.
    pub(crate) async fn start(
        name: &'static str,
        args: &[String],
        environment: &[(&str, String)],
    ) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(name)
            .args(args)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().context("it was asked for")?;
        let output = BufReader::new(child.stdout.take().context("it was asked for")?).lines();
        let mut helper = Self { name, child, input, output };
        let line = timeout(READY_LIMIT, helper.line()).await;
        line.with_context(|| format!("{name} does not get ready"))??;
        Ok(helper)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Lets it begin.
    pub(crate) async fn go(&mut self) -> Result<()> {
        Ok(self.input.write_all(b"go\n").await?)
    }

    /// Its next word.
    pub(crate) async fn line(&mut self) -> Result<String> {
        let line = self.output.next_line().await?;
        line.with_context(|| format!("haystack-bench {} ended early", self.name))
    }

    /// Lets it end.
    pub(crate) async fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait().await?;
        anyhow::ensure!(status.success(), "haystack-bench {}: {status}", self.name);
        Ok(())
    }
}
