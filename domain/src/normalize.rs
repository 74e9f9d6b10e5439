//! From a device's payload to readings, by the device type's rules. A pure function of the
//! payload, the profile and the time of receipt, so that a replay gives the same again.

use crate::{
    Reason, Timestamp, Values,
    batch::MAX_TEXT,
    device_type::{DeviceType, Kind, TimeFormat, UnknownMetrics},
};
use serde_json::Value;

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

/// Readings, and what could not become one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Normalized<'p> {
    /// In the order of the metrics' names.
    pub readings: Vec<Reading<'p>>,
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
    let ts = moment(profile, &payload, received_at, limits)?;
    let mut normalized = Normalized::default();
    for (name, metric) in &profile.metrics {
        match payload.pointer(&metric.pointer) {
            // A device that has nothing to say sends null.
            None | Some(Value::Null) => {}
            Some(value) => match read_value(metric.kind, value) {
                Ok(values) => normalized.readings.push(Reading { metric: name, ts, values }),
                Err(what) => {
                    let detail = format!("{}: {what}", metric.pointer);
                    normalized.faults.push(fault(Reason::WrongType, detail));
                }
            },
        }
    }
    if profile.unknown_metrics == UnknownMetrics::DeadLetter {
        normalized.faults.extend(unknown_fields(profile, &payload));
    }
    normalized.faults.truncate(MAX_FAULTS);
    if normalized.readings.is_empty() && normalized.faults.is_empty() {
        let detail = "no metric of the device type has a value in the payload".to_owned();
        return Err(fault(Reason::NothingMapped, detail));
    }
    Ok(normalized)
}

/// How many values a JSON text holds at most, by its punctuation, without parsing it.
fn json_values(text: &[u8]) -> usize {
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

fn moment(
    profile: &DeviceType,
    payload: &Value,
    received_at: Timestamp,
    limits: &TimeLimits,
) -> Result<Timestamp, Fault> {
    let Some(rule) = &profile.timestamp else { return Ok(received_at) };
    let Some(written) = payload.pointer(&rule.pointer) else {
        let detail = format!("{}: no time stamp there", rule.pointer);
        return Err(fault(Reason::WrongType, detail));
    };
    let read = match rule.format {
        TimeFormat::Rfc3339 => written.as_str().and_then(Timestamp::parse_rfc3339),
        TimeFormat::UnixSeconds => scaled(written, 1_000_000),
        TimeFormat::UnixMillis => scaled(written, 1_000),
    };
    let Some(ts) = read else {
        let detail = format!("{}: {} is no time stamp of its format", rule.pointer, short(written));
        return Err(fault(Reason::WrongType, detail));
    };
    if limits.allow(ts, received_at) {
        return Ok(ts);
    }
    let detail = format!("{}: {ts}, received at {received_at}", rule.pointer);
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

/// Top-level fields into which no rule of the device type points.
fn unknown_fields(profile: &DeviceType, payload: &Value) -> Vec<Fault> {
    let first = |pointer: &str| {
        let segment = pointer.strip_prefix('/')?.split('/').next()?;
        Some(segment.replace("~1", "/").replace("~0", "~"))
    };
    let metrics = profile.metrics.values().map(|metric| metric.pointer.as_str());
    let time = profile.timestamp.iter().map(|rule| rule.pointer.as_str());
    let id = profile.message_id.iter().map(|rule| rule.pointer.as_str());
    let known: Vec<String> = metrics.chain(time).chain(id).filter_map(first).collect();
    let fields = payload.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, value)| {
            let name: String = name.chars().take(60).collect();
            fault(Reason::UnknownMetric, format!("/{name}: {}", short(value)))
        })
        .take(MAX_FAULTS)
        .collect()
}

/// An example of a device type that does not give what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("example {name:?}: {problem}")]
pub struct ExampleFailed {
    /// The example's name.
    pub name: String,
    /// What differs.
    pub problem: String,
}

/// Runs a device type's examples.
pub fn check_examples(profile: &DeviceType, now: Timestamp) -> Result<(), ExampleFailed> {
    for example in &profile.examples {
        check_example(profile, example, now)
            .map_err(|problem| ExampleFailed { name: example.name.clone(), problem })?;
    }
    Ok(())
}

/// A reading, for people.
fn told(reading: &Reading<'_>) -> String {
    let Values { n, b, s, ts } = &reading.values;
    let number = n.map(|n| n.to_string());
    let boolean = b.map(|b| b.to_string());
    let text = s.as_ref().map(|s| format!("{s:?}"));
    let time = ts.map(|ts| ts.to_string());
    let value = [number, boolean, text, time].into_iter().flatten().collect::<Vec<_>>().join(", ");
    format!("{value} at {}", reading.ts)
}

fn check_example(
    profile: &DeviceType,
    example: &crate::device_type::Example,
    now: Timestamp,
) -> Result<(), String> {
    let payload = example.payload.to_string();
    let normalized = normalize(profile, payload.as_bytes(), now, &TimeLimits::default())
        .map_err(|fault| format!("the payload is refused: {}", fault.detail))?;
    if let Some(fault) = normalized.faults.first() {
        return Err(format!("a part of the payload is refused: {}", fault.detail));
    }
    for expected in &example.readings {
        let metric = &expected.metric;
        let kind = profile
            .metrics
            .get(metric)
            .ok_or_else(|| format!("there is no metric {metric:?}"))?
            .kind;
        let values =
            read_value(kind, &expected.value).map_err(|what| format!("{metric}: {what}"))?;
        let ts = match &expected.ts {
            None => now,
            Some(text) => Timestamp::parse_rfc3339(text)
                .ok_or_else(|| format!("{metric}: {text:?} is no RFC 3339 time"))?,
        };
        let wanted = Reading { metric, ts, values };
        if !normalized.readings.contains(&wanted) {
            let given = normalized.readings.iter().find(|reading| reading.metric == metric);
            let given = given.map_or("nothing".to_owned(), told);
            return Err(format!("{metric}: expected {}, the mapping gives {given}", told(&wanted)));
        }
    }
    if normalized.readings.len() == example.readings.len() {
        return Ok(());
    }
    let given: Vec<_> = normalized.readings.iter().map(|reading| reading.metric).collect();
    Err(format!("the mapping gives more readings than listed: {}", given.join(", ")))
}

#[cfg(test)]
mod tests;
