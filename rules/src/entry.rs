//! One device message: from its payload to a group of readings, or to the reason why not. Pure.

use crate::{
    codec,
    size::{MAX_GROUP_BYTES, group_bytes},
    told::Told,
};
use domain::{
    DeviceId, Group, OrgKey, Origin, Reason, Revision, Sample,
    chunk::part,
    device_type::{Kind, MAX_METRICS, UnknownDevices},
    directory::Directory,
    model::{Device, MAX_LOGICAL, Role},
    normalize::{
        Fault, Found, LogicalReadings, MAX_FAULTS, Normalized, Reading, TimeLimits, normalize,
    },
    presence::{self, Presence},
    raw::{ASSEMBLED, MAX_PAYLOAD, RawMessage, STATUS, STATUS_KEPT, Sender},
};
use std::collections::{BTreeMap, BTreeSet};

/// Longest detail of a letter, in bytes.
const MAX_DETAIL: usize = 2_000;

/// What is known when a message is normalized.
#[derive(Clone, Copy)]
pub struct Known<'d> {
    /// Devices and profiles.
    pub directory: &'d Directory,
    /// Believable moments.
    pub limits: TimeLimits,
    /// The directory has seen all that the writer of the message can have seen: what it lacks
    /// does not exist.
    pub settled: bool,
    /// Logical devices that were to be registered are, as far as they can be.
    pub created: bool,
}

/// What is to be done before the message can be normalized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotYet {
    /// The directory lacks something that the writer of the message may have known. Wait until it
    /// has caught up, then do the same again, settled.
    Unsettled,
    /// Register these, then do the same again.
    Create(Strangers),
}

/// What is not registered and is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Strangers {
    /// Logical devices, by gateway.
    pub logical: BTreeMap<DeviceId, BTreeSet<String>>,
    /// Metrics, by device.
    pub metrics: BTreeMap<DeviceId, BTreeMap<String, Kind>>,
}

