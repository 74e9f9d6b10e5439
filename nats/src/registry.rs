//! Registering orgs, device types and devices: what the CLI and the API do to `MODEL`.
//!
//! Each step can be repeated: one that was cut off half-way is completed by asking again.

mod access;
mod logical;
mod metrics;
mod poller;

pub use access::{
    Opens, add_key, add_key_as, add_user, grant, new_token, revoke_key, set_user_active,
};
pub use domain::model::Wanted;
pub use logical::{add_logical, create_logical};
pub use metrics::create_metrics;
pub use poller::{add_poller, add_poller_as, configure_poller, poller_fits, set_poller_status};

use crate::{
    Wire,
    counter::{Counter, CounterFault, allocate},
    model::{ModelFault, get, look, put},
};
use domain::{
    Clock, DeviceId, EntityId, OrgId, OrgKey, SystemClock, TypeId,
    device_type::{DeviceType, Invalid, Metric},
    directory::Directory,
    model::{Device, Entity, Org, Point, Profile, Record, TypeHead},
    normalize::{ExampleFailed, check_examples},
    raw::ProfileRef,
    tags::TagValue,
};
use std::{collections::BTreeMap, sync::Arc};

/// Why something was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFault {
    /// `MODEL` could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelFault),
    /// No ids could be had.
    #[error(transparent)]
    Counter(#[from] CounterFault),
    /// The device type is not valid.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// The device type does not do what its file says.
    #[error("{0}")]
    Example(#[from] ExampleFailed),
    /// There is no such org.
    #[error("there is no org {0}; `haystack org list` names them, `haystack org add` makes one")]
    NoOrg(OrgKey),
    /// There is no such device type.
    #[error(
        "org {0} has no device type {1}; `haystack device-type list --org {0}` names those that it \
         has, `haystack device-type apply FILE --org {0}` makes one"
    )]
    NoType(OrgKey, TypeId),
    /// The name is taken by something else.
    #[error("{0}")]
    Taken(String),
}

impl RegistryFault {
    /// Whether the same may work later, without anybody changing the request.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Model(ModelFault::Server(_)) | Self::Counter(_))
    }
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Registered<T> {
    /// It is new.
    Made(T),
    /// It was so already.
    Unchanged(T),
}

impl<T> Registered<T> {
    /// The thing itself.
    pub fn into_inner(self) -> T {
        match self {
            Self::Made(thing) | Self::Unchanged(thing) => thing,
        }
    }
}

/// Makes an org.
pub async fn add_org(
    wire: &Wire,
    key: OrgKey,
    name: String,
) -> Result<Registered<Org>, RegistryFault> {
    let probe = Record::Org(Org { id: OrgId(0), key: key.clone(), name: name.clone() });
    let found = get(wire, &probe.subject().to_string()).await?;
    if let Some((_, Record::Org(org))) = found {
        return Ok(Registered::Unchanged(org));
    }
    let id = OrgId(allocate(wire, Counter::Org, 1).await?.start);
    let org = Org { id, key, name };
    put(wire, &Record::Org(org.clone()), 0).await?;
    Ok(Registered::Made(org))
}

/// Writes a record where none is, or where one was that somebody took away.
pub async fn put_new(wire: &Wire, record: &Record) -> Result<u64, ModelFault> {
    match put(wire, record, 0).await {
        Err(ModelFault::Conflict(subject)) => match get(wire, &subject).await? {
            Some((sequence, Record::Gone(_))) => put(wire, record, sequence).await,
            _ => Err(ModelFault::Conflict(subject)),
        },
        done => done,
    }
}

fn org_of(directory: &Directory, key: &OrgKey) -> Result<OrgId, RegistryFault> {
    directory.org(key).map(|org| org.id).ok_or_else(|| RegistryFault::NoOrg(key.clone()))
}

/// Makes a new version of a device type where the definition differs from the one in force.
/// Devices of the type get points for metrics that are new.
pub async fn apply_device_type(
    wire: &Wire,
    org: &OrgKey,
    definition: DeviceType,
) -> Result<Registered<TypeHead>, RegistryFault> {
    apply_device_type_over(wire, org, definition, None).await
}

