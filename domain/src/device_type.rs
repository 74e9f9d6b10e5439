//! A device type: how a device's payload becomes readings. Written as a file, kept as immutable
//! versions (profiles).

use crate::{TypeId, model::Role, tags::Tags};
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

/// What happens with what a gateway says of a logical device that is not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownDevices {
    /// Nothing.
    Ignore,
    /// It is set aside; what the others say is stored.
    #[default]
    DeadLetter,
    /// It is registered.
    Create,
}

/// Where a gateway's message says what its logical devices have to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogicalDevices {
    /// JSON pointer (RFC 6901) to a list, or to an object whose keys are the identifiers.
    pub pointer: String,
    /// Pointer from an element of the list to its identifier (a text or a whole number); left out
    /// where `pointer` leads to an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<String>,
    /// Where the element's own moment stands, from the element; left out: the message's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<TimestampRule>,
    /// What happens with one that is not registered.
    #[serde(default)]
    pub unknown: UnknownDevices,
}

/// How the parts of one report say that they belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkRule {
    /// What a part is written in.
    pub format: ChunkFormat,
    /// Pointer to the transaction's name (a text or a whole number).
    pub transaction: String,
    /// Pointer to the part's number, from 0.
    pub index: String,
    /// Pointer to the number of parts.
    pub total: String,
    /// Pointer to the SHA-256 of the whole, in hexadecimal; a part may do without.
    pub sha256: String,
    /// Pointer to the part's data: a list, which is one piece of a longer one, or a base64 text.
    pub data: String,
}

/// What a part is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkFormat {
    /// A JSON object.
    #[default]
    Json,
    /// A header of 48 bytes, then data: transaction (8 bytes), index (4), total (4), all big-endian,
    /// SHA-256 of the whole (32; all zero: none).
    Binary,
}

impl Default for ChunkRule {
    fn default() -> Self {
        Self {
            format: ChunkFormat::Json,
            transaction: "/txn".to_owned(),
            index: "/index".to_owned(),
            total: "/total".to_owned(),
            sha256: "/sha256".to_owned(),
            data: "/data".to_owned(),
        }
    }
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
    /// What a number is multiplied with; left out: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// What is added to it then; left out: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<f64>,
    /// Tags of the point.
    #[serde(default)]
    pub tags: Tags,
}

impl Metric {
    /// A number as the device sends it, in the metric's unit.
    pub fn scaled(&self, n: f64) -> f64 {
        match (self.scale, self.offset) {
            (None, None) => n,
            (scale, offset) => n * scale.unwrap_or(1.0) + offset.unwrap_or(0.0),
        }
    }
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
    /// The identifier of the logical device; left out: the device that sent the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
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
    /// Of a gateway: where its logical devices stand in a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_devices: Option<LogicalDevices>,
    /// Of a gateway that sends its report in parts: where they say so; left out: where the default
    /// says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<ChunkRule>,
    /// Of a gateway: its own metrics by name, with pointers from the message.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gateway_metrics: BTreeMap<String, Metric>,
    /// Metrics by name. Of a gateway: those of each logical device, with pointers from its element.
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
    /// The metrics of a device of this type, by what it is.
    pub fn metrics_of(&self, role: &Role) -> &BTreeMap<String, Metric> {
        match role {
            Role::Gateway => &self.gateway_metrics,
            Role::Endpoint | Role::Logical { .. } => &self.metrics,
        }
    }

    /// How parts of a report say that they belong together; `None` where it comes in one message.
    pub fn chunk_rule(&self) -> Option<ChunkRule> {
        (self.processing_mode == ProcessingMode::GatewayChunked)
            .then(|| self.chunks.clone().unwrap_or_default())
    }

    /// What a device is that sends messages of this type itself.
    pub fn role(&self) -> Role {
        match self.processing_mode {
            ProcessingMode::Endpoint => Role::Endpoint,
            ProcessingMode::Gateway | ProcessingMode::GatewayChunked => Role::Gateway,
        }
    }

    fn check_chunks(&self) -> Result<(), Invalid> {
        let Some(rule) = &self.chunks else { return Ok(()) };
        if self.processing_mode != ProcessingMode::GatewayChunked {
            let problem = "only a `gateway_chunked` sends parts".to_owned();
            return Err(Invalid { place: "chunks".to_owned(), problem });
        }
        let ChunkRule { transaction, index, total, sha256, data, .. } = rule;
        let pointers = [
            ("transaction", transaction),
            ("index", index),
            ("total", total),
            ("sha256", sha256),
            ("data", data),
        ];
        pointers
            .into_iter()
            .try_for_each(|(name, pointer)| check_pointer(&format!("chunks.{name}"), pointer))
    }

