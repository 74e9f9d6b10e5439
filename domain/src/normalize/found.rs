//! Fields that no metric maps, where the device type wants a metric made for each
//! (`unknown_metrics: create`).

use super::{Fault, MAX_FAULTS, fault, read_value, short, unknown_fields};
use crate::{
    Reason, Timestamp, TypeId, Values,
    device_type::{Kind, MAX_METRICS},
};
use serde_json::Value;

/// A reading of a metric that the device type does not name.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The field's name; the metric bears it.
    pub metric: String,
    /// What its value is: the metric's kind, where it is made now.
    pub kind: Kind,
    /// When it was so.
    pub ts: Timestamp,
    /// What it was.
    pub values: Values,
}

/// Reads the fields at the top of a payload into which none of the pointers leads.
pub(super) fn found(
    pointers: &[&str],
    payload: &Value,
    ts: Timestamp,
    faults: &mut Vec<Fault>,
) -> Vec<Found> {
    let mut all = Vec::new();
    for (name, value) in unknown_fields(pointers, payload).take(MAX_METRICS) {
        // A device that has nothing to say sends null.
        if value.is_null() {
            continue;
        }
        match read(name, value) {
            Ok((kind, values)) => all.push(Found { metric: name.to_owned(), kind, ts, values }),
            Err(why) if faults.len() < MAX_FAULTS => {
                let name: String = name.chars().take(60).collect();
                faults.push(fault(Reason::UnknownMetric, format!("/{name}: {why}")));
            }
            Err(_) => {}
        }
    }
    all
}

fn read(name: &str, value: &Value) -> Result<(Kind, Values), String> {
    if TypeId::parse(name).is_err() {
        return Err("a metric's name uses A-Z, a-z, 0-9, _ and -, at most 64 characters".to_owned());
    }
    let kind = match value {
        Value::Number(_) => Kind::Number,
        Value::Bool(_) => Kind::Boolean,
        Value::String(_) => Kind::String,
        _ => {
            return Err(format!(
                "{}: only numbers, booleans and texts become metrics",
                short(value)
            ));
        }
    };
    Ok((kind, read_value(kind, value)?))
}