/// The same in place of what somebody saw, by the sequence of its head: where that is another now, it
/// is a conflict, unless what is in force says the same. `None`: in place of whatever it is.
pub async fn apply_device_type_over(
    wire: &Wire,
    org: &OrgKey,
    definition: DeviceType,
    seen: Option<u64>,
) -> Result<Registered<TypeHead>, RegistryFault> {
    definition.check()?;
    check_examples(&definition, SystemClock.now())?;
    let org_id = look(wire, |model| org_of(model, org)).await??;
    let id = definition.device_type.clone();
    let (expected, head) = current_head(wire, org, org_id, &id).await?;
    let latest = head.as_ref().map_or(0, |head| head.current.version);
    let earlier = look(wire, |model| versions(model, org, &id, latest)).await?;
    for earlier in &earlier {
        kinds_stay(&earlier.definition, &definition)?;
    }
    if let Some(head) = &head
        && earlier.iter().any(|it| it.version == latest && it.definition == definition)
    {
        complete_points(wire, &definition, org).await?;
        return Ok(Registered::Unchanged(head.clone()));
    }
    if seen.is_some_and(|seen| seen != expected) {
        let subject = Record::DeviceType(head_of(org, org_id, &id, 0)).subject();
        return Err(ModelFault::Conflict(subject.to_string()).into());
    }
    let version = unused_version(wire, latest, org, &definition).await?;
    let profile = Profile { org: org.clone(), org_id, version, definition: definition.clone() };
    put(wire, &Record::Profile(Box::new(profile)), 0).await?;
    // Points first: a message that the new version normalizes finds them.
    complete_points(wire, &definition, org).await?;
    let new = head_of(org, org_id, &id, version);
    put(wire, &Record::DeviceType(new.clone()), expected).await?;
    // And again for devices that were registered meanwhile, by the version before.
    complete_points(wire, &definition, org).await?;
    Ok(Registered::Made(new))
}

/// The versions of a device type up to one, in their order.
fn versions(model: &Directory, org: &OrgKey, id: &TypeId, latest: u32) -> Vec<Arc<Profile>> {
    let version = |version| model.profile(org, &ProfileRef { id: id.clone(), version }).cloned();
    (1..=latest).filter_map(version).collect()
}

/// The head of a device type as it is now, with the sequence that a writer must expect.
async fn current_head(
    wire: &Wire,
    org: &OrgKey,
    org_id: OrgId,
    id: &TypeId,
) -> Result<(u64, Option<TypeHead>), RegistryFault> {
    let probe = Record::DeviceType(head_of(org, org_id, id, 0));
    Ok(match get(wire, &probe.subject().to_string()).await? {
        Some((sequence, Record::DeviceType(head))) => (sequence, Some(head)),
        Some((sequence, _)) => (sequence, None),
        None => (0, None),
    })
}

fn head_of(org: &OrgKey, org_id: OrgId, id: &TypeId, version: u32) -> TypeHead {
    TypeHead { org: org.clone(), org_id, current: ProfileRef { id: id.clone(), version } }
}

/// A metric keeps its kind: its values stand in one column.
fn kinds_stay(before: &DeviceType, after: &DeviceType) -> Result<(), RegistryFault> {
    if before.processing_mode != after.processing_mode {
        let problem = "an earlier version is of another mode; give this type another name";
        let place = "processing_mode".to_owned();
        return Err(Invalid { place, problem: problem.to_owned() }.into());
    }
    let own = after.gateway_metrics.iter().map(|it| (it, &before.gateway_metrics));
    let all = after.metrics.iter().map(|it| (it, &before.metrics)).chain(own);
    for ((name, metric), before) in all {
        let changed = before.get(name).filter(|before| before.kind != metric.kind);
        if let Some(before) = changed {
            let problem = format!(
                "an earlier version says {}; a metric keeps its kind, so give the new one another \
                 name",
                before.kind.haystack()
            );
            return Err(Invalid { place: format!("metrics.{name}.kind"), problem }.into());
        }
    }
    Ok(())
}

/// The next version number. One that was written while its head was not (a cut-off apply) is
/// taken up again where it says the same, else skipped: versions never change.
async fn unused_version(
    wire: &Wire,
    after: u32,
    org: &OrgKey,
    definition: &DeviceType,
) -> Result<u32, RegistryFault> {
    let id = &definition.device_type;
    let mut version = after + 1;
    loop {
        let subject =
            domain::subject::Subject::Profile { org: org.to_string(), id: id.to_string(), version };
        match get(wire, &subject.to_string()).await? {
            Some((_, Record::Profile(found))) if found.definition != *definition => version += 1,
            _ => return Ok(version),
        }
    }
}

