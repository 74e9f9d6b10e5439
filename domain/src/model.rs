//! What is not a reading: orgs, entities, device types and devices, as `MODEL` holds them.

use crate::{
    DeviceId, EntityId, OrgId, OrgKey, SimulatorId, TypeId,
    access::{Grant, Key, User},
    device_type::{DeviceType, Kind},
    raw::ProfileRef,
    simulator::EntityKeys,
    subject::Subject,
    tags::Tags,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Its number.
    pub id: OrgId,
    /// Its short name; part of subjects and table names, never changed.
    pub key: OrgKey,
    /// Its name for people.
    pub name: String,
}

/// An entity. A point is an entity whose values are stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// Its number.
    pub id: EntityId,
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// Its name for people (Haystack `dis`).
    pub name: String,
    /// Its tags.
    pub tags: Tags,
}

/// What a tag means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagDef {
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// The tag's name.
    pub name: String,
    /// The Haystack kind of its values.
    pub kind: String,
    /// What it means, in a sentence.
    pub doc: String,
}

/// One version of a device type, never changed once written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// 1, 2, …
    pub version: u32,
    /// What the file said.
    pub definition: DeviceType,
}

/// A device type: which of its versions is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeHead {
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// Name and current version.
    pub current: ProfileRef,
}

/// A point of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The entity that holds the metric's values.
    pub entity: EntityId,
    /// What its values are.
    pub kind: Kind,
}

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It speaks for itself.
    #[default]
    Endpoint,
    /// It speaks for others.
    Gateway,
    /// A gateway speaks for it.
    Logical {
        /// The gateway.
        gateway: DeviceId,
        /// What the gateway calls it.
        identifier: String,
    },
}

impl Role {
    /// As databases write it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Gateway => "gateway",
            Self::Logical { .. } => "logical",
        }
    }
}

/// Longest identifier of a logical device, in bytes.
pub const MAX_IDENTIFIER: usize = 128;
/// Most logical devices of one gateway.
pub const MAX_LOGICAL: usize = 10_000;

/// Names for a logical device that nobody has given one, the best first: the gateway's and its own
/// where that makes a name, then the gateway's and a number that stands for its own.
pub fn logical_names(gateway: &DeviceId, identifier: &str) -> impl Iterator<Item = DeviceId> {
    let hash = crate::subject::fnv1a(format!("{gateway}/{identifier}").as_bytes());
    let kept: String = gateway.as_str().chars().take(40).collect();
    let names = [format!("{gateway}_{identifier}"), format!("{kept}_{hash:016x}")];
    names.into_iter().filter_map(|name| DeviceId::parse(&name).ok())
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name, unique in the platform.
    pub id: DeviceId,
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// What it is.
    pub device_type: TypeId,
    /// Its name for people.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub role: Role,
    /// Its points by metric.
    pub points: BTreeMap<String, Point>,
}

/// Something of ours that brings readings by itself, such as a simulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poller {
    /// Its number.
    pub id: SimulatorId,
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// `simulator`, `bacnet`, …
    pub poller_type: String,
    /// Its name for people.
    pub name: String,
    /// `active`; else nobody runs it: `inactive`, or `removed`, for good.
    pub status: String,
    /// What it does, JSON; of a simulator a [`crate::simulator::SimulatorConfig`].
    pub config: String,
    /// Its entities.
    pub entities: EntityKeys,
}

/// An entity that a poller wants, with references by key.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its name inside the poller.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// Its tags; a reference names another key.
    pub tags: Tags,
}

/// The type of pollers that are simulators.
pub const SIMULATOR: &str = "simulator";
/// The status of a poller that is to run.
pub const ACTIVE: &str = "active";
/// The status of one that nobody runs any more.
pub const REMOVED: &str = "removed";

/// What kind of thing an asset is, and what is computed of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetType {
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// Its name.
    pub id: TypeId,
    /// For people.
    pub name: String,
    /// What is measured or computed of such an asset, by name.
    pub metric_definitions: serde_json::Value,
    /// What computes the metrics.
    pub transformation_engine: Option<String>,
    /// What computes the health score.
    pub health_algorithm: Option<String>,
}

