//! What a building promises, as the service around it relies on.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod config;
mod faults;
mod physics;
mod runs;
mod shape;

use domain::{Timestamp, Values};
use haystack_building::{DEFAULT, Memory, Plan};

/// The default building.
fn default_plan() -> Plan {
    Plan::read(DEFAULT).unwrap()
}

/// The default building with some text in its description replaced.
fn changed(pairs: &[(&str, &str)]) -> Plan {
    Plan::read(&changed_text(pairs)).unwrap_or_else(|mistake| panic!("{mistake}"))
}

fn changed_text(pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(DEFAULT.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old:?} isn't in the default description");
        text.replacen(old, new, 1)
    })
}

/// The default description reporting every `minutes`.
fn every(minutes: u32) -> Plan {
    changed(&[("interval_minutes: 15", &format!("interval_minutes: {minutes}"))])
}

fn moment(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

/// Canonical bytes of a reading: moment, point, and what it says.
fn append(bytes: &mut Vec<u8>, at: Timestamp, point: usize, values: &Values) {
    bytes.extend(at.micros().to_le_bytes());
    bytes.extend((point as u64).to_le_bytes());
    match values {
        Values { n: Some(n), .. } => bytes.extend(n.to_bits().to_le_bytes()),
        Values { b: Some(b), .. } => bytes.push(u8::from(*b)),
        Values { s: Some(s), .. } => bytes.extend(s.as_bytes()),
        Values { ts: Some(ts), .. } => bytes.extend(ts.micros().to_le_bytes()),
        _ => panic!("a reading of point {point} says nothing"),
    }
}

/// Runs some steps; gives the bytes of all readings.
fn run(plan: &Plan, memory: &mut Memory, steps: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..steps {
        let mut readings = Vec::new();
        plan.step(memory, |point, values| readings.push((point, values)));
        for (point, values) in readings {
            append(&mut bytes, memory.at, point, &values);
        }
    }
    bytes
}

/// The key of a point.
fn key(plan: &Plan, point: usize) -> &str {
    &plan.entities()[plan.points()[point].entity].key
}

/// The index of a point.
fn point(plan: &Plan, name: &str) -> usize {
    (0..plan.points().len()).find(|point| key(plan, *point) == name).unwrap()
}

/// One step; gives the reading of each point.
fn readings(plan: &Plan, memory: &mut Memory) -> Vec<Option<Values>> {
    let mut all = vec![None; plan.points().len()];
    plan.step(memory, |point, values| all[point] = Some(values));
    all
}
