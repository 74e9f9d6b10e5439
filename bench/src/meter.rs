//! What a measure cost: time, processor seconds and memory of each process.

use crate::machine;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

/// A process to watch: its name in the table, its id.
pub(crate) type Watched = (&'static str, u32);

/// What a measure cost.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) seconds: f64,
    /// Processor seconds of each process with its descendants.
    pub(crate) cpu: BTreeMap<&'static str, f64>,
    /// Most bytes in memory of each process with its descendants.
    pub(crate) peak: BTreeMap<&'static str, u64>,
    /// Cores that others kept busy meanwhile.
    pub(crate) others: f64,
    /// How long requests took, where there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests: Option<Requests>,
}

/// How long requests took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Requests {
    pub(crate) count: u64,
    /// Answered with something else than yes.
    pub(crate) refused: u64,
    /// The median.
    pub(crate) p50_ms: f64,
    /// The 99th percentile.
    pub(crate) p99_ms: f64,
    most_ms: f64,
}

impl Requests {
    /// Of the milliseconds of each; `None` where there are none.
    pub(crate) fn of(mut millis: Vec<f64>, refused: u64) -> Option<Self> {
        millis.sort_by(f64::total_cmp);
        let last = millis.len().checked_sub(1)?;
        let at = |share: f64| millis[(last as f64 * share) as usize];
        let count = millis.len() as u64;
        Some(Self { count, refused, p50_ms: at(0.5), p99_ms: at(0.99), most_ms: at(1.0) })
    }
}

/// Watches processes from its start on.
pub(crate) struct Meter {
    watched: Vec<Watched>,
    cpu: Vec<f64>,
    machine: f64,
    started: Instant,
    peaks: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
}

impl Meter {
    /// Starts the clock.
    pub(crate) fn start(watched: &[Watched]) -> Self {
        let pids: Vec<u32> = watched.iter().map(|&(_, pid)| pid).collect();
        for &pid in &pids {
            machine::forget_peak(pid);
        }
        let peaks = Arc::new(Mutex::new(vec![0; pids.len()]));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped, sampled) = (peaks.clone(), stop.clone(), pids.clone());
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                sample(&sampled, &shared);
                thread::sleep(SAMPLE_EVERY);
            }
        });
        Self {
            watched: watched.to_vec(),
            cpu: machine::trees_cpu(&pids),
            machine: machine::machine_cpu(),
            started: Instant::now(),
            peaks,
            stop,
        }
    }

    /// Starts the clock again.
    pub(crate) fn restart(&mut self) {
        let pids: Vec<u32> = self.watched.iter().map(|&(_, pid)| pid).collect();
        self.cpu = machine::trees_cpu(&pids);
        self.machine = machine::machine_cpu();
        self.started = Instant::now();
    }

    /// The cost until now. It may be asked for again later.
    pub(crate) fn look(&self) -> Cost {
        let seconds = self.started.elapsed().as_secs_f64();
        let machine = machine::machine_cpu() - self.machine;
        let pids: Vec<u32> = self.watched.iter().map(|&(_, pid)| pid).collect();
        let spent = machine::trees_cpu(&pids);
        let names = self.watched.iter().map(|&(name, _)| name);
        // A process that ended in between has no figure; it can't have given anything back.
        let spent = spent.iter().zip(&self.cpu).map(|(now, before)| (now - before).max(0.0));
        let cpu: BTreeMap<_, _> = names.clone().zip(spent).collect();
        sample(&pids, &self.peaks);
        let peaks = self.peaks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let others = ((machine - cpu.values().sum::<f64>()) / seconds).max(0.0);
        let peak = names.zip(peaks).collect();
        Cost { seconds, cpu, peak, others, requests: None }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn sample(pids: &[u32], peaks: &Mutex<Vec<u64>>) {
    let now = machine::trees_memory(pids);
    let mut peaks = peaks.lock().unwrap_or_else(PoisonError::into_inner);
    for ((peak, now), &pid) in peaks.iter_mut().zip(now).zip(pids) {
        *peak = (*peak).max(now).max(machine::peak_memory(pid));
    }
}
