//! One running server: stop it, kill it, freeze it, start it again on the same port and data.

use local::Server;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{File, OpenOptions},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Longest wait for a server to serve, on a busy machine.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Longest wait for a server to end by itself.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often a process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of the log that a panic shows.
const TAIL: usize = 30;

/// A server of the tests. It ends when this is dropped, or when the process ends.
pub struct Running<S: Server> {
    server: S,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl<S: Server> Running<S> {
    /// Starts a server that is laid out, and waits until it serves. Err with the log's end where
    /// it ended instead: another process may have taken its port in between.
    pub(crate) async fn start(server: S, folder: &Path) -> Result<Self, String> {
        let log = folder.join(format!("{}.log", server.name()));
        let running = Self { server, log, child: Mutex::new(None) };
        running.try_launch().await.map(|()| running)
    }

    /// What runs: its folder, its command, its credentials.
    pub fn server(&self) -> &S {
        &self.server
    }

    /// The loopback port. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The server's process id; `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Starts it again after [`Running::stop`] or [`Running::kill9`], on the same port and data,
    /// and waits until it serves.
    pub async fn launch(&self) {
        if let Err(why) = self.try_launch().await {
            panic!("{why}");
        }
    }

    /// Stops it cleanly and waits until it has ended.
    pub async fn stop(&self) {
        self.end(self.server.stop_signal()).await;
    }

    /// Kills it, and all processes that it started, with SIGKILL.
    pub async fn kill9(&self) {
        self.end(Signal::SIGKILL).await;
    }

    /// Kills it with SIGKILL and starts it again.
    pub async fn restart9(&self) {
        self.kill9().await;
        self.launch().await;
    }

    /// Stops it cleanly and starts it again.
    pub async fn restart(&self) {
        self.stop().await;
        self.launch().await;
    }

    /// Stops it in its tracks (SIGSTOP): connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Running::freeze`].
    pub fn thaw(&self) {
        self.signal_all(Signal::SIGCONT);
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_launch(&self) -> Result<(), String> {
        self.spawn().map_err(|error| format!("can't start {}: {error}", self.server.name()))?;
        let failure = tokio::select! {
            ready = self.server.ready() => ready.err().map(|error| error.to_string()),
            status = self.ended() => Some(format!("it ended ({status})")),
            () = tokio::time::sleep(START_LIMIT) => Some(format!("not ready in {START_LIMIT:?}")),
        };
        let Some(failure) = failure else { return Ok(()) };
        self.kill_now();
        Err(format!("{} did not start: {failure}\n{}", self.server.name(), self.log_tail()))
    }

    fn spawn(&self) -> std::io::Result<()> {
        let mut child = self.child();
        assert!(child.is_none(), "{} runs already", self.server.name());
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = self.server.command();
        command.stdin(Stdio::null()).stdout(File::try_clone(&log)?).stderr(log).process_group(0);
        *child = Some(command.spawn()?);
        Ok(())
    }

    /// Resolves when the process has ended.
    async fn ended(&self) -> ExitStatus {
        loop {
            if let Some(Ok(Some(status))) = self.child().as_mut().map(Child::try_wait) {
                return status;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn end(&self, signal: Signal) {
        assert!(self.pid().is_some(), "{} does not run", self.server.name());
        // SIGKILL for each of its processes; the others are passed on by the server.
        if signal == Signal::SIGKILL {
            self.signal_all(signal);
        } else {
            self.signal_one(signal);
        }
        let ended = tokio::time::timeout(STOP_LIMIT, self.ended()).await;
        assert!(ended.is_ok(), "{} did not end in {STOP_LIMIT:?}", self.server.name());
        *self.child() = None;
    }

    fn signal_one(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // An error means that it is gone, which is found out by waiting.
            let _ = kill(Pid::from_raw(pid as i32), signal);
        }
    }

    /// The server first, so that it starts no more of them, then its children.
    fn signal_all(&self, signal: Signal) {
        let Some(pid) = self.pid() else { return };
        let before = children(pid);
        self.signal_one(signal);
        for child in before.into_iter().chain(children(pid)) {
            let _ = kill(Pid::from_raw(child as i32), signal);
        }
    }

    fn kill_now(&self) {
        self.signal_all(Signal::SIGKILL);
        if let Some(mut child) = self.child().take() {
            let _ = child.wait();
        }
    }
}

impl<S: Server> Drop for Running<S> {
    fn drop(&mut self) {
        // PostgreSQL gives back its shared memory on SIGQUIT alone; the others just end.
        if self.server.stop_signal() == Signal::SIGINT {
            self.thaw();
            self.signal_one(Signal::SIGQUIT);
            let deadline = Instant::now() + Duration::from_secs(2);
            while Instant::now() < deadline {
                match self.child().as_mut().map(Child::try_wait) {
                    Some(Ok(None)) => std::thread::sleep(LOOK_EVERY),
                    _ => break,
                }
            }
        }
        self.kill_now();
    }
}

/// The direct children of a process.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
