//! A gateway's message: what it says of each of its logical devices.

use super::{
    Fault, LogicalReadings, MAX_FAULTS, Normalized, TimeLimits, fault, moment, read_metrics, short,
    unmapped,
};
use crate::{
    Reason, Timestamp,
    device_type::{DeviceType, LogicalDevices, UnknownMetrics},
    model::MAX_IDENTIFIER,
    pointer::find,
};
use serde_json::Value;

/// The moments around a message.
pub(super) struct Times<'l> {
    /// Its own.
    pub message: Timestamp,
    pub received_at: Timestamp,
    pub limits: &'l TimeLimits,
}

/// Reads every element; whether there is a list of them at all.
pub(super) fn elements<'p>(
    profile: &'p DeviceType,
    rule: &'p LogicalDevices,
    payload: &Value,
    times: &Times<'_>,
    into: &mut Normalized<'p>,
) -> bool {
    let found = find(payload, &rule.pointer);
    match (found, &rule.identifier) {
        (None | Some(Value::Null), _) => return false,
        (Some(Value::Array(list)), Some(identifier)) => {
            for (index, element) in list.iter().enumerate() {
                let name = find(element, identifier);
                let place = || format!("{}/{index}", rule.pointer);
                let whose = || format!("{}{identifier}", place());
                match name.ok_or("nothing").and_then(named) {
                    Ok(name) => one(profile, rule, (name, &place()), element, times, into),
                    Err(what) => {
                        add(into, format!("{}: {what} is no identifier", whose()));
                    }
                }
            }
        }
        (Some(Value::Object(by_name)), None) => {
            for (name, element) in by_name {
                match fits(name) {
                    Ok(name) => {
                        let place = format!("{}/{name}", rule.pointer);
                        one(profile, rule, (name, &place), element, times, into);
                    }
                    Err(what) => add(into, format!("{}: {what} is no identifier", rule.pointer)),
                }
            }
        }
        (Some(other), identifier) => {
            let expected = if identifier.is_some() { "a list" } else { "an object" };
            let (at, other) = (&rule.pointer, short(other));
            add(into, format!("{at}: {other} is there, {expected} is expected"));
        }
    }
    true
}

/// An identifier as the gateway writes it: a text, or a whole number.
fn named(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(name) => fits(name),
        Value::Number(number) if number.is_u64() || number.is_i64() => Ok(number.to_string()),
        _ => Err("something else than a text or a whole number"),
    }
}

fn fits(name: &str) -> Result<String, &'static str> {
    match name {
        "" => Err("an empty text"),
        _ if name.len() > MAX_IDENTIFIER => Err("a text that is too long"),
        _ if name.chars().any(char::is_control) => Err("a text with control characters"),
        _ => Ok(name.to_owned()),
    }
}

fn one<'p>(
    profile: &'p DeviceType,
    rule: &'p LogicalDevices,
    (identifier, place): (String, &str),
    element: &Value,
    times: &Times<'_>,
    into: &mut Normalized<'p>,
) {
    let ts = match &rule.timestamp {
        None => times.message,
        Some(rule) => match moment(rule, place, element, times.received_at, times.limits) {
            Ok(ts) => ts,
            Err(fault) => return push(into, fault),
        },
    };
    let mut readings = Vec::with_capacity(profile.metrics.len());
    read_metrics(&profile.metrics, place, element, ts, &mut readings, &mut into.faults);
    if profile.unknown_metrics == UnknownMetrics::DeadLetter && into.faults.len() < MAX_FAULTS {
        let metrics = profile.metrics.values().map(|metric| metric.pointer.as_str());
        let identifier = rule.identifier.iter().map(String::as_str);
        let time = rule.timestamp.iter().map(|rule| rule.pointer.as_str());
        let known: Vec<&str> = metrics.chain(identifier).chain(time).collect();
        into.faults.extend(unmapped(&known, place, element));
    }
    if !readings.is_empty() {
        into.logical.push(LogicalReadings { identifier, readings });
    }
}

fn add(into: &mut Normalized<'_>, detail: String) {
    push(into, fault(Reason::WrongType, detail));
}

fn push(into: &mut Normalized<'_>, fault: Fault) {
    if into.faults.len() < MAX_FAULTS {
        into.faults.push(fault);
    }
}