/// An asset's number: allocated once, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AssetId(pub i32);

impl std::fmt::Display for AssetId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A thing that is looked after: a chiller, a room, a vehicle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asset {
    /// Its number.
    pub id: AssetId,
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// What it is.
    pub asset_type: TypeId,
    /// For people.
    pub name: String,
    /// Devices that observe it. A device observes one asset: the one whose record was written last.
    pub devices: std::collections::BTreeSet<DeviceId>,
    /// Whatever else is to be known.
    pub tags: Tags,
}

/// What a record that is taken away was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoneKind {
    /// An [`Entity`].
    Entity,
    /// A [`TagDef`].
    TagDef,
    /// A [`Device`].
    Device,
    /// An [`AssetType`].
    AssetType,
    /// An [`Asset`].
    Asset,
}

impl GoneKind {
    /// As subjects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::TagDef => "tag_def",
            Self::Device => "device",
            Self::AssetType => "asset_type",
            Self::Asset => "asset",
        }
    }
}

/// What stands where a record was that somebody took away: its number or name is not given away again
/// by accident, and a database that was away learns of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Its org.
    pub org: OrgKey,
    /// Its org's number.
    pub org_id: OrgId,
    /// What it was.
    pub kind: GoneKind,
    /// Its number or name.
    pub id: String,
}

/// A record of `MODEL`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An org.
    Org(Org),
    /// An entity.
    Entity(Entity),
    /// A tag definition.
    TagDef(TagDef),
    /// A version of a device type.
    Profile(Box<Profile>),
    /// The head of a device type.
    DeviceType(TypeHead),
    /// A device.
    Device(Device),
    /// A poller.
    Poller(Box<Poller>),
    /// A user.
    User(User),
    /// What a user may do in an org.
    Grant(Grant),
    /// A key.
    Key(Key),
    /// A kind of asset.
    AssetType(AssetType),
    /// An asset.
    Asset(Asset),
    /// Something was here.
    Gone(Gone),
}

/// Longest record, in bytes of JSON.
pub const MAX_RECORD: usize = 1 << 20;
/// The same of a poller: it names all its entities, and one of 100,000 has as many.
pub const MAX_POLLER: usize = 8 << 20;
/// Longest name of a tag, in bytes: databases index it.
pub const MAX_TAG_NAME: usize = 128;
/// Longest name for people, in bytes.
pub const MAX_NAME: usize = 1_024;

/// Why a record can't be kept: some database could not hold it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unkeepable(String);

impl Record {
    /// Checks that every database can hold the record, before it is written for ever.
    pub fn check(&self) -> Result<(), Unkeepable> {
        let unkeepable = |text: String| Err(Unkeepable(text));
        let json = serde_json::to_string(self).map_err(|error| Unkeepable(error.to_string()))?;
        let most = if matches!(self, Self::Poller(_)) { MAX_POLLER } else { MAX_RECORD };
        if json.len() > most {
            return unkeepable(format!("{} bytes, at most {most} are taken", json.len()));
        }
        // JSON writes a NUL in no other way; after a written backslash it would be a text.
        if json.replace("\\\\", "").contains("\\u0000") {
            return unkeepable("a text holds a NUL character, which databases refuse".to_owned());
        }
        let (name, tags) = match self {
            Self::Org(org) => (&org.name[..], None),
            Self::Entity(entity) => (&entity.name[..], Some(vec![&entity.tags])),
            Self::Device(device) => (&device.name[..], None),
            Self::TagDef(def) => (&def.name[..], None),
            Self::Poller(poller) => (&poller.name[..], None),
            Self::User(user) => (&user.name[..], None),
            Self::Key(key) => (&key.name[..], None),
            Self::AssetType(kind) => (&kind.name[..], None),
            Self::Asset(asset) => (&asset.name[..], Some(vec![&asset.tags])),
            Self::DeviceType(_) | Self::Grant(_) | Self::Gone(_) => ("", None),
            Self::Profile(profile) => {
                let metrics = profile.definition.metrics.values();
                ("", Some(metrics.map(|metric| &metric.tags).collect()))
            }
        };
        if name.len() > MAX_NAME {
            return unkeepable(format!("a name of {} bytes, at most {MAX_NAME}", name.len()));
        }
        let long = |tag: &&String| tag.is_empty() || tag.len() > MAX_TAG_NAME;
        match tags.into_iter().flatten().flat_map(|tags| tags.keys()).find(long) {
            Some(tag) => {
                let shown: String = tag.chars().take(40).collect();
                unkeepable(format!("tag {shown:?}: a name has 1 to {MAX_TAG_NAME} bytes"))
            }
            None => Ok(()),
        }
    }

