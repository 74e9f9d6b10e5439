//! What was measured: a table for people, JSON for programs.

use crate::{
    bars::{self, Bar},
    machine::Machine,
    meter::{Cost, Requests},
    stack::Configuration,
};
use anyhow::{Context, Result};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write, path::Path};

/// Cores that others may keep busy during a measure that counts as undisturbed.
const NOISY: f64 = 0.25;
/// COPY straight into the values table.
pub(crate) fn copy_name(databases: usize) -> String {
    format!("COPY, {}", database(databases))
}
/// Our ingest, rows that are not there yet.
pub(crate) fn fresh_name(databases: usize) -> String {
    format!("ingest, fresh, {}", database(databases))
}
/// Our ingest, rows that are all there.
pub(crate) fn again_name(databases: usize) -> String {
    format!("ingest, redelivered, {}", database(databases))
}
/// Our ingest with much waiting.
pub(crate) const GENERATED: &str = "simulator, generated on one core";
/// The same with the stream's yes to each message and the state saved.
pub(crate) const PUBLISHED: &str = "simulator, durably published";
/// A year of the default building, by the way of the stream.
pub(crate) const YEAR: &str = "simulator, a year into 2 databases";
/// Ingest's memory.
pub(crate) const WAITING: &str = "ingest, much waiting, 2 databases";
/// Mosquitto in and out.
pub(crate) fn bare_name(traffic: &str, clean: bool) -> String {
    let session = if clean { "" } else { ", durable session" };
    format!("Mosquitto alone, {traffic}{session}")
}
/// MQTT to both databases.
pub(crate) fn path_name(traffic: &str) -> String {
    format!("MQTT to 2 databases, {traffic}")
}
/// The same with the archive on.
pub(crate) fn archive_name(traffic: &str) -> String {
    format!("MQTT to 2 databases and archive, {traffic}")
}
/// The Python pipeline of `bench/peers`.
pub(crate) fn python_name(traffic: &str) -> String {
    format!("Python (paho, asyncpg), 2 databases, {traffic}")
}
/// A question by the command line.
pub(crate) fn asked_name(command: &str) -> String {
    format!("haystack {command}")
}
/// All rows of both databases compared.
pub(crate) const VERIFY: &str = "haystack verify, rows of 2 databases";
/// Messages that a replay looks at and is not about.
pub(crate) const FILTER: &str = "replay, messages it is not about";
/// Readings of a replay while live ones come.
pub(crate) const REPLAY: &str = "replay, beside 1,000 live messages a second";
/// Gateways' reports in parts.
pub(crate) const CHUNKS: &str = "reports of 2,000 beacons in 67 parts";
/// One message in a thousandth of a second, until both databases have it. Its time is the 99th
/// percentile.
pub(crate) const LATENCY: &str = "latency at 1,000 messages a second";
/// Devices that are connected and say little.
pub(crate) const CROWD: &str = "devices that connect and say that they are there";
/// Values by HTTP.
pub(crate) const BULK: &str = "/bulk/value";
/// Values of a request, and clients that send them.
pub(crate) fn bulk_name(values: u64, clients: usize) -> String {
    format!("{BULK}, {} values, {clients} client{}", thousands(values as f64), plural(clients))
}
/// The API of `bench/peers`.
pub(crate) fn fastapi_name(values: u64, clients: usize) -> String {
    format!("FastAPI, {} values, {clients} client{}", thousands(values as f64), plural(clients))
}
/// A day of a point with so many values, asked for at a steady rate.
pub(crate) fn history_name(values: u32) -> String {
    format!("GET /value, a day of {} values", thousands(values.into()))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn database(count: usize) -> &'static str {
    if count == 1 { "1 database" } else { "2 databases" }
}

/// A line about what happens now.
pub(crate) fn progress(text: &str) {
    eprintln!("· {text}");
}

/// One measure in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    /// Its name in the table.
    pub(crate) measure: String,
    /// Which round.
    pub(crate) round: u32,
    /// What is counted: `rows`, `messages`, …
    pub(crate) unit: &'static str,
    /// How many of them.
    pub(crate) count: u64,
    /// Readings in each.
    pub(crate) readings_each: u64,
    /// Whether the machine was quiet before.
    pub(crate) quiet: bool,
    /// What it cost.
    #[serde(flatten)]
    pub(crate) cost: Cost,
}

impl Sample {
    /// How many a second.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.cost.seconds
    }
    fn readings(&self) -> f64 {
        (self.count * self.readings_each) as f64
    }
    fn noisy(&self) -> bool {
        !self.quiet || self.cost.others > NOISY
    }
}

/// The median of a measure's rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Median {
    measure: String,
    unit: &'static str,
    /// The median.
    pub(crate) per_second: f64,
    slowest: f64,
    fastest: f64,
    readings_each: u64,
    cpu_us_per_reading: BTreeMap<&'static str, f64>,
    peak_mib: BTreeMap<&'static str, f64>,
    noisy_rounds: usize,
    /// Of requests: the median of the rounds' medians, and of their 99th percentiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_ms: Option<(f64, f64)>,
    refused: u64,
}

/// All results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    configuration: Configuration,
    samples: Vec<Sample>,
}

