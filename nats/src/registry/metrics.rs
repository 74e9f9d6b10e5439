//! Metrics that a device was the first to speak of, where its type says so.

use super::{RegistryFault, entity};
use crate::{
    Wire,
    counter::{Counter, allocate},
    model::{ModelFault, get, put},
};
use domain::{
    DeviceId, EntityId,
    device_type::{Kind, MAX_METRICS, Metric},
    model::{Point, Record},
    subject::Subject,
    tags::{TagValue, Tags},
};
use std::collections::BTreeMap;

/// Tries where somebody else writes the same device.
const TRIES: u32 = 5;

/// Gives a device a point for each metric that it lacks, as far as it may have more; how many are new.
pub async fn create_metrics(
    wire: &Wire,
    device: &DeviceId,
    metrics: &BTreeMap<String, Kind>,
) -> Result<usize, RegistryFault> {
    let subject = Subject::Model { org: None, kind: "device".to_owned(), id: device.to_string() };
    let mut tries = 1;
    loop {
        let found = get(wire, &subject.to_string()).await?;
        let Some((sequence, Record::Device(mut device))) = found else {
            return Err(RegistryFault::Taken(format!("{device} is no device any more")));
        };
        let free = MAX_METRICS.saturating_sub(device.points.len());
        let missing = metrics.iter().filter(|(name, _)| !device.points.contains_key(*name));
        let missing: Vec<_> = missing.take(free).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        let count = u32::try_from(missing.len()).unwrap_or(u32::MAX);
        let ids = allocate(wire, Counter::Entity, count).await?;
        for ((name, kind), id) in missing.iter().zip(ids) {
            let point = Point { entity: EntityId(id), kind: **kind };
            let entity = entity(&device, name, &metric(**kind), point.entity);
            put(wire, &Record::Entity(entity), 0).await?;
            device.points.insert((*name).clone(), point);
        }
        match put(wire, &Record::Device(device), sequence).await {
            Ok(_) => return Ok(missing.len()),
            // Another bridge made some of them; these entities belong to nobody.
            Err(ModelFault::Conflict(_)) if tries < TRIES => tries += 1,
            Err(fault) => return Err(fault.into()),
        }
    }
}

/// All that is known of such a metric.
fn metric(kind: Kind) -> Metric {
    let tags = Tags::from([("point".to_owned(), TagValue::Marker)]);
    Metric { pointer: String::new(), kind, unit: None, scale: None, offset: None, tags }
}