    /// The org that the record is of; none where it is the platform's.
    pub fn org(&self) -> Option<(&OrgKey, OrgId)> {
        match self {
            Self::Org(it) => Some((&it.key, it.id)),
            Self::Entity(it) => Some((&it.org, it.org_id)),
            Self::TagDef(it) => Some((&it.org, it.org_id)),
            Self::Profile(it) => Some((&it.org, it.org_id)),
            Self::DeviceType(it) => Some((&it.org, it.org_id)),
            Self::Device(it) => Some((&it.org, it.org_id)),
            Self::Poller(it) => Some((&it.org, it.org_id)),
            Self::Grant(it) => Some((&it.org, it.org_id)),
            Self::AssetType(it) => Some((&it.org, it.org_id)),
            Self::Asset(it) => Some((&it.org, it.org_id)),
            Self::Gone(it) => Some((&it.org, it.org_id)),
            Self::Key(it) => it.scope.org(),
            Self::User(_) => None,
        }
    }

    /// The subject under which the record stands; its last message is the record as it is now.
    pub fn subject(&self) -> Subject {
        let of = |org: &OrgKey, kind: &str, id: String| Subject::Model {
            org: Some(org.to_string()),
            kind: kind.to_owned(),
            id,
        };
        let platform = |kind: &str, id| Subject::Model { org: None, kind: kind.to_owned(), id };
        match self {
            // Filed under its key, so that a key is given away once.
            Self::Org(org) => of(&org.key, "org", org.key.to_string()),
            Self::Entity(entity) => of(&entity.org, "entity", entity.id.to_string()),
            Self::TagDef(def) => of(&def.org, "tag_def", def.name.clone()),
            Self::DeviceType(head) => of(&head.org, "device_type", head.current.id.to_string()),
            Self::Profile(profile) => Subject::Profile {
                org: profile.org.to_string(),
                id: profile.definition.device_type.to_string(),
                version: profile.version,
            },
            Self::Poller(poller) => of(&poller.org, "poller", poller.id.to_string()),
            Self::Device(device) => platform("device", device.id.to_string()),
            Self::User(user) => platform("user", user.id.to_string()),
            Self::Grant(grant) => of(&grant.org, "grant", grant.user.to_string()),
            // All keys stand together: a caller names no org before it is known who it is.
            Self::Key(key) => platform("key", key.id.to_string()),
            Self::AssetType(kind) => of(&kind.org, "asset_type", kind.id.to_string()),
            Self::Asset(asset) => of(&asset.org, "asset", asset.id.to_string()),
            Self::Gone(gone) if gone.kind == GoneKind::Device => {
                platform("device", gone.id.clone())
            }
            Self::Gone(gone) => of(&gone.org, gone.kind.as_str(), gone.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(name: &str) -> Record {
        let key = "demo".parse().unwrap();
        Record::Org(Org { id: OrgId(1), key, name: name.to_owned() })
    }

    fn entity(tag: &str) -> Record {
        let tags = Tags::from([(tag.to_owned(), crate::tags::TagValue::Marker)]);
        let (org, name) = ("demo".parse().unwrap(), String::new());
        Record::Entity(Entity { id: EntityId(1), org, org_id: OrgId(1), name, tags })
    }

    #[test]
    fn what_a_database_can_not_hold_is_refused_before_it_is_written() {
        for good in [org("a \\u0000 written out"), org("é"), entity("point")] {
            assert_eq!(good.check(), Ok(()));
        }
        for bad in [org("a\0b"), org(&"x".repeat(MAX_NAME + 1)), entity("a\0"), entity("")] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(entity(&"漢".repeat(MAX_TAG_NAME)).check().is_err());
    }
}
