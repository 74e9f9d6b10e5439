//! A device type: how a device's payload becomes readings. Written as a file, kept as immutable
//! versions (profiles).

use crate::{TypeId, tags::Tags};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many logical devices speak through one message, and in how many parts it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessingMode {
    /// One message, one device.
    Endpoint,
    /// One message, many logical devices.
    Gateway,
    /// One report in many messages.
    GatewayChunked,
}

impl ProcessingMode {
    /// As files and databases write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Gateway => "gateway",
            Self::GatewayChunked => "gateway_chunked",
        }
    }
}

/// What a payload is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolAdapter {
    /// JSON (RFC 8259).
    Json,
}

/// How a payload writes a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeFormat {
    /// RFC 3339 with an offset.
    Rfc3339,
    /// Seconds since 1970 UTC, fractions allowed.
    UnixSeconds,
    /// Milliseconds since 1970 UTC.
    UnixMillis,
}

/// Where the reading's moment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimestampRule {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// How it is written.
    pub format: TimeFormat,
}

/// Where the device's own message id stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageIdRule {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
}

/// What happens with a field that no metric maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownMetrics {
    /// Nothing.
    #[default]
    Ignore,
    /// It is set aside; what is mapped is stored.
    DeadLetter,
    /// A metric is made for it.
    Create,
}

/// The column a metric's values stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `value_n`
    Number,
    /// `value_b`
    Boolean,
    /// `value_s`
    String,
    /// `value_ts`, written as RFC 3339.
    Time,
}

impl Kind {
    /// The name of the kind in Project Haystack (a point's `kind` tag).
    pub fn haystack(self) -> &'static str {
        match self {
            Self::Number => "Number",
            Self::Boolean => "Bool",
            Self::String => "Str",
            Self::Time => "DateTime",
        }
    }
}

/// One metric: it becomes one point of each device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// JSON pointer (RFC 6901).
    pub pointer: String,
    /// What its values are.
    pub kind: Kind,
    /// Unit of a number.
    #[serde(default)]
    pub unit: Option<String>,
    /// Tags of the point.
    #[serde(default)]
    pub tags: Tags,
}

/// A payload and the readings it must give; `device-type apply` checks it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it shows.
    pub name: String,
    /// What the device sends.
    pub payload: serde_json::Value,
    /// What comes of it.
    pub readings: Vec<ExampleReading>,
}

/// One expected reading.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExampleReading {
    /// The metric.
    pub metric: String,
    /// The moment, RFC 3339; left out where the device type takes the time of receipt.
    #[serde(default)]
    pub ts: Option<String>,
    /// The value.
    pub value: serde_json::Value,
}

/// A device type as its file says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceType {
    /// Its name.
    pub device_type: TypeId,
    /// One device or many in a message.
    pub processing_mode: ProcessingMode,
    /// What the payload is written in.
    pub protocol_adapter: ProtocolAdapter,
    /// Where the moment stands; left out: the time of receipt.
    #[serde(default)]
    pub timestamp: Option<TimestampRule>,
    /// Where the device's own message id stands.
    #[serde(default)]
    pub message_id: Option<MessageIdRule>,
    /// Whether the platform confirms on `devices/{id}/receipts`.
    #[serde(default)]
    pub receipts: bool,
    /// What happens with fields that no metric maps.
    #[serde(default)]
    pub unknown_metrics: UnknownMetrics,
    /// Metrics by name.
    pub metrics: BTreeMap<String, Metric>,
    /// Payloads and what must come of them.
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// Most metrics of one device type.
pub const MAX_METRICS: usize = 1_000;

/// What is wrong with a device type; each says where and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Invalid {
    /// The key in the file, e.g. `metrics.temperature.pointer`.
    pub place: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

impl DeviceType {
    /// Checks what the shape of the file alone does not.
    pub fn check(&self) -> Result<(), Invalid> {
        let invalid = |place: &str, problem: &str| {
            Err(Invalid { place: place.to_owned(), problem: problem.to_owned() })
        };
        if self.processing_mode != ProcessingMode::Endpoint {
            return invalid(
                "processing_mode",
                "this version of the platform reads `endpoint` only",
            );
        }
        if self.unknown_metrics == UnknownMetrics::Create {
            return invalid(
                "unknown_metrics",
                "this version of the platform knows `ignore` and `dead_letter`",
            );
        }
        if self.receipts {
            return invalid("receipts", "this version of the platform sends none; use `false`");
        }
        if self.metrics.is_empty() || self.metrics.len() > MAX_METRICS {
            return invalid("metrics", "between 1 and 1000 metrics are expected");
        }
        for (name, metric) in &self.metrics {
            if TypeId::parse(name).is_err() {
                let problem = "a metric's name uses A-Z, a-z, 0-9, _ and -, at most 64 characters";
                return invalid(&format!("metrics.{name}"), problem);
            }
            check_pointer(&format!("metrics.{name}.pointer"), &metric.pointer)?;
            if metric.unit.is_some() && metric.kind != Kind::Number {
                return invalid(&format!("metrics.{name}.unit"), "only a number has a unit");
            }
        }
        if let Some(rule) = &self.timestamp {
            check_pointer("timestamp.pointer", &rule.pointer)?;
        }
        if let Some(rule) = &self.message_id {
            check_pointer("message_id.pointer", &rule.pointer)?;
        }
        Ok(())
    }
}

/// RFC 6901: empty, or segments that each start with `/`, where `~` comes as `~0` or `~1`.
fn check_pointer(place: &str, pointer: &str) -> Result<(), Invalid> {
    let escapes = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if escapes && (pointer.is_empty() || pointer.starts_with('/')) {
        return Ok(());
    }
    let problem = format!("{pointer:?} is no JSON pointer; write it like /temperature");
    Err(Invalid { place: place.to_owned(), problem })
}
