//! What was promised, and what came of it. Shown, never asserted: machines differ.

use crate::latency::BESIDE_REPLAY;
use crate::report::{
    BULK, FILTER, GENERATED, LATENCY, PUBLISHED, Sample, WAITING, YEAR, again_name, archive_name,
    asked_name, bare_name, bulk_name, copy_name, fastapi_name, fresh_name, history_name, mib, of,
    path_name, python_name, summary,
};
use serde::Serialize;
use std::fmt::Write;

/// Memory that ingest may use, whatever waits.
const INGEST_MEMORY: u64 = 128 << 20;

/// Most milliseconds of a question to a long history.
const ASKED_MILLIS: f64 = 1_000.0;
/// How late live readings may be beside a replay: `replay.lag_ms`.
const REPLAY_MILLIS: f64 = 2_000.0;
/// Memory that the API may use, whoever calls.
const API_MEMORY: u64 = 100 << 20;
/// Most milliseconds of a request for a day of a point, but for one in a hundred.
const HISTORY_MILLIS: f64 = 10.0;

/// A promise, and what came of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bar {
    what: String,
    reached: f64,
    /// Least and most over the rounds, each beside what was measured in the same round.
    rounds: Option<(f64, f64)>,
    /// What was promised: at least (of memory, at most) this.
    promised: f64,
    ok: bool,
    unit: &'static str,
}

/// Every promise that the measures of this run tell about.
pub(crate) fn all(samples: &[Sample]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (databases, bar) in [(1, 0.6), (2, 0.5)] {
        bars.extend(ratio(samples, &fresh_name(databases), &copy_name(databases), bar));
    }
    for databases in [1, 2] {
        bars.extend(ratio(samples, &again_name(databases), &copy_name(databases), 0.35));
    }
    let waiting = of(samples, WAITING);
    bars.extend(memory(&waiting, WAITING, "ingest", INGEST_MEMORY));
    let alone = |traffic: &str| ratio(samples, &path_name(traffic), &bare_name(traffic, true), 0.6);
    for traffic in ["1 a message", "1 device", "50 devices", "mTLS, 1 device", "mTLS, 50 devices"] {
        bars.extend(alone(traffic));
    }
    bars.extend(readings_ratio(samples, &path_name("30 a message"), &copy_name(2), 0.4));
    for traffic in ["1 a message", "30 a message"] {
        bars.extend(ratio(samples, &path_name(traffic), &python_name(traffic), 2.0));
        bars.extend(ratio(samples, &archive_name(traffic), &path_name(traffic), 0.0));
    }
    bars.extend(latency(samples));
    bars.extend(rate(samples, GENERATED, 500_000.0));
    bars.extend(rate(samples, PUBLISHED, 150_000.0));
    bars.extend(ratio(samples, YEAR, &fresh_name(2), 0.0));
    bars.extend(custody(samples));
    bars.extend(api(samples));
    bars
}

/// Of a long history.
fn custody(samples: &[Sample]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for command in ["ledger", "trace"] {
        let measure = asked_name(command);
        let times = of(samples, &measure).into_iter().filter_map(|s| s.cost.requests);
        bars.extend(slowest(&measure, times.map(|it| it.p99_ms), ASKED_MILLIS));
    }
    bars.extend(rate(samples, FILTER, 1e6));
    let beside = of(samples, BESIDE_REPLAY).into_iter().filter_map(|s| s.cost.requests);
    bars.extend(slowest(BESIDE_REPLAY, beside.map(|it| it.p99_ms), REPLAY_MILLIS));
    bars
}

/// Of values and history by HTTP.
fn api(samples: &[Sample]) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (values, bar) in [(5_000, 20.0), (280, 15.0)] {
        bars.extend(ratio(samples, &bulk_name(values, 8), &fastapi_name(values, 8), bar));
    }
    let bulk: Vec<&Sample> = samples.iter().filter(|s| s.measure.starts_with(BULK)).collect();
    bars.extend(memory(&bulk, BULK, "api", API_MEMORY));
    for values in [1_440, 288] {
        let measure = history_name(values);
        let of_rounds = of(samples, &measure).into_iter().filter_map(|s| s.cost.requests);
        bars.extend(slowest(&measure, of_rounds.map(|it| it.p99_ms), HISTORY_MILLIS));
    }
    bars
}

