//! One child under supervision: started, watched, started again when it ends, stopped.

use super::{backoff::Backoff, notice};
use anyhow::{Context, Result};
use nats::CancellationToken;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    future::Future,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

/// A child that ends this often before it is ready will not get ready.
const START_ATTEMPTS: u32 = 4;
/// Longest wait for a child to get ready. PostgreSQL may have a crash to recover from.
const START_LIMIT: Duration = Duration::from_mins(10);
/// Whoever waits is told so this often.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Lines of a log that an error shows.
const TAIL: usize = 20;

/// How a child is asked to end, and how long it may take before it is made to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    /// Ends cleanly.
    pub(crate) ask: Signal,
    /// How long that may take.
    pub(crate) limit: Duration,
    /// Ends at once, and still with no harm where there is such a signal.
    pub(crate) force: Signal,
}

impl Ending {
    /// Services drain within ten seconds; killing them costs a redelivery only.
    pub(crate) const SERVICE: Self =
        Self { ask: Signal::SIGTERM, limit: Duration::from_secs(10), force: Signal::SIGKILL };
    /// Mosquitto and nats-server write what they hold.
    pub(crate) const SERVER: Self =
        Self { ask: Signal::SIGTERM, limit: Duration::from_secs(30), force: Signal::SIGKILL };
    /// PostgreSQL writes a checkpoint; forced, it recovers at the next start.
    pub(crate) const POSTGRES: Self =
        Self { ask: Signal::SIGINT, limit: Duration::from_mins(1), force: Signal::SIGQUIT };

    /// The signals to send one after the other, with the wait after each.
    pub(crate) fn steps(self, last: Duration) -> [(Signal, Duration); 3] {
        [(self.ask, self.limit), (self.force, last), (Signal::SIGKILL, last)]
    }
}

/// What a child is: how it starts and ends, and where its log goes.
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: String,
    /// Its command; made anew for every start.
    pub(crate) command: Box<dyn Fn() -> Command + Send + Sync>,
    /// How it ends.
    pub(crate) ending: Ending,
    /// Its log.
    pub(crate) log: PathBuf,
}

/// What a child does just now.
#[derive(Debug, Clone, Default)]
struct State {
    pid: Option<u32>,
    ends: u32,
    why: String,
}

/// A supervised child.
pub(crate) struct Child {
    name: String,
    log: PathBuf,
    state: watch::Receiver<State>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Looks at a child from elsewhere.
pub(crate) struct Watch(watch::Receiver<State>);

impl Watch {
    /// Its process id; `None` while it does not run.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.0.borrow().pid.map(|pid| Pid::from_raw(pid.cast_signed()))
    }
}

impl Child {
    /// Starts it, and starts it again whenever it ends.
    pub(crate) fn start(spec: Spec) -> Self {
        let (report, state) = watch::channel(State::default());
        let stop = CancellationToken::new();
        let (name, log) = (spec.name.clone(), spec.log.clone());
        let task = tokio::spawn(supervise(spec, report, stop.clone()));
        Self { name, log, state, stop, task }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its log.
    pub(crate) fn log(&self) -> &PathBuf {
        &self.log
    }

    /// Its process id; `None` while it does not run.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.state.borrow().pid
    }

    /// Whoever holds this knows its process id, as [`Child::pid`] does.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.state.clone())
    }

    /// Waits until `probe` says that it serves. Fails where it keeps ending.
    pub(crate) async fn ready(&self, probe: impl Future<Output = Result<()>>) -> Result<()> {
        let failure = tokio::select! {
            ready = timeout(START_LIMIT, probe) => match ready {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => format!("not ready in {START_LIMIT:?}"),
            },
            why = self.keeps_ending() => why,
            () = self.say_that_it_takes_long() => unreachable!("it never stops saying so"),
        };
        anyhow::bail!(
            "{} did not start: {failure}; the end of {}:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log)
        )
    }

    async fn keeps_ending(&self) -> String {
        let mut state = self.state.clone();
        match state.wait_for(|state| state.ends >= START_ATTEMPTS).await {
            Ok(state) => state.why.clone(),
            Err(_) => "it is no longer watched".to_owned(),
        }
    }

    async fn say_that_it_takes_long(&self) {
        loop {
            tokio::time::sleep(SAY_EVERY).await;
            notice::say(&format!("still waiting for {}", self.name));
        }
    }

    /// Ends it and waits until it has ended.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            notice::say(&format!("{} was not watched to its end", self.name));
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &PathBuf) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

