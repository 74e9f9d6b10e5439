//! The line that `up` prints every second: what comes in, what is stored, what is behind.

use crate::connect;
use domain::TargetName;
use nats::{CancellationToken, Wire, inspect, report, streams};
use service::Config;
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

/// How long services have to answer.
const ANSWER: Duration = Duration::from_millis(200);
/// One line each.
const EVERY: Duration = Duration::from_secs(1);
/// Where the output is no terminal, a line that says the same as the last comes this rarely.
const QUIET_LINES: u32 = 10;

/// What the line shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Figures {
    /// Counters of all services, added up.
    counters: BTreeMap<String, u64>,
    /// Messages that each target has before it.
    lag: BTreeMap<String, u64>,
    /// Dead letters.
    dead: u64,
    /// What is held.
    held: Vec<String>,
}

impl Figures {
    /// Looks once.
    pub(crate) async fn look(wire: &Wire, targets: &[TargetName]) -> anyhow::Result<Self> {
        let mut figures = Self::default();
        for report in report::gather(wire, ANSWER).await {
            for (name, count) in report.counters {
                *figures.counters.entry(name).or_default() += count;
            }
            figures.held.extend(report.holds.into_iter().map(|hold| hold.what));
        }
        let consumers = inspect::consumers(wire, streams::TELEMETRY).await?;
        figures.lag = targets.iter().map(|target| (target.to_string(), 0)).collect();
        for consumer in consumers.values() {
            // A target's name may begin like another's: the longest that fits is meant.
            let of = |target: &&TargetName| consumer.name.starts_with(&format!("ingest-{target}-"));
            let target = targets.iter().filter(of).max_by_key(|target| target.as_str().len());
            if let Some(target) = target {
                *figures.lag.entry(target.to_string()).or_default() += consumer.lag();
            }
        }
        figures.dead = inspect::letters(wire).await?.values().map(|count| *count as u64).sum();
        Ok(figures)
    }

    fn rate(&self, before: &Self, seconds: f64, counter: &str) -> u64 {
        let count = |figures: &Self| figures.counters.get(counter).copied().unwrap_or(0);
        // A restarted service counts from zero again.
        (count(self).saturating_sub(count(before)) as f64 / seconds).round() as u64
    }

    fn line(&self, before: &Self, seconds: f64) -> String {
        let mut parts = vec![format!("in {}/s", self.rate(before, seconds, "readings"))];
        for (target, lag) in &self.lag {
            let stored = self.rate(before, seconds, &format!("stored.{target}"));
            parts.push(format!("{target} {stored}/s (lag {lag})"));
        }
        parts.push(format!("dead {}", self.dead));
        if !self.held.is_empty() {
            parts.push(format!("HELD: {} (haystack status says why)", self.held.join(", ")));
        }
        parts.join("   ")
    }
}

/// Prints a line a second until shutdown. An outage of the stream server is a line too.
pub(crate) async fn follow(config: &Config, shutdown: CancellationToken) {
    let targets: Vec<TargetName> = config.targets.keys().cloned().collect();
    let mut screen = Screen::default();
    let mut wire = None;
    let mut before: Option<(Instant, Figures)> = None;
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return screen.end(),
            _ = ticks.tick() => {}
        }
        if wire.is_none() {
            wire = connect::now(config, "operator").await.ok();
        }
        let Some(wire) = &wire else {
            screen.show("waiting for NATS");
            continue;
        };
        let look = tokio::time::timeout(EVERY * 2, Figures::look(wire, &targets)).await;
        let Ok(Ok(figures)) = look else {
            screen.show("NATS does not answer");
            continue;
        };
        let now = Instant::now();
        if let Some((then, before)) = &before {
            screen.show(&figures.line(before, now.duration_since(*then).as_secs_f64()));
        }
        before = Some((now, figures));
    }
}

/// One line that is written again and again; where the output is no terminal, lines.
#[derive(Default)]
struct Screen {
    last: String,
    repeated: u32,
}

impl Screen {
    fn show(&mut self, line: &str) {
        let mut out = std::io::stdout();
        // A closed pipe is not worth stopping for.
        if out.is_terminal() {
            let _ = write!(out, "\r\x1b[2K{line}");
        } else if line != self.last || self.repeated >= QUIET_LINES {
            let _ = writeln!(out, "{line}");
            self.repeated = 0;
        }
        let _ = out.flush();
        self.repeated += 1;
        line.clone_into(&mut self.last);
    }

    fn end(&self) {
        let mut out = std::io::stdout();
        if out.is_terminal() && !self.last.is_empty() {
            let _ = writeln!(out);
        }
    }
}
