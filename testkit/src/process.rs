//! The real binary as a process: started, killed, frozen, told to stop.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

/// Longest wait for a process to end by itself.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The `haystack` binary that was built beside this test; with failpoints, as `make test` does.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let binary = folder.join("haystack");
    assert!(
        binary.exists(),
        "{} is not there: build it with `cargo build -p haystack-cli --features failpoints`, or \
         run `make test`",
        binary.display()
    );
    binary
}

/// A place where a service is to die: the name, and how many hits pass before.
#[derive(Debug, Clone, Copy)]
pub struct Failpoint {
    /// One of `domain::failpoint`.
    pub name: &'static str,
    /// Harmless hits before it.
    pub passes: u32,
}

/// A running `haystack` process.
pub struct Process {
    child: Child,
    log: PathBuf,
    trace: PathBuf,
}

impl Process {
    /// Starts `haystack` with these arguments; its output goes into `log`.
    pub fn start(arguments: &[&str], log: &Path, failpoint: Option<Failpoint>) -> Self {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let file: File = open().expect("the log's folder is ours");
        let trace = log.with_extension("failpoint");
        let mut command = Command::new(binary());
        command.args(arguments).stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a file")).stderr(file);
        if let Some(Failpoint { name, passes }) = failpoint {
            let version = run(&["--version"]).stdout;
            let version = String::from_utf8_lossy(&version);
            assert!(version.contains("failpoints"), "built without failpoints: run `make test`");
            let _ = std::fs::remove_file(&trace);
            command.env("HAYSTACK_FAILPOINT", format!("{name}:{passes}:{}", trace.display()));
        }
        let child = command.spawn().expect("the binary starts");
        Self { child, log: log.to_owned(), trace }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // An error means that it is gone, which is found out by waiting.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// SIGKILL, and waits.
    pub async fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended().await;
    }

    /// SIGTERM, and waits.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended().await
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let deadline = tokio::time::Instant::now() + END_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "it did not end in {END_LIMIT:?}; its log ends with\n{}",
                self.log_tail()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until its log (of this start or an earlier one) holds the text.
    pub async fn says(&self, text: &str) {
        let deadline = tokio::time::Instant::now() + END_LIMIT;
        while !std::fs::read_to_string(&self.log).unwrap_or_default().contains(text) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "it does not say {text:?}; its log ends with\n{}",
                self.log_tail()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it died at its failpoint, and shows that it was that one.
    pub async fn died_at(&mut self, failpoint: Failpoint) {
        let status = self.ended().await;
        let trace = std::fs::read_to_string(&self.trace).unwrap_or_default();
        assert_eq!(
            trace.trim(),
            failpoint.name,
            "it ended ({status}) elsewhere; its log ends with\n{}",
            self.log_tail()
        );
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `haystack` to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("it starts")
}

/// Begins `haystack`, which is killed when it is dropped.
pub fn begin(arguments: &[&str]) -> tokio::process::Child {
    tokio::process::Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts")
}