/// Report as written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    report: &'a Report,
    medians: Vec<Median>,
    bars: Vec<Bar>,
}

impl Report {
    /// Nothing measured yet.
    pub(crate) fn new(machine: Machine, configuration: Configuration) -> Self {
        Self { machine, configuration, samples: Vec::new() }
    }

    /// Where and with what.
    pub(crate) fn head(&self) -> String {
        let Configuration { versions, postgresql, .. } = &self.configuration;
        format!(
            "{}\n{}\nPostgreSQL, the same in every measure: {}\n\n",
            self.machine,
            versions.join(", "),
            postgresql.join(", ")
        )
    }

    /// Takes in a measure and shows it.
    pub(crate) fn add(&mut self, sample: Sample) {
        let Sample { measure, round, unit, .. } = &sample;
        let noise = if sample.noisy() {
            format!("  (noise: {:.2} cores of others)", sample.cost.others)
        } else {
            String::new()
        };
        let rate = thousands(sample.rate());
        progress(&format!("round {round}: {measure}: {rate} {unit}/s{noise}"));
        self.samples.push(sample);
    }

    fn medians(&self) -> Vec<Median> {
        let mut names: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !names.contains(&sample.measure.as_str()) {
                names.push(&sample.measure);
            }
        }
        names.into_iter().filter_map(|name| summary(&of(&self.samples, name))).collect()
    }

    /// The table and the bars.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "\n{:<44} {:>18} {:>19}  CPU a reading and peak memory of each process",
            "measure", "median a second", "slowest–fastest"
        );
        for median in self.medians() {
            let _ = writeln!(text, "{}", line(&median));
        }
        text + &bars::text(&self.samples)
    }

    /// Writes everything as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let written =
            Written { report: self, medians: self.medians(), bars: bars::all(&self.samples) };
        let text = serde_json::to_string_pretty(&written)?;
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))
    }
}

/// The rounds of one measure.
pub(crate) fn of<'s>(samples: &'s [Sample], measure: &str) -> Vec<&'s Sample> {
    samples.iter().filter(|sample| sample.measure == measure).collect()
}

/// The median of one measure's rounds.
pub(crate) fn summary(samples: &[&Sample]) -> Option<Median> {
    let first = samples.first()?;
    let rates: Vec<f64> = samples.iter().map(|sample| sample.rate()).collect();
    let mut cpu_us_per_reading = BTreeMap::new();
    let mut peak_mib = BTreeMap::new();
    for &name in first.cost.cpu.keys() {
        let each = samples.iter().filter_map(|s| Some(s.cost.cpu.get(name)? * 1e6 / s.readings()));
        cpu_us_per_reading.insert(name, median(each.collect()));
        let peaks = samples.iter().filter_map(|s| s.cost.peak.get(name));
        peak_mib.insert(name, mib(peaks.max().copied().unwrap_or(0)));
    }
    let requests: Vec<Requests> = samples.iter().filter_map(|s| s.cost.requests).collect();
    let request_ms = (!requests.is_empty()).then(|| {
        let of = |part: fn(&Requests) -> f64| median(requests.iter().map(part).collect());
        (of(|it| it.p50_ms), of(|it| it.p99_ms))
    });
    Some(Median {
        measure: first.measure.clone(),
        unit: first.unit,
        per_second: median(rates.clone()),
        slowest: rates.iter().copied().fold(f64::INFINITY, f64::min),
        fastest: rates.iter().copied().fold(0.0, f64::max),
        readings_each: first.readings_each,
        cpu_us_per_reading,
        peak_mib,
        noisy_rounds: samples.iter().filter(|sample| sample.noisy()).count(),
        request_ms,
        refused: requests.iter().map(|it| it.refused).sum(),
    })
}

fn line(median: &Median) -> String {
    let Median { measure, unit, per_second, slowest, fastest, readings_each, .. } = median;
    // Of large messages the readings count.
    let each = *readings_each as f64;
    let unit = if *readings_each > 1 { "readings" } else { unit };
    let rate = format!("{} {unit}", thousands(per_second * each));
    let range = format!("{}–{}", thousands(slowest * each), thousands(fastest * each));
    let costs = median.cpu_us_per_reading.iter().map(|(name, cpu)| {
        let peak = median.peak_mib.get(name).copied().unwrap_or(0.0);
        format!("{name} {cpu:.2} µs {peak:.0} MiB")
    });
    let costs: Vec<String> = costs.collect();
    let mut requests = median
        .request_ms
        .map_or(String::new(), |(p50, p99)| format!("p50 {p50:.1} ms, p99 {p99:.1} ms · "));
    if median.refused > 0 {
        let _ = write!(requests, "{} refused · ", median.refused);
    }
    let noise = match median.noisy_rounds {
        0 => String::new(),
        rounds => format!("  [noise in {rounds} rounds]"),
    };
    format!("{measure:<44} {rate:>18} {range:>19}  {requests}{}{noise}", costs.join(" · "))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 if middle > 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values.get(middle).copied().unwrap_or(f64::NAN),
    }
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A whole number with blanks between thousands.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_numbers_read_well() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert_eq!(thousands(1_234_567.4), "1 234 567");
        assert_eq!(thousands(12.0), "12");
    }
}
