//! From a device's payload to readings, by the device type's rules. A pure function of the
//! payload, the profile and the time of receipt, so that a replay gives the same again.

mod examples;
mod found;
mod gateway;

pub use examples::{ExampleFailed, check_examples};
pub use found::Found;

use crate::{
    Reason, Timestamp, Values,
    batch::MAX_TEXT,
    device_type::{DeviceType, Kind, Metric, TimeFormat, TimestampRule, UnknownMetrics},
    pointer::{find, unescaped},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Most faults that one payload reports; more would only repeat them.
pub const MAX_FAULTS: usize = 16;

/// Most values (objects, arrays, their members) of one JSON payload: in memory each takes many times
/// its bytes, and a payload of 8 MiB can hold millions.
pub const MAX_JSON_VALUES: usize = 200_000;

/// Which moments are believable, seen from the time of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// Nothing is older.
    pub earliest: Timestamp,
    /// How far in the future a device's clock may be, in microseconds.
    pub ahead_micros: i64,
}

impl Default for TimeLimits {
    /// Not before 2000-01-01, at most ten minutes ahead.
    fn default() -> Self {
        const YEAR_2000: i64 = 946_684_800_000_000;
        let earliest = Timestamp::EPOCH.plus_micros(YEAR_2000);
        Self { earliest, ahead_micros: 10 * 60 * 1_000_000 }
    }
}

impl TimeLimits {
    /// Whether a reading may bear this moment.
    pub fn allow(&self, ts: Timestamp, received_at: Timestamp) -> bool {
        self.earliest <= ts && ts <= received_at.plus_micros(self.ahead_micros)
    }
}

/// One reading of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading<'p> {
    /// The metric's name in the device type.
    pub metric: &'p str,
    /// When it was so.
    pub ts: Timestamp,
    /// What it was.
    pub values: Values,
}

/// What a part of a payload lacks. The rest of the payload is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// Where and what, for the person who reads the dead letter.
    pub detail: String,
}

/// What a gateway says of one logical device.
#[derive(Debug, Clone, PartialEq)]
pub struct LogicalReadings<'p> {
    /// What the gateway calls it.
    pub identifier: String,
    /// In the order of the metrics' names.
    pub readings: Vec<Reading<'p>>,
}

/// Readings, and what could not become one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Normalized<'p> {
    /// Of the sender itself, in the order of the metrics' names.
    pub readings: Vec<Reading<'p>>,
    /// Of the sender, for metrics that its type does not name.
    pub found: Vec<Found>,
    /// Of a gateway's logical devices, in the order of the message.
    pub logical: Vec<LogicalReadings<'p>>,
    /// At most [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
}

/// Normalizes one payload. An error is about the payload as a whole.
pub fn normalize<'p>(
    profile: &'p DeviceType,
    payload: &[u8],
    received_at: Timestamp,
    limits: &TimeLimits,
) -> Result<Normalized<'p>, Fault> {
    if json_values(payload) > MAX_JSON_VALUES {
        let detail = format!("more than {MAX_JSON_VALUES} values in one payload");
        return Err(fault(Reason::TooComplex, detail));
    }
    let payload: Value = serde_json::from_slice(payload)
        .map_err(|error| fault(Reason::NotJson, error.to_string()))?;
    let ts = match &profile.timestamp {
        Some(rule) => moment(rule, "", &payload, received_at, limits)?,
        None => received_at,
    };
    let mut normalized = Normalized::default();
    let metrics = profile.metrics_of(&profile.role());
    read_metrics(metrics, "", &payload, ts, &mut normalized.readings, &mut normalized.faults);
    let mut seen = false;
    if let Some(rule) = &profile.logical_devices {
        let times = gateway::Times { message: ts, received_at, limits };
        seen = gateway::elements(profile, rule, &payload, &times, &mut normalized);
    }
    match profile.unknown_metrics {
        UnknownMetrics::Ignore => {}
        UnknownMetrics::DeadLetter => {
            let known = known_at_top(profile);
            normalized.faults.extend(unmapped(&known, "", &payload));
        }
        UnknownMetrics::Create => {
            let known = known_at_top(profile);
            normalized.found = found::found(&known, &payload, ts, &mut normalized.faults);
        }
    }
    normalized.faults.truncate(MAX_FAULTS);
    // A gateway that sees none of its devices says so by an empty list.
    let nothing = normalized.readings.is_empty() && normalized.found.is_empty();
    if nothing && normalized.faults.is_empty() && !seen {
        let detail = "no metric of the device type has a value in the payload".to_owned();
        return Err(fault(Reason::NothingMapped, detail));
    }
    Ok(normalized)
}