/// Gives every device of the type a point for each metric.
async fn complete_points(
    wire: &Wire,
    definition: &DeviceType,
    org: &OrgKey,
) -> Result<(), RegistryFault> {
    let of_type = |device: &&Arc<Device>| device.device_type == definition.device_type;
    for device in look(wire, |model| model.devices(org)).await?.iter().filter(of_type) {
        let subject = Record::Device(Device::clone(device)).subject().to_string();
        let Some((sequence, Record::Device(mut device))) = get(wire, &subject).await? else {
            continue;
        };
        if add_points(wire, &mut device, definition).await? {
            put(wire, &Record::Device(device), sequence).await?;
        }
    }
    Ok(())
}

/// Registers a device: one point for each metric of its type.
pub async fn add_device(
    wire: &Wire,
    org: &OrgKey,
    id: DeviceId,
    device_type: TypeId,
    name: Option<String>,
) -> Result<Registered<Device>, RegistryFault> {
    let known = |model: &Directory| {
        let definition = in_force(model, org, &device_type)?;
        Ok::<_, RegistryFault>((org_of(model, org)?, definition, model.device(&id).cloned()))
    };
    let (org_id, profile, found) = look(wire, known).await??;
    let definition = &profile.definition;
    if let Some(found) = found {
        return found_device(&found, org, &device_type);
    }
    let name = name.unwrap_or_else(|| id.to_string());
    let points = BTreeMap::new();
    let role = definition.role();
    let mut device = Device { id, org: org.clone(), org_id, device_type, name, role, points };
    add_points(wire, &mut device, definition).await?;
    let sequence = put_new(wire, &Record::Device(device.clone())).await?;
    // The type may have got a new version meanwhile; its `apply` did not see this device.
    let now = look(wire, |model| in_force(model, org, &device.device_type)).await?;
    if let Ok(now) = now
        && now.definition != *definition
        && add_points(wire, &mut device, &now.definition).await?
    {
        put(wire, &Record::Device(device.clone()), sequence).await?;
    }
    Ok(Registered::Made(device))
}

/// The version in force of a device type.
fn in_force(
    model: &Directory,
    org: &OrgKey,
    device_type: &TypeId,
) -> Result<Arc<Profile>, RegistryFault> {
    org_of(model, org)?;
    let head = model.head(org, device_type);
    let profile = head.and_then(|head| model.profile(org, &head.current));
    profile.cloned().ok_or_else(|| RegistryFault::NoType(org.clone(), device_type.clone()))
}

fn found_device(
    found: &Device,
    org: &OrgKey,
    device_type: &TypeId,
) -> Result<Registered<Device>, RegistryFault> {
    if found.org != *org {
        // Whose it is, is nobody else's business.
        return Err(RegistryFault::Taken(format!("the device id {} is taken", found.id)));
    }
    if found.device_type != *device_type {
        let text = format!("device {} exists and is a {}", found.id, found.device_type);
        return Err(RegistryFault::Taken(text));
    }
    Ok(Registered::Unchanged(found.clone()))
}

/// Makes an entity for each metric that has no point yet; whether there was one.
///
/// The entities are written before the device that names them: a database that follows `MODEL`
/// never meets a point without its entity. Cut off in between, they belong to nobody.
async fn add_points(
    wire: &Wire,
    device: &mut Device,
    definition: &DeviceType,
) -> Result<bool, RegistryFault> {
    let metrics = definition.metrics_of(&device.role).iter();
    let missing: Vec<(&String, &Metric)> =
        metrics.filter(|(name, _)| !device.points.contains_key(*name)).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let count = u32::try_from(missing.len()).unwrap_or(u32::MAX);
    let ids = allocate(wire, Counter::Entity, count).await?;
    for ((name, metric), id) in missing.into_iter().zip(ids) {
        let entity = entity(device, name, metric, EntityId(id));
        put(wire, &Record::Entity(entity), 0).await?;
        let point = Point { entity: EntityId(id), kind: metric.kind };
        device.points.insert(name.clone(), point);
    }
    Ok(true)
}

/// The entity that holds a metric's values.
fn entity(device: &Device, name: &str, metric: &Metric, id: EntityId) -> Entity {
    let text = |text: &str| TagValue::Str(text.to_owned());
    let mut tags = metric.tags.clone();
    tags.entry("kind".to_owned()).or_insert_with(|| text(metric.kind.haystack()));
    if let Some(unit) = &metric.unit {
        tags.entry("unit".to_owned()).or_insert_with(|| text(unit));
    }
    tags.insert("device".to_owned(), text(device.id.as_str()));
    Entity {
        id,
        org: device.org.clone(),
        org_id: device.org_id,
        name: format!("{} {name}", device.name),
        tags,
    }
}
