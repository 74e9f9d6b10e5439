//! Registering logical devices: those for which a gateway speaks.

use super::{Registered, RegistryFault, add_points, entity, put_new};
use crate::{
    Wire,
    counter::{Counter, allocate},
    model::{ModelFault, look, put},
};
use domain::{
    DeviceId, EntityId,
    device_type::DeviceType,
    directory::Directory,
    model::{Device, MAX_IDENTIFIER, MAX_LOGICAL, MAX_NAME, Point, Record, Role, logical_names},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;

/// Longest name of a metric, in bytes.
const MAX_METRIC_NAME: usize = 64;
/// Devices that are being written at once.
const WRITES: usize = 64;

/// Registers one by hand.
pub async fn add_logical(
    wire: &Wire,
    gateway: &DeviceId,
    identifier: &str,
    id: Option<DeviceId>,
    name: Option<String>,
) -> Result<Registered<Device>, RegistryFault> {
    if identifier.is_empty() || identifier.len() > MAX_IDENTIFIER {
        return taken(format!("an identifier has 1 to {MAX_IDENTIFIER} bytes"));
    }
    let known = |directory: &Directory| {
        let (parent, definition) = gateway_of(directory, gateway)?;
        if let Some(found) = directory.logical(gateway, identifier) {
            return match id.filter(|id| *id != found.id) {
                Some(_) => taken(format!("{gateway} calls device {} {identifier:?}", found.id)),
                None => Ok((found.as_ref().clone(), None)),
            };
        }
        let id = match id {
            Some(id) => Some(id).filter(|id| directory.device(id).is_none()),
            None => free_name(directory, gateway, identifier),
        };
        let Some(id) = id else { return taken("the device id is taken".to_owned()) };
        if directory.logical_count(gateway) >= MAX_LOGICAL {
            return taken(format!(
                "{gateway} has {MAX_LOGICAL} logical devices, the most there can be"
            ));
        }
        Ok((device(&parent, id, identifier), Some(definition)))
    };
    let (mut device, definition) = look(wire, known).await??;
    let Some(definition) = definition else { return Ok(Registered::Unchanged(device)) };
    device.name = name.unwrap_or(device.name);
    add_points(wire, &mut device, &definition).await?;
    put_new(wire, &Record::Device(device.clone())).await?;
    Ok(Registered::Made(device))
}

fn taken<T>(text: String) -> Result<T, RegistryFault> {
    Err(RegistryFault::Taken(text))
}

/// Registers those that a gateway was the first to speak of; how many are new. The directory must
/// be up to date. Whoever does the same at the same time loses nothing: one of the two makes each.
pub async fn create_logical(
    wire: &Wire,
    directory: &Directory,
    gateway: &DeviceId,
    identifiers: &[String],
) -> Result<usize, RegistryFault> {
    let (parent, definition) = gateway_of(directory, gateway)?;
    let free = MAX_LOGICAL.saturating_sub(directory.logical_count(gateway));
    let new = identifiers.iter().filter(|it| directory.logical(gateway, it).is_none());
    let new: Vec<&String> = new.take(free).collect();
    if new.is_empty() {
        return Ok(0);
    }
    let each = definition.metrics.len();
    let count = u32::try_from(new.len() * each).unwrap_or(u32::MAX);
    let mut ids = allocate(wire, Counter::Entity, count).await?;
    let devices: Vec<_> = new
        .into_iter()
        .filter_map(|identifier| {
            let device = device(&parent, free_name(directory, gateway, identifier)?, identifier);
            let ids: Vec<i32> = ids.by_ref().take(each).collect();
            Some(write(wire.clone(), device, &definition, ids))
        })
        .collect();
    let made = stream::iter(devices)
        .buffer_unordered(WRITES)
        .try_fold(0, |made, one| std::future::ready(Ok(made + usize::from(one))));
    made.await
}

fn gateway_of(
    directory: &Directory,
    gateway: &DeviceId,
) -> Result<(Device, DeviceType), RegistryFault> {
    let no_gateway = |why: &str| RegistryFault::Taken(format!("{gateway} {why}"));
    let parent = directory.device(gateway).ok_or_else(|| no_gateway("is not registered"))?;
    if parent.role != Role::Gateway {
        return Err(no_gateway("is no gateway: its device type says so"));
    }
    let head = directory.head(&parent.org, &parent.device_type);
    let profile = head.and_then(|head| directory.profile(&parent.org, &head.current));
    let profile = profile
        .ok_or_else(|| RegistryFault::NoType(parent.org.clone(), parent.device_type.clone()))?;
    Ok((parent.as_ref().clone(), profile.definition.clone()))
}

/// A name with room for a metric's behind it.
fn short(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(MAX_NAME - MAX_METRIC_NAME - 1));
    name
}

/// A name that no device bears.
fn free_name(directory: &Directory, gateway: &DeviceId, identifier: &str) -> Option<DeviceId> {
    logical_names(gateway, identifier).find(|id| directory.device(id).is_none())
}

fn device(gateway: &Device, id: DeviceId, identifier: &str) -> Device {
    let identifier = identifier.to_owned();
    Device {
        name: short(format!("{} {identifier}", gateway.name)),
        id,
        org: gateway.org.clone(),
        org_id: gateway.org_id,
        device_type: gateway.device_type.clone(),
        role: Role::Logical { gateway: gateway.id.clone(), identifier },
        points: BTreeMap::new(),
    }
}

/// Writes the points' entities, then the device; `false`: somebody else made it in between.
async fn write(
    wire: Wire,
    mut device: Device,
    definition: &DeviceType,
    ids: Vec<i32>,
) -> Result<bool, RegistryFault> {
    for ((name, metric), id) in definition.metrics.iter().zip(ids) {
        let entity = entity(&device, name, metric, EntityId(id));
        put(&wire, &Record::Entity(entity), 0).await?;
        device.points.insert(name.clone(), Point { entity: EntityId(id), kind: metric.kind });
    }
    match put_new(&wire, &Record::Device(device)).await {
        Ok(_) => Ok(true),
        Err(ModelFault::Conflict(_)) => Ok(false),
        Err(fault) => Err(fault.into()),
    }
}