/// How many values a JSON text holds at most, by its punctuation, without parsing it.
pub(crate) fn json_values(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (1, false, false);
    for &byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

fn fault(reason: Reason, detail: String) -> Fault {
    Fault { reason, detail }
}

/// Reads metrics with pointers from `value`, which stands at `place` in the payload.
fn read_metrics<'p>(
    metrics: &'p BTreeMap<String, Metric>,
    place: &str,
    value: &Value,
    ts: Timestamp,
    readings: &mut Vec<Reading<'p>>,
    faults: &mut Vec<Fault>,
) {
    for (name, metric) in metrics {
        match find(value, &metric.pointer) {
            // A device that has nothing to say sends null.
            None | Some(Value::Null) => {}
            Some(value) => {
                match read_value(metric.kind, value).and_then(|it| scaled_by(metric, it)) {
                    Ok(values) => readings.push(Reading { metric: name, ts, values }),
                    Err(what) if faults.len() < MAX_FAULTS => {
                        let detail = format!("{place}{}: {what}", metric.pointer);
                        faults.push(fault(Reason::WrongType, detail));
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

/// The moment that a rule finds in `value`, which stands at `place` in the payload.
fn moment(
    rule: &TimestampRule,
    place: &str,
    value: &Value,
    received_at: Timestamp,
    limits: &TimeLimits,
) -> Result<Timestamp, Fault> {
    let Some(written) = find(value, &rule.pointer) else {
        let detail = format!("{place}{}: no time stamp there", rule.pointer);
        return Err(fault(Reason::WrongType, detail));
    };
    let read = match rule.format {
        TimeFormat::Rfc3339 => written.as_str().and_then(Timestamp::parse_rfc3339),
        TimeFormat::UnixSeconds => scaled(written, 1_000_000),
        TimeFormat::UnixMillis => scaled(written, 1_000),
    };
    let Some(ts) = read else {
        let (at, written) = (&rule.pointer, short(written));
        let detail = format!("{place}{at}: {written} is no time stamp of its format");
        return Err(fault(Reason::WrongType, detail));
    };
    if limits.allow(ts, received_at) {
        return Ok(ts);
    }
    let detail = format!("{place}{}: {ts}, received at {received_at}", rule.pointer);
    Err(fault(Reason::TimeOutOfRange, detail))
}

/// A number of seconds or milliseconds as a moment; whole numbers exactly.
fn scaled(written: &Value, micros: i64) -> Option<Timestamp> {
    if let Some(whole) = written.as_i64() {
        return Timestamp::from_micros(whole.checked_mul(micros)?);
    }
    let micros = written.as_f64()? * micros as f64;
    // A float cast saturates, and a saturated moment is outside every range.
    Timestamp::from_micros(micros.round() as i64)
}

/// A number in the metric's unit.
fn scaled_by(metric: &Metric, values: Values) -> Result<Values, String> {
    let Some(n) = values.n.map(|n| metric.scaled(n)) else { return Ok(values) };
    if n.is_finite() {
        return Ok(Values { n: Some(n), ..values });
    }
    Err("by its scale it is larger than a number can be".to_owned())
}

fn read_value(kind: Kind, value: &Value) -> Result<Values, String> {
    let read = match kind {
        Kind::Number => value.as_f64().map(Values::number),
        Kind::Boolean => value.as_bool().map(Values::boolean),
        Kind::String => match value.as_str() {
            Some(text) if text.len() > MAX_TEXT => {
                return Err(format!("a text of {} bytes, at most {MAX_TEXT} allowed", text.len()));
            }
            Some(text) if text.contains('\0') => return Err("a text with a NUL in it".to_owned()),
            text => text.map(Values::text),
        },
        Kind::Time => value.as_str().and_then(Timestamp::parse_rfc3339).map(Values::time),
    };
    read.ok_or_else(|| format!("{} is no {}", short(value), kind_name(kind)))
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "number",
        Kind::Boolean => "boolean",
        Kind::String => "string",
        Kind::Time => "RFC 3339 time",
    }
}

/// A value, short enough for a letter.
fn short(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// Pointers of a device type into a message.
fn known_at_top(profile: &DeviceType) -> Vec<&str> {
    let metrics = profile.metrics_of(&profile.role()).values();
    let time = profile.timestamp.iter().map(|rule| rule.pointer.as_str());
    let id = profile.message_id.iter().map(|rule| rule.pointer.as_str());
    let logical = profile.logical_devices.iter().map(|rule| rule.pointer.as_str());
    metrics.map(|metric| metric.pointer.as_str()).chain(time).chain(id).chain(logical).collect()
}

/// Fields of an object into which none of the pointers leads.
fn unknown_fields<'v>(
    pointers: &[&str],
    value: &'v Value,
) -> impl Iterator<Item = (&'v String, &'v Value)> + use<'v> {
    let first = |pointer: &&str| {
        let segment = pointer.strip_prefix('/')?.split('/').next()?;
        Some(unescaped(segment).into_owned())
    };
    let known: Vec<String> = pointers.iter().filter_map(first).collect();
    let fields = value.as_object().into_iter().flatten();
    fields.filter(move |(name, _)| !known.contains(name))
}

/// A fault for each of them.
fn unmapped(pointers: &[&str], place: &str, value: &Value) -> Vec<Fault> {
    unknown_fields(pointers, value)
        .map(|(name, value)| {
            let name: String = name.chars().take(60).collect();
            fault(Reason::UnknownMetric, format!("{place}/{name}: {}", short(value)))
        })
        .take(MAX_FAULTS)
        .collect()
}

#[cfg(test)]
mod tests;
