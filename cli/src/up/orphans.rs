//! Processes that an `up` left behind when it was killed: found by their command lines, which
//! name our data folder, and ended as cleanly as if `up` had done it.

use super::{child::Ending, folder::Folder, notice, servers, services};
use anyhow::Result;
use nix::{sys::signal::kill, unistd::Pid};
use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often a process that is to end is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Wait after SIGKILL.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// How a child of ours is recognised: its program, and arguments that it must have.
pub(crate) struct Pattern {
    /// The child's name.
    pub(crate) name: &'static str,
    /// File name of its program.
    pub(crate) program: &'static str,
    /// One of these sets is among its arguments.
    pub(crate) arguments: Vec<Vec<OsString>>,
    /// How it is ended.
    pub(crate) ending: Ending,
}

/// A process, and when it started: a pid alone may soon mean another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    started: u64,
}

/// Ends what is left of an earlier `up` on this folder: services first. Needs the lock.
/// Returns whether there was any.
pub(crate) async fn end(folder: &Folder) -> Result<bool> {
    let mut any = false;
    for pattern in services::patterns(folder).into_iter().chain(servers::patterns(folder)) {
        for process in find(&pattern)? {
            any = true;
            let (name, pid) = (pattern.name, process.pid);
            notice::say(&format!("ending {name} (pid {pid}), left by an `up` that was killed"));
            end_one(process, pattern.ending).await?;
        }
    }
    Ok(any)
}

async fn end_one(process: Process, ending: Ending) -> Result<()> {
    for (signal, limit) in ending.steps(GONE_LIMIT) {
        let sent = kill(Pid::from_raw(process.pid), signal);
        anyhow::ensure!(
            sent != Err(nix::errno::Errno::EPERM),
            "process {} belongs to another user; end it as that user or as root",
            process.pid
        );
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if started(process.pid) != Some(process.started) {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
    }
    anyhow::bail!("process {} does not end, not even killed", process.pid)
}

fn find(pattern: &Pattern) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if let Some(started) = started(pid).filter(|_| pattern.matches(&line)) {
            found.push(Process { pid, started });
        }
    }
    Ok(found)
}

impl Pattern {
    /// Whether a command line, arguments ended by NUL, is one of this kind.
    fn matches(&self, line: &[u8]) -> bool {
        let mut words = line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
        let program = words.next().unwrap_or_default();
        let words: Vec<_> = words.collect();
        Path::new(&program).file_name().is_some_and(|name| name == self.program)
            && self.arguments.iter().any(|set| set.iter().all(|word| words.contains(word)))
    }
}

/// Whether this process is an `up`, and not one that has its pid by now.
pub(crate) fn is_up(pid: i32) -> bool {
    let own = std::env::current_exe().ok();
    let program = own.as_deref().and_then(Path::file_name);
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<_> = line.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
    Path::new(words[0]).file_name() == program && words.contains(&OsStr::new("up"))
}

/// When a process started, in ticks since boot; `None` where it is gone or a zombie.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields behind it don't.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (*fields.first()? != "Z").then(|| fields.get(19)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_children_are_recognised() {
        let pattern = Pattern {
            name: "bridge",
            program: "haystack",
            arguments: vec![vec!["/data/haystack.toml".into(), "bridge".into()]],
            ending: Ending::SERVICE,
        };
        for (line, ours) in [
            ("/opt/haystack\0--config\0/data/haystack.toml\0bridge\0", true),
            ("/opt/haystack\0--config\0/other/haystack.toml\0bridge\0", false),
            ("/opt/haystack\0--config\0/data/haystack.toml\0status\0", false),
            ("vim\0/data/haystack.toml\0bridge\0", false),
            ("", false),
        ] {
            assert_eq!(pattern.matches(line.as_bytes()), ours, "{line}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = std::process::id() as i32;
        assert!(started(own).is_some());
        assert_eq!(started(own), started(own));
        assert_eq!(started(i32::MAX), None);
    }
}