/// The most that a process took in any of these.
fn memory(samples: &[&Sample], what: &str, process: &str, most: u64) -> Option<Bar> {
    let peak = samples.iter().filter_map(|s| s.cost.peak.get(process)).max().copied()?;
    Some(Bar {
        what: format!("{what}: peak memory of {process}"),
        reached: mib(peak),
        rounds: None,
        promised: mib(most),
        ok: peak < most,
        unit: " MiB",
    })
}

/// One measure's median beside a figure.
fn rate(samples: &[Sample], measure: &str, bar: f64) -> Option<Bar> {
    let ours = of(samples, measure);
    let reached = summary(&ours)?.per_second;
    Some(Bar {
        what: format!("{measure}, a second"),
        reached,
        rounds: None,
        promised: bar,
        ok: reached >= bar,
        unit: "",
    })
}

/// The same by readings, where one counts messages and the other rows.
fn readings_ratio(samples: &[Sample], measure: &str, beside: &str, bar: f64) -> Option<Bar> {
    let each = of(samples, measure).first()?.readings_each as f64;
    let found = ratio(samples, measure, beside, bar)?;
    let reached = found.reached * each;
    let rounds = found.rounds.map(|(low, high)| (low * each, high * each));
    Some(Bar { reached, rounds, ok: reached >= bar, ..found })
}

/// From a message's publishing until both databases have it.
fn latency(samples: &[Sample]) -> Option<Bar> {
    const MOST_MILLIS: f64 = 150.0;
    let found = of(samples, LATENCY).into_iter().map(|s| s.cost.seconds * 1e3);
    slowest(LATENCY, found, MOST_MILLIS)
}

/// The worst round's 99th percentile, in milliseconds.
fn slowest(measure: &str, found: impl Iterator<Item = f64>, most: f64) -> Option<Bar> {
    let found: Vec<f64> = found.collect();
    let (low, high) =
        (found.iter().copied().reduce(f64::min)?, found.iter().copied().reduce(f64::max)?);
    Some(Bar {
        what: format!("{measure}: 99th percentile"),
        reached: high,
        rounds: Some((low, high)),
        promised: most,
        ok: high <= most,
        unit: " ms",
    })
}

/// One measure's median as a share of another's.
fn ratio(samples: &[Sample], measure: &str, beside: &str, bar: f64) -> Option<Bar> {
    let (ours, theirs) = (of(samples, measure), of(samples, beside));
    let reached = summary(&ours)?.per_second / summary(&theirs)?.per_second;
    let same_round = ours.iter().filter_map(|sample| {
        let other = theirs.iter().find(|other| other.round == sample.round)?;
        Some(sample.rate() / other.rate())
    });
    let rounds: Vec<f64> = same_round.collect();
    let low = rounds.iter().copied().reduce(f64::min)?;
    let high = rounds.iter().copied().reduce(f64::max)?;
    Some(Bar {
        what: format!("{measure}, of {beside}"),
        reached,
        rounds: Some((low, high)),
        promised: bar,
        ok: reached >= bar,
        unit: "",
    })
}

/// The promises as lines for people.
pub(crate) fn text(samples: &[Sample]) -> String {
    let bars = all(samples);
    let mut text = String::new();
    if !bars.is_empty() {
        let _ = writeln!(text, "\nbars (for 2 cores with everything on one machine; not asserted)");
    }
    for Bar { what, reached, rounds, promised, ok, unit } in bars {
        let verdict = if ok { "ok" } else { "below" };
        let range =
            rounds.map_or(String::new(), |(low, high)| format!(" (by round {low:.2}–{high:.2})"));
        let _ =
            writeln!(text, "  {what}: {reached:.2}{unit}{range}, bar {promised}{unit}: {verdict}");
    }
    text
}
