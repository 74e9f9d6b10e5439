//! Registering pollers: a simulator and the entities of its building.

use super::{RegistryFault, org_of};
use crate::{
    Wire,
    counter::{Counter, allocate},
    model::{ModelFault, get, look, put},
};
use domain::{
    EntityId, OrgId, OrgKey, SimulatorId,
    directory::Directory,
    model::{ACTIVE, Entity, Poller, Record, Wanted},
    simulator::EntityKeys,
    tags::{TagValue, Tags},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeSet;

/// Entities on their way into `MODEL` at once.
const WRITES: usize = 64;

/// Registers a poller and its entities.
pub async fn add_poller(
    wire: &Wire,
    org: &OrgKey,
    poller_type: &str,
    name: String,
    config: String,
    wanted: &[Wanted],
) -> Result<Poller, RegistryFault> {
    let org_id = look(wire, |model| org_of(model, org)).await??;
    let mut poller = Poller {
        id: SimulatorId(i32::MAX),
        org: org.clone(),
        org_id,
        poller_type: poller_type.to_owned(),
        name,
        status: ACTIVE.to_owned(),
        config,
        entities: EntityKeys::new(),
    };
    poller_fits(&poller, wanted)?;
    poller.id = SimulatorId(allocate(wire, Counter::Poller, 1).await?.start);
    Ok(add_poller_as(wire, poller, wanted).await?.1)
}

/// The same with a number that was allocated before, and in a status of the caller's. One that is there
/// under this number is given as it is: the request before this one made it, and its answer was lost.
/// The poller comes with the sequence of its record.
pub async fn add_poller_as(
    wire: &Wire,
    mut poller: Poller,
    wanted: &[Wanted],
) -> Result<(u64, Poller), RegistryFault> {
    poller_fits(&poller, wanted)?;
    let subject = Record::Poller(Box::new(poller.clone())).subject().to_string();
    if let Some((sequence, Record::Poller(found))) = get(wire, &subject).await? {
        return Ok((sequence, *found));
    }
    let known = EntityKeys::new();
    poller.entities = complete(wire, &poller.org, poller.org_id, &known, wanted).await?;
    let sequence = put(wire, &Record::Poller(Box::new(poller.clone())), 0).await?;
    Ok((sequence, poller))
}

/// Gives a poller another configuration and the entities that it asks for. What it no longer asks
/// for keeps its entity and its history.
pub async fn configure_poller(
    wire: &Wire,
    poller: &Poller,
    config: String,
    wanted: &[Wanted],
) -> Result<Poller, RegistryFault> {
    let subject = Record::Poller(Box::new(poller.clone())).subject().to_string();
    let Some((sequence, Record::Poller(found))) = get(wire, &subject).await? else {
        return Err(RegistryFault::Taken(format!("there is no poller {}", poller.id)));
    };
    let mut poller = Poller { config, ..*found };
    poller_fits(&poller, wanted)?;
    poller.entities = complete(wire, &poller.org, poller.org_id, &poller.entities, wanted).await?;
    put(wire, &Record::Poller(Box::new(poller.clone())), sequence).await?;
    Ok(poller)
}

/// Gives a poller another status; the poller as it is then, and whether that changed it. `None`:
/// there is no such poller.
pub async fn set_poller_status(
    wire: &Wire,
    id: SimulatorId,
    status: &str,
) -> Result<Option<(Poller, bool)>, RegistryFault> {
    let poller = look(wire, |model| model.poller(id).cloned()).await?;
    let Some(poller) = poller else { return Ok(None) };
    let subject = Record::Poller(Box::new((*poller).clone())).subject().to_string();
    let Some((sequence, Record::Poller(found))) = get(wire, &subject).await? else {
        return Ok(None);
    };
    if found.status == status {
        return Ok(Some((*found, false)));
    }
    let poller = Poller { status: status.to_owned(), ..*found };
    put(wire, &Record::Poller(Box::new(poller.clone())), sequence).await?;
    Ok(Some((poller, true)))
}

/// Whether the record can be kept with all its entities, before the first of them is made.
pub fn poller_fits(poller: &Poller, wanted: &[Wanted]) -> Result<(), RegistryFault> {
    let mut whole = poller.clone();
    whole.entities.extend(wanted.iter().map(|one| (one.key.clone(), EntityId(i32::MAX))));
    let record = Record::Poller(Box::new(whole));
    let unkeepable = |why| ModelFault::Unkeepable("the poller".to_owned(), why);
    record.check().map_err(|why| unkeepable(why).into())
}

/// Makes the entities that have no id yet, before the record that names them: a database that
/// follows `MODEL` never meets a name without its entity.
async fn complete(
    wire: &Wire,
    org: &OrgKey,
    org_id: OrgId,
    known: &EntityKeys,
    wanted: &[Wanted],
) -> Result<EntityKeys, RegistryFault> {
    let missing: Vec<&Wanted> = wanted.iter().filter(|one| !known.contains_key(&one.key)).collect();
    let mut keys = known.clone();
    if !missing.is_empty() {
        let count = u32::try_from(missing.len()).unwrap_or(u32::MAX);
        let ids = allocate(wire, Counter::Entity, count).await?;
        keys.extend(missing.iter().zip(ids).map(|(one, id)| (one.key.clone(), EntityId(id))));
    }
    let new: BTreeSet<EntityId> = missing.iter().map(|one| keys[&one.key]).collect();
    let changed = |model: &Directory| -> Vec<Entity> {
        let entities = wanted.iter().map(|one| {
            let (id, tags) = (keys[&one.key], resolved(&one.tags, &keys));
            Entity { id, org: org.clone(), org_id, name: one.name.clone(), tags }
        });
        entities.filter(|it| model.entity(it.id).is_none_or(|known| **known != *it)).collect()
    };
    let changed = look(wire, changed).await?.into_iter().map(|entity| {
        let is_new = new.contains(&entity.id);
        write(wire.clone(), entity, is_new)
    });
    stream::iter(changed).buffer_unordered(WRITES).try_collect::<()>().await?;
    Ok(keys)
}

async fn write(wire: Wire, entity: Entity, new: bool) -> Result<(), RegistryFault> {
    let record = Record::Entity(entity);
    let expected = if new {
        0
    } else {
        get(&wire, &record.subject().to_string()).await?.map_or(0, |(last, _)| last)
    };
    put(&wire, &record, expected).await?;
    Ok(())
}

/// References by id instead of by key.
fn resolved(tags: &Tags, keys: &EntityKeys) -> Tags {
    let resolve = |value: &TagValue| match value {
        TagValue::Ref(key) => {
            TagValue::Ref(keys.get(key).map_or_else(|| key.clone(), ToString::to_string))
        }
        other => other.clone(),
    };
    tags.iter().map(|(name, value)| (name.clone(), resolve(value))).collect()
}