impl Strangers {
    /// Takes in what another message needs. Of a metric the first kind counts.
    pub(crate) fn add(&mut self, more: Self) {
        for (gateway, identifiers) in more.logical {
            self.logical.entry(gateway).or_default().extend(identifiers);
        }
        for (device, metrics) in more.metrics {
            let known = self.metrics.entry(device).or_default();
            for (name, kind) in metrics {
                known.entry(name).or_insert(kind);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.logical.is_empty() && self.metrics.is_empty()
    }
}

/// What comes of one device message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Its readings.
    pub group: Option<(OrgKey, Group)>,
    /// What they say of their device's clock.
    pub told: Told,
    /// Its device is there, or not.
    pub presence: Option<(OrgKey, Presence)>,
    /// What is wrong with it, or with a part of it.
    pub fault: Option<Fault>,
}

impl Outcome {
    fn dead(reason: Reason, detail: String) -> Self {
        Self { fault: Some(Fault { reason, detail }), ..Self::default() }
    }
}

/// Normalizes one device message that entered the platform at `origin`.
pub(crate) fn normalize_entry(
    entry: &RawMessage<'_>,
    origin: Origin,
    known: Known<'_>,
) -> Result<Outcome, NotYet> {
    let is_status = matches!(&*entry.content_type, STATUS | STATUS_KEPT);
    if is_status && entry.payload.is_empty() {
        // It took a kept message out of the broker.
        return Ok(Outcome::default());
    }
    let Some(sender) = &entry.sender else {
        let name = shown(&entry.name);
        let registered = known.directory.device_named(&entry.name).map(|device| &device.role);
        let detail = match registered {
            Some(Role::Logical { gateway, .. }) => {
                format!("{name} has no voice of its own: gateway {gateway} speaks for it")
            }
            _ => format!("no device {name:?} is registered; `haystack device add` does it"),
        };
        return Ok(Outcome::dead(Reason::UnknownDevice, detail));
    };
    if entry.payload.len() > MAX_PAYLOAD {
        let bytes = entry.payload.len();
        let detail = format!("{bytes} bytes, a message has {MAX_PAYLOAD} at most");
        return Ok(Outcome::dead(Reason::TooLarge, detail));
    }
    let Sender { org, device, profile } = sender;
    let (Some(device), Some(profile)) =
        (known.directory.device(device), known.directory.profile(org, profile))
    else {
        return missing(sender, known);
    };
    if device.org != *org {
        let detail = format!("device {} was of org {org} when this came, it is no more", device.id);
        return Ok(Outcome::dead(Reason::UnknownDevice, detail));
    }
    if is_status {
        return Ok(presence(entry, device, origin));
    }
    if let Some(rule) = profile.definition.chunk_rule()
        && entry.content_type != ASSEMBLED
    {
        let why = match part::read(&rule, &entry.payload) {
            Err(why) => why.to_string(),
            Ok(_) => {
                "a part that came while too many of its gateway's reports were open".to_owned()
            }
        };
        return Ok(Outcome::dead(Reason::NotAPart, cut(why)));
    }
    let payload = match codec::as_json(&entry.content_type, &entry.payload) {
        Ok(payload) => payload,
        Err(why) => return Ok(Outcome::dead(Reason::NotJson, cut(why))),
    };
    match normalize(&profile.definition, &payload, entry.received_at, &known.limits) {
        Err(fault) => Ok(Outcome::dead(fault.reason, cut(fault.detail))),
        Ok(normalized) => {
            let unknown = profile.definition.logical_devices.as_ref().map(|rule| rule.unknown);
            let (samples, faults) = to_points(device, normalized, unknown, known)?;
            let group = Group {
                origin: Some(origin),
                revision: Revision::default(),
                device: Some(device.id.clone()),
                profile_version: profile.version,
                samples,
            };
            let moments = group.samples.iter().map(|sample| sample.ts);
            let told = Told::by(entry.received_at, moments);
            let told = profile.definition.timestamp.as_ref().map(|_| told).unwrap_or_default();
            Ok(Outcome { told, ..whole(org, group, faults) })
        }
    }
}

/// A birth or a will.
fn presence(entry: &RawMessage<'_>, device: &Device, origin: Origin) -> Outcome {
    match presence::read(&entry.payload) {
        Err(why) => Outcome::dead(Reason::NotAStatus, cut(why)),
        Ok(said) => {
            let kept = entry.content_type == STATUS_KEPT;
            let (id, at) = (device.id.clone(), entry.received_at);
            let of = |online| Presence { device: id, online, at, kept, origin };
            Outcome {
                presence: said.map(of).map(|presence| (device.org.clone(), presence)),
                ..Outcome::default()
            }
        }
    }
}

/// The device or the profile version is not there.
fn missing(sender: &Sender, known: Known<'_>) -> Result<Outcome, NotYet> {
    if !known.settled {
        return Err(NotYet::Unsettled);
    }
    let Sender { org, device, profile } = sender;
    if known.directory.device(device).is_none() {
        let detail = format!("device {device} was registered when this came, and is no more");
        return Ok(Outcome::dead(Reason::UnknownDevice, detail));
    }
    let (id, version) = (&profile.id, profile.version);
    let detail = format!("org {org} has no version {version} of device type {id}");
    Ok(Outcome::dead(Reason::UnknownProfile, detail))
}

/// From metrics to the points of the device, and of those for which it speaks. A metric without a
/// point is a fault of its own.
fn to_points(
    device: &Device,
    normalized: Normalized<'_>,
    unknown: Option<UnknownDevices>,
    known: Known<'_>,
) -> Result<(Vec<Sample>, Vec<Fault>), NotYet> {
    let Normalized { readings, found, logical, mut faults } = normalized;
    let mut samples = Vec::with_capacity(readings.len() + found.len());
    add_samples(device, readings, known, &mut samples, &mut faults)?;
    add_found(device, found, known, &mut samples, &mut faults)?;
    let mut strangers = BTreeSet::new();
    for LogicalReadings { identifier, readings } in logical {
        match known.directory.logical(&device.id, &identifier) {
            Some(device) => add_samples(device, readings, known, &mut samples, &mut faults)?,
            None if !known.settled => return Err(NotYet::Unsettled),
            None => drop(strangers.insert(identifier)),
        }
    }
    match unknown {
        _ if strangers.is_empty() => {}
        None | Some(UnknownDevices::Ignore) => {}
        Some(UnknownDevices::Create)
            if !known.created && known.directory.logical_count(&device.id) < MAX_LOGICAL =>
        {
            let logical = [(device.id.clone(), strangers)].into();
            return Err(NotYet::Create(Strangers { logical, ..Strangers::default() }));
        }
        Some(unknown) => faults.push(unregistered(&device.id, &strangers, unknown)),
    }
    Ok((samples, faults))
}

/// Readings of metrics that the type does not name: to the points that were made for them, or a
/// request to make them.
fn add_found(
    device: &Device,
    found: Vec<Found>,
    known: Known<'_>,
    samples: &mut Vec<Sample>,
    faults: &mut Vec<Fault>,
) -> Result<(), NotYet> {
    let mut missing = BTreeMap::new();
    for Found { metric, kind, ts, values } in found {
        let detail = match device.points.get(&metric) {
            Some(point) if point.kind == kind => {
                samples.push(Sample { entity: point.entity, ts, values });
                continue;
            }
            Some(point) => {
                let kind = point.kind.haystack();
                format!("/{metric}: its first value was a {kind}, and a metric keeps its kind")
            }
            None if !known.settled => return Err(NotYet::Unsettled),
            None if !known.created && device.points.len() < MAX_METRICS => {
                missing.insert(metric, kind);
                continue;
            }
            None => format!("/{metric}: a device has at most {MAX_METRICS} metrics"),
        };
        if faults.len() < MAX_FAULTS {
            faults.push(Fault { reason: Reason::UnknownMetric, detail });
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let metrics = [(device.id.clone(), missing)].into();
    Err(NotYet::Create(Strangers { metrics, ..Strangers::default() }))
}

fn add_samples(
    device: &Device,
    readings: Vec<Reading<'_>>,
    known: Known<'_>,
    samples: &mut Vec<Sample>,
    faults: &mut Vec<Fault>,
) -> Result<(), NotYet> {
    for reading in readings {
        match device.points.get(reading.metric) {
            Some(point) => {
                let (entity, ts, values) = (point.entity, reading.ts, reading.values);
                samples.push(Sample { entity, ts, values });
            }
            None if !known.settled => return Err(NotYet::Unsettled),
            None if faults.len() < MAX_FAULTS => {
                let detail = format!("device {} has no point for {}", device.id, reading.metric);
                faults.push(Fault { reason: Reason::NothingMapped, detail });
            }
            None => {}
        }
    }
    Ok(())
}

/// What a gateway said of devices that nobody registered.
fn unregistered(
    gateway: &DeviceId,
    strangers: &BTreeSet<String>,
    unknown: UnknownDevices,
) -> Fault {
    const NAMED: usize = 8;
    let names: Vec<_> = strangers.iter().take(NAMED).map(|name| format!("{name:?}")).collect();
    let more = if strangers.len() > NAMED { ", …" } else { "" };
    let (count, names) = (strangers.len(), names.join(", "));
    let remedy = match unknown {
        // They were to be made, and could not be.
        UnknownDevices::Create => format!("a gateway has at most {MAX_LOGICAL}, of free names"),
        _ => format!("`haystack device add --gateway {gateway} --identifier …` does it"),
    };
    let detail =
        format!("{count} logical devices of {gateway} are not registered: {names}{more}; {remedy}");
    Fault { reason: Reason::UnknownDevice, detail }
}

/// The readings go on, the faults become one letter.
fn whole(org: &OrgKey, group: Group, faults: Vec<Fault>) -> Outcome {
    let bytes = group_bytes(&group);
    if bytes > MAX_GROUP_BYTES {
        let detail = format!("{bytes} bytes of readings, at most {MAX_GROUP_BYTES} fit a message");
        return Outcome::dead(Reason::WrongType, detail);
    }
    let fault = faults.first().map(|first| first.reason).map(|reason| {
        let details: Vec<_> = faults.into_iter().map(|fault| fault.detail).collect();
        Fault { reason, detail: cut(details.join("; ")) }
    });
    // A message that gave nothing, and rightly so, is on record, too: the ledger has a place for it.
    let told = !group.samples.is_empty() || fault.is_none();
    let group = told.then(|| (org.clone(), group));
    Outcome { group, fault, ..Outcome::default() }
}

/// A name from outside, short enough for a letter.
fn shown(name: &str) -> String {
    const SHOWN: usize = 80;
    name.chars().take(SHOWN).collect()
}

fn cut(mut detail: String) -> String {
    if detail.len() > MAX_DETAIL {
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        detail.push('…');
    }
    detail
}

#[cfg(test)]
mod tests;
