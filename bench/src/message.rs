//! Device messages for the load: JSON, built with as little processor time as can be.

use crate::{feed, mqtt};
use domain::Timestamp;
use std::io::Write;

/// 2026-01-01T00:00:00Z, in microseconds since 1970.
const BASE: i64 = 1_767_225_600_000_000;

/// Devices that `load` speaks for, where nobody says.
pub(crate) const DEVICES: u64 = 200;
/// Metrics of their device type.
pub(crate) const METRICS: u64 = 30;

/// What messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `devices/{id}/telemetry` with one field a metric.
    Device,
    /// `t/{connection}` with a list of values, as `bench/peers/peer_pipeline.py` reads it.
    Values,
}

/// Builds messages, keeping what does not change from one to the next.
pub(crate) struct Messages {
    shape: Shape,
    /// Readings in each.
    per: u64,
    /// Least bytes of each.
    size: usize,
    connection: u64,
    payload: Vec<u8>,
    time: Time,
    devices: u64,
    /// Topic of each device, name of each metric.
    topics: Vec<String>,
    metrics: Vec<String>,
}

impl Messages {
    /// Messages of `per` readings and at least `size` bytes.
    pub(crate) fn new(shape: Shape, per: u64, size: usize, connection: u64, devices: u64) -> Self {
        let (payload, time) = (Vec::new(), Time::default());
        let topic = |device| format!("devices/{}/telemetry", feed::device_name(device));
        let topics = (0..devices).map(topic).collect();
        let metrics = (0..METRICS).map(metric_name).collect();
        Self { shape, per, size, connection, payload, time, devices, topics, metrics }
    }

    /// Appends the message with this number to packets, under a packet id.
    pub(crate) fn append(&mut self, packets: &mut Vec<u8>, number: u64, id: u16) {
        self.payload.clear();
        match self.shape {
            Shape::Device => {
                let device = number % self.devices;
                self.device(device, number / self.devices);
                mqtt::publish(packets, &self.topics[device as usize], id, &self.payload);
            }
            Shape::Values => {
                self.values(number * self.per);
                mqtt::publish(packets, &format!("t/{}", self.connection), id, &self.payload);
            }
        }
    }

    fn device(&mut self, device: u64, tick: u64) {
        let payload = &mut self.payload;
        payload.extend(b"{\"ts\":\"");
        payload.extend(self.time.of(tick).as_bytes());
        payload.push(b'"');
        for place in 0..self.per {
            // A device of few readings sends the metrics that its number begins with.
            let metric = (device + place) % METRICS;
            payload.extend(b",\"");
            payload.extend(self.metrics[metric as usize].as_bytes());
            payload.extend(b"\":");
            let e = device * METRICS + metric;
            value(payload, metric_kind(metric), e, tick);
        }
        self.pad();
    }

    /// As `bench/peers/common.py` makes them.
    fn values(&mut self, first: u64) {
        self.payload.extend(b"{\"values\":[");
        for reading in first..first + self.per {
            let id = reading % feed::ENTITIES + 1;
            let comma = reading > first;
            append_reading(&mut self.payload, comma, id, reading, &mut self.time);
        }
        self.payload.push(b']');
        self.pad();
    }

    /// Closes the payload, at `size` bytes where it is shorter.
    fn pad(&mut self) {
        const FIELD: &[u8] = b",\"pad\":\"\"}";
        let payload = &mut self.payload;
        if payload.len() + FIELD.len() >= self.size {
            return payload.push(b'}');
        }
        payload.extend(&FIELD[..FIELD.len() - 2]);
        payload.resize(self.size - 2, b'x');
        payload.extend(b"\"}");
    }
}

/// Moments as text; most readings have the moment of the one before.
#[derive(Default)]
pub(crate) struct Time {
    tick: Option<u64>,
    text: String,
}

impl Time {
    /// The time of a tick, one tick a second.
    fn of(&mut self, tick: u64) -> &str {
        if self.tick != Some(tick) {
            let moment = Timestamp::EPOCH.plus_micros(BASE + tick as i64 * 1_000_000);
            // Python before 3.11 does not read `Z`.
            self.text = moment.to_string().replace('Z', "+00:00");
            self.tick = Some(tick);
        }
        &self.text
    }
}

/// Appends the reading with this number as `bench/peers` and the API read it, of the entity `id`.
pub(crate) fn append_reading(
    payload: &mut Vec<u8>,
    comma: bool,
    id: u64,
    reading: u64,
    time: &mut Time,
) {
    let (e, tick) = (reading % feed::ENTITIES, reading / feed::ENTITIES);
    let kind = reading_kind(e);
    payload.extend(if comma { &b",{\"entity_id\":"[..] } else { b"{\"entity_id\":" });
    let _ = write!(payload, "{id}");
    payload.extend(b",\"ts\":\"");
    payload.extend(time.of(tick).as_bytes());
    payload.extend(match kind {
        Kind::Boolean => &b"\",\"value_b\":"[..],
        Kind::Text => b"\",\"value_s\":",
        Kind::Number => b"\",\"value_n\":",
    });
    value(payload, kind, e, tick);
    payload.push(b'}');
}

/// The kind of an entity of the feed: in twenty, 17 numbers, 2 booleans, a text.
pub(crate) fn reading_kind(e: u64) -> Kind {
    match e % 20 {
        0 | 1 => Kind::Boolean,
        2 => Kind::Text,
        _ => Kind::Number,
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number with one decimal.
    Number,
    /// True or false.
    Boolean,
    /// A short text.
    Text,
}

/// The kind of a metric of the bench's device type: in thirty, 26 numbers, 3 booleans, a text.
pub(crate) fn metric_kind(metric: u64) -> Kind {
    match metric {
        0 | 10 | 20 => Kind::Boolean,
        1 => Kind::Text,
        _ => Kind::Number,
    }
}

/// Its name.
pub(crate) fn metric_name(metric: u64) -> String {
    format!("m{metric:02}")
}

fn value(payload: &mut Vec<u8>, kind: Kind, e: u64, tick: u64) {
    match kind {
        Kind::Boolean => {
            payload.extend(if (e + tick) & 1 == 1 { &b"true"[..] } else { b"false" });
        }
        Kind::Text => {
            payload.extend(b"\"state-");
            payload.extend([b'0' + ((e + tick) % 7) as u8, b'"']);
        }
        Kind::Number => {
            let tenths = 200 + (e * 7 + tick) % 1_000;
            // 20.0 to 119.9, without the way through a formatter.
            if tenths >= 1_000 {
                payload.push(b'1');
            }
            payload.extend([tenths / 100 % 10, tenths / 10 % 10].map(|d| b'0' + d as u8));
            payload.extend([b'.', b'0' + (tenths % 10) as u8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_of_the_asked_size() {
        for (shape, per, size) in [
            (Shape::Device, 1, 200),
            (Shape::Device, 30, 0),
            (Shape::Values, 1, 200),
            (Shape::Values, 30, 200),
        ] {
            let mut messages = Messages::new(shape, per, size, 0, DEVICES);
            messages.append(&mut Vec::new(), 4_321, 1);
            let value: serde_json::Value = serde_json::from_slice(&messages.payload).unwrap();
            assert!(messages.payload.len() >= size);
            let readings = match shape {
                Shape::Device => value.as_object().unwrap().len() as u64 - 1 - u64::from(size > 0),
                Shape::Values => value["values"].as_array().unwrap().len() as u64,
            };
            assert_eq!(readings, per);
        }
    }
}
