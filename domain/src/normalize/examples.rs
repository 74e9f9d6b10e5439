//! The examples of a device type: what it must give of a payload.

use super::{Reading, TimeLimits, normalize, read_value};
use crate::{
    Timestamp, Values,
    device_type::{DeviceType, Example},
};

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

fn check_example(profile: &DeviceType, example: &Example, now: Timestamp) -> Result<(), String> {
    let payload = example.payload.to_string();
    let normalized = normalize(profile, payload.as_bytes(), now, &TimeLimits::default())
        .map_err(|fault| format!("the payload is refused: {}", fault.detail))?;
    if let Some(fault) = normalized.faults.first() {
        return Err(format!("a part of the payload is refused: {}", fault.detail));
    }
    let found: Vec<Reading<'_>> = normalized
        .found
        .iter()
        .map(|found| Reading { metric: &found.metric, ts: found.ts, values: found.values.clone() })
        .collect();
    let own = normalized.readings.iter().chain(&found).map(|reading| (None, reading));
    let logical = normalized.logical.iter().flat_map(|of_device| {
        of_device.readings.iter().map(|reading| (Some(of_device.identifier.as_str()), reading))
    });
    let given: Vec<(Option<&str>, &Reading<'_>)> = own.chain(logical).collect();
    for expected in &example.readings {
        let (metric, device) = (&expected.metric, expected.device.as_deref());
        let metrics = match device {
            Some(_) => &profile.metrics,
            None => profile.metrics_of(&profile.role()),
        };
        let whose = device.map_or_else(String::new, |device| format!(" of {device:?}"));
        let of_found =
            || normalized.found.iter().find(|it| it.metric == *metric && device.is_none());
        let kind = metrics.get(metric).map(|metric| metric.kind);
        let kind = kind
            .or_else(|| of_found().map(|found| found.kind))
            .ok_or_else(|| format!("there is no metric {metric:?}{whose}"))?;
        let values =
            read_value(kind, &expected.value).map_err(|what| format!("{metric}: {what}"))?;
        let ts = match &expected.ts {
            None => now,
            Some(text) => Timestamp::parse_rfc3339(text)
                .ok_or_else(|| format!("{metric}: {text:?} is no RFC 3339 time"))?,
        };
        let wanted = Reading { metric, ts, values };
        if !given.contains(&(device, &wanted)) {
            let of_metric = |(whose, reading): &&(Option<&str>, &Reading<'_>)| {
                *whose == device && reading.metric == metric
            };
            let found = given.iter().find(of_metric);
            let found = found.map_or("nothing".to_owned(), |(_, reading)| told(reading));
            let wanted = told(&wanted);
            return Err(format!("{metric}{whose}: expected {wanted}, the mapping gives {found}"));
        }
    }
    if given.len() == example.readings.len() {
        return Ok(());
    }
    let given: Vec<_> = given
        .iter()
        .map(|(device, reading)| match device {
            Some(device) => format!("{} of {device:?}", reading.metric),
            None => reading.metric.to_owned(),
        })
        .collect();
    Err(format!("the mapping gives more readings than listed: {}", given.join(", ")))
}
