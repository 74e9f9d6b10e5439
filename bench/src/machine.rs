//! The machine as `/proc` shows it: processor time, memory, noise.

use anyhow::Context;
use serde::Serialize;
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

/// Ticks a second in `/proc` (`USER_HZ`): 100 on every platform that Linux runs Rust on.
const TICKS: f64 = 100.0;
/// How long one look at the machine takes.
const LOOK: Duration = Duration::from_millis(400);
/// Share of one core that others may use while a machine counts as quiet.
const QUIET: f64 = 0.12;
/// Syncs that tell how long one takes.
const SYNCS: usize = 100;

/// Where the figures were taken.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    kernel: String,
    memory_mib: u64,
    /// Median of a 4 KiB write and its fsync where the servers keep their data.
    fsync_ms: f64,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, processor, kernel, memory_mib, fsync_ms } = self;
        write!(
            f,
            "{cores} cores ({processor}), {memory_mib} MiB, Linux {kernel}, fsync {fsync_ms:.2} ms"
        )
    }
}

/// Describes this machine; `folder` is on the disk that the servers use.
pub(crate) fn describe(folder: &Path) -> anyhow::Result<Machine> {
    let line = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(name));
        found.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_owned()
    };
    let memory = line("/proc/meminfo", "MemTotal");
    let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        processor: line("/proc/cpuinfo", "model name"),
        kernel: kernel.trim().to_owned(),
        memory_mib: kib / 1024,
        fsync_ms: fsync(folder).context("can't time fsync")?,
    })
}

fn fsync(folder: &Path) -> std::io::Result<f64> {
    let path = folder.join("fsync-probe");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(path)?;
    times.sort_by(f64::total_cmp);
    Ok(times[SYNCS / 2])
}

/// Processor seconds that the whole machine has spent.
pub(crate) fn machine_cpu() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let field = |text: &str| text.parse::<f64>().unwrap_or(0.0);
    // user nice system idle iowait irq softirq steal
    let fields: Vec<f64> = first.split_whitespace().skip(1).map(field).collect();
    let busy = fields.iter().take(3).chain(fields.iter().skip(5).take(3));
    busy.sum::<f64>() / TICKS
}

/// Waits, at most `limit`, until nearly nobody else computes. Tells whether it came to that.
pub(crate) async fn quiet(limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let (before, started) = (machine_cpu(), Instant::now());
        tokio::time::sleep(LOOK).await;
        if (machine_cpu() - before) / started.elapsed().as_secs_f64() < QUIET {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

/// One process, from `/proc/PID/stat`.
struct Stat {
    parent: u32,
    /// Its own ticks, and those of its children that ended and were waited for.
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, also blanks and brackets.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

fn processes() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// Processor seconds of each process with its descendants, living and ended. A process whose
/// parent is measured too counts with its parent only where it is not itself asked for.
pub(crate) fn trees_cpu(roots: &[u32]) -> Vec<f64> {
    let all = processes();
    let of = |root: u32| {
        let pids = tree(&all, root, roots);
        let ticks: u64 = pids.iter().filter_map(|pid| all.get(pid)).map(|stat| stat.ticks).sum();
        ticks as f64 / TICKS
    };
    roots.iter().map(|&root| of(root)).collect()
}

fn tree(all: &HashMap<u32, Stat>, root: u32, roots: &[u32]) -> Vec<u32> {
    if root == std::process::id() {
        // Its children are the servers.
        return vec![root];
    }
    let others: HashSet<u32> = roots.iter().copied().filter(|&other| other != root).collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = all.iter().filter(|(_, stat)| stat.parent == parent);
        found.extend(children.map(|(&pid, _)| pid).filter(|pid| !others.contains(pid)));
        next += 1;
    }
    found
}

/// Bytes in memory of each process with its descendants. What they share counts once.
pub(crate) fn trees_memory(roots: &[u32]) -> Vec<u64> {
    let all = processes();
    let of = |root: u32| {
        let (mut own, mut file, mut shared) = (0, 0, 0);
        for pid in tree(&all, root, roots) {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            own += field(&status, "RssAnon:");
            file = file.max(field(&status, "RssFile:"));
            shared = shared.max(field(&status, "RssShmem:"));
        }
        own + file + shared
    };
    roots.iter().map(|&root| of(root)).collect()
}

/// The peak of one process as the kernel keeps it, in bytes.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "VmHWM:")
}

/// Lets the kernel's peak start anew at what is used now.
pub(crate) fn forget_peak(pid: u32) {
    // Refused for another user's process: then the peak since its start is shown.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Lets this process, and what it starts, have so many open files.
pub(crate) fn raise_descriptors(count: u64) -> anyhow::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    anyhow::ensure!(count <= most, "{count} open files are needed, {most} are allowed: ulimit -Hn");
    Ok(setrlimit(Resource::RLIMIT_NOFILE, count, most)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_with_its_children() {
        let us = std::process::id();
        let all = processes();
        assert!(tree(&all, all[&us].parent, &[]).contains(&us));
        assert!(!tree(&all, all[&us].parent, &[us]).contains(&us));
        assert_eq!(tree(&all, us, &[]), [us]);
        assert!(trees_memory(&[us])[0] > 1 << 20);
        assert!(peak_memory(us) > 1 << 20);
    }
}