async fn supervise(spec: Spec, report: watch::Sender<State>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut again = false;
    loop {
        let started = Instant::now();
        let ended = run_once(&spec, &report, &stop, again).await;
        again = true;
        let why = match ended {
            Ok(Some(status)) => describe(status),
            Ok(None) => return,
            Err(error) => format!("{error:#}"),
        };
        let pause = backoff.ended(started.elapsed());
        let (name, seconds) = (&spec.name, pause.as_secs_f32());
        notice::say(&format!("{name} ended ({why}); starting it again in {seconds:.1} s"));
        report.send_replace(State { pid: None, ends: backoff.ends(), why });
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs it until it ends by itself (its status) or is to stop (`None`).
async fn run_once(
    spec: &Spec,
    report: &watch::Sender<State>,
    stop: &CancellationToken,
    again: bool,
) -> Result<Option<ExitStatus>> {
    let mut process = spawn(spec)?;
    if let (true, Some(pid)) = (again, process.id()) {
        notice::say(&format!("{} runs again (pid {pid})", spec.name));
    }
    report.send_modify(|state| state.pid = process.id());
    tokio::select! {
        status = process.wait() => Ok(Some(status.context("lost sight of it")?)),
        () = stop.cancelled() => {
            end(spec, &mut process).await;
            Ok(None)
        }
    }
}

fn spawn(spec: &Spec) -> Result<tokio::process::Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)
        .with_context(|| format!("can't write {}", spec.log.display()))?;
    let mut command = (spec.command)();
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // The terminal's Ctrl-C is for us alone; we stop them in order.
    command.process_group(0);
    tokio::process::Command::from(command)
        .spawn()
        .with_context(|| format!("can't start {}", spec.name))
}

async fn end(spec: &Spec, process: &mut tokio::process::Child) {
    for (signal, limit) in spec.ending.steps(Duration::from_secs(5)) {
        let Some(pid) = process.id() else { return };
        // Not waited for yet, so the pid is still its own.
        let _ = kill(Pid::from_raw(pid as i32), signal);
        if timeout(limit, process.wait()).await.is_ok() {
            return;
        }
        notice::say(&format!("{} did not end on {signal} in {limit:?}", spec.name));
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => {
            Signal::try_from(signal).map_or(format!("signal {signal}"), |known| known.to_string())
        }
        (None, None) => "unknown status".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &'static str, folder: &tempfile::TempDir) -> Spec {
        Spec {
            name: name.to_owned(),
            command: Box::new(move || {
                let mut command = Command::new("/bin/sh");
                command.args(["-c", script]);
                command
            }),
            ending: Ending { limit: Duration::from_millis(500), ..Ending::SERVICE },
            log: folder.path().join("log"),
        }
    }

    #[tokio::test]
    async fn a_child_that_dies_comes_back_and_stops_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let child = Child::start(shell("sleeper", "exec sleep 1000", &folder));
        let mut state = child.state.clone();
        let first = state.wait_for(|state| state.pid.is_some()).await.unwrap().pid.unwrap();
        kill(Pid::from_raw(first as i32), Signal::SIGKILL).unwrap();
        let other = |state: &State| state.pid.is_some_and(|pid| pid != first);
        let second = state.wait_for(other).await.unwrap().pid.unwrap();
        child.stop().await;
        assert!(kill(Pid::from_raw(second as i32), None).is_err(), "it must be gone");
    }

    #[tokio::test]
    async fn a_child_that_never_gets_ready_shows_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let child = Child::start(shell("broken", "echo no such thing; exit 3", &folder));
        let error = child.ready(std::future::pending()).await.unwrap_err().to_string();
        assert!(error.contains("exit code 3") && error.contains("no such thing"), "{error}");
        child.stop().await;
    }

    #[tokio::test]
    async fn a_child_that_does_not_listen_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
        let child = Child::start(shell("deaf", script, &folder));
        let log = child.log().clone();
        let up = async {
            while !tail(&log).contains("up") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        child.ready(up).await.unwrap();
        let pid = child.pid().unwrap();
        child.stop().await;
        assert!(kill(Pid::from_raw(pid as i32), None).is_err(), "it must be gone");
    }
}
