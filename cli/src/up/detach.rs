//! `up --detach` and `down`: an `up` in the background.

use super::{
    UpArgs,
    folder::{Folder, Lock},
    notice, orphans,
};
use crate::Globals;
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::File,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// How often the background `up` is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks for the pid of an `up` that holds the lock.
const HOLDER_ATTEMPTS: u32 = 100;
/// Longest wait for an `up` to stop: the sum of what its children may take, and a little.
const STOP_LIMIT: Duration = Duration::from_mins(3);

/// Starts `up` in a session of its own and returns when it is ready.
pub(crate) async fn run(args: &UpArgs, globals: &Globals) -> Result<ExitCode> {
    let folder = Folder::open(&globals.data_dir)?;
    drop(folder.lock()?);
    folder.forget_ready()?;
    let path = folder.log("up")?;
    let log = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    // Out of this terminal's reach: closing it must not stop what runs in the background.
    let mut command = Command::new("setsid");
    command.arg(std::env::current_exe().context("can't find the haystack binary")?);
    command.arg("--data-dir").arg(&globals.data_dir);
    for (key, value) in &globals.set {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    command.args(["up", "--no-live", "--mqtts-bind", &args.mqtts_bind.to_string()]);
    for host in &args.mqtts_host {
        command.args(["--mqtts-host", host]);
    }
    if args.mqtt_ws {
        command.arg("--mqtt-ws");
    }
    if args.mqtt_wss {
        command.arg("--mqtt-wss");
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut up = tokio::process::Command::from(command)
        .spawn()
        .context("can't start setsid; install util-linux")?;
    let ended = loop {
        if folder.is_ready() {
            break false;
        }
        if timeout(LOOK_EVERY, up.wait()).await.is_ok() {
            break true;
        }
    };
    let said = std::fs::read_to_string(&path).unwrap_or_default();
    if ended {
        eprint!("{said}");
        return Ok(ExitCode::FAILURE);
    }
    let data_dir = match folder.path() {
        path if path.ends_with(".haystack") => String::new(),
        path => format!(" --data-dir {}", super::shell(&path.to_string_lossy())),
    };
    notice::print(&format!(
        "{said}It runs in the background. `haystack down{data_dir}` stops it; it says more in {}.",
        path.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Stops the `up` that runs on this folder, or what is left of one that was killed, and waits
/// until all of it has ended. Returns whether there was any.
pub(crate) async fn stop(folder: &Folder) -> Result<bool> {
    let mut attempts = 0;
    let pid = loop {
        if let Some(lock) = folder.try_lock()? {
            return clear(folder, lock).await;
        }
        // An `up` that was just started has the lock before its pid is inside.
        match folder.holder().filter(|pid| orphans::is_up(*pid)) {
            Some(pid) => break pid,
            None if attempts == HOLDER_ATTEMPTS => anyhow::bail!(
                "{} is locked by something that is not `haystack up`",
                folder.path().display()
            ),
            None => attempts += 1,
        }
        sleep(LOOK_EVERY).await;
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM)
        .with_context(|| format!("can't stop `haystack up` (pid {pid})"))?;
    let waiting = folder.clone();
    let waited = tokio::task::spawn_blocking(move || waiting.wait_for_lock());
    let lock = timeout(STOP_LIMIT, waited).await.with_context(|| {
        format!("`haystack up` (pid {pid}) did not stop in {STOP_LIMIT:?}; look into its logs")
    })?;
    clear(folder, lock.context("waiting for the lock was given up")??).await?;
    Ok(true)
}

/// Ends what an `up` that was killed left behind.
async fn clear(folder: &Folder, lock: Lock) -> Result<bool> {
    folder.forget_ready()?;
    let any = orphans::end(folder).await;
    drop(lock);
    any
}