    /// A gateway says where its logical devices are, and nobody else does.
    fn check_gateway(&self) -> Result<(), Invalid> {
        let invalid = |place: &str, problem: &str| {
            Err(Invalid { place: place.to_owned(), problem: problem.to_owned() })
        };
        let Some(rule) = &self.logical_devices else {
            if self.processing_mode != ProcessingMode::Endpoint {
                return invalid("logical_devices", "a gateway says where they stand in a message");
            }
            if !self.gateway_metrics.is_empty() {
                return invalid("gateway_metrics", "only a gateway has them");
            }
            return Ok(());
        };
        if self.processing_mode == ProcessingMode::Endpoint {
            return invalid("logical_devices", "only a gateway has them (`processing_mode`)");
        }
        if self.gateway_metrics.len() > MAX_METRICS {
            return invalid("gateway_metrics", "at most 1000 metrics are expected");
        }
        check_pointer("logical_devices.pointer", &rule.pointer)?;
        if let Some(identifier) = &rule.identifier {
            check_pointer("logical_devices.identifier", identifier)?;
        }
        rule.timestamp.as_ref().map_or(Ok(()), |rule| {
            check_pointer("logical_devices.timestamp.pointer", &rule.pointer)
        })
    }

    /// A receipt says by what the device knows its message again.
    fn check_receipts(&self) -> Result<(), Invalid> {
        let parts = self.processing_mode == ProcessingMode::GatewayChunked;
        let problem = match &self.message_id {
            _ if !self.receipts => return Ok(()),
            None if parts => "a part is known again by `message_id` only: give its pointer",
            None if self.timestamp.is_none() => {
                "a receipt names the message by `message_id` or `timestamp`: give one of them"
            }
            _ if self.chunk_rule().is_some_and(|rule| rule.format == ChunkFormat::Binary) => {
                "parts in `binary` format bear no `message_id`"
            }
            _ => return Ok(()),
        };
        Err(Invalid { place: "receipts".to_owned(), problem: problem.to_owned() })
    }

    /// Checks what the shape of the file alone does not.
    pub fn check(&self) -> Result<(), Invalid> {
        let invalid = |place: &str, problem: &str| {
            Err(Invalid { place: place.to_owned(), problem: problem.to_owned() })
        };
        self.check_gateway()?;
        self.check_chunks()?;
        let endpoint = self.processing_mode == ProcessingMode::Endpoint;
        if self.unknown_metrics == UnknownMetrics::Create && !endpoint {
            return invalid("unknown_metrics", "`create` is for an `endpoint` only");
        }
        self.check_receipts()?;
        if self.metrics.is_empty() || self.metrics.len() > MAX_METRICS {
            return invalid("metrics", "between 1 and 1000 metrics are expected");
        }
        check_metrics("metrics", &self.metrics)?;
        check_metrics("gateway_metrics", &self.gateway_metrics)?;
        if let Some(rule) = &self.timestamp {
            check_pointer("timestamp.pointer", &rule.pointer)?;
        }
        if let Some(rule) = &self.message_id {
            check_pointer("message_id.pointer", &rule.pointer)?;
        }
        Ok(())
    }
}

fn check_metrics(place: &str, metrics: &BTreeMap<String, Metric>) -> Result<(), Invalid> {
    let invalid =
        |place: String, problem: &str| Err(Invalid { place, problem: problem.to_owned() });
    for (name, metric) in metrics {
        if TypeId::parse(name).is_err() {
            let problem = "a metric's name uses A-Z, a-z, 0-9, _ and -, at most 64 characters";
            return invalid(format!("{place}.{name}"), problem);
        }
        check_pointer(&format!("{place}.{name}.pointer"), &metric.pointer)?;
        if metric.unit.is_some() && metric.kind != Kind::Number {
            return invalid(format!("{place}.{name}.unit"), "only a number has a unit");
        }
        for (field, factor) in [("scale", metric.scale), ("offset", metric.offset)] {
            let Some(factor) = factor else { continue };
            let place = format!("{place}.{name}.{field}");
            if metric.kind != Kind::Number {
                return invalid(place, "only a number has a scale or an offset");
            }
            if !factor.is_finite() || (field == "scale" && factor == 0.0) {
                return invalid(place, "a number is expected, for a scale one that is not zero");
            }
        }
    }
    Ok(())
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
