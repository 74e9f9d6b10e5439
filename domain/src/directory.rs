//! `MODEL` in memory: who a sender is and what normalizes its messages, without I/O.

use crate::{
    DeviceId, OrgId, OrgKey, SimulatorId, TypeId,
    access::{Grant, Key, KeyId, User, UserId},
    model::{
        Asset, AssetId, AssetType, Device, Entity, Gone, GoneKind, Org, Poller, Profile, Record,
        Role, TagDef, TypeHead,
    },
    raw::{ProfileRef, Sender},
    subject::Subject,
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Everything `MODEL` says, as of [`Directory::sequence`].
#[derive(Debug, Clone, Default)]
pub struct Directory {
    sequence: u64,
    orgs: HashMap<OrgKey, Arc<Org>>,
    entities: HashMap<crate::EntityId, Arc<Entity>>,
    tag_defs: HashMap<(OrgKey, String), Arc<TagDef>>,
    heads: HashMap<(OrgKey, TypeId), TypeHead>,
    profiles: HashMap<(OrgKey, ProfileRef), Arc<Profile>>,
    devices: HashMap<DeviceId, Arc<Device>>,
    /// Logical devices by gateway and identifier, and by org: a gateway's name may have been another
    /// org's before.
    logical: HashMap<(DeviceId, OrgKey), HashMap<String, DeviceId>>,
    pollers: HashMap<SimulatorId, Arc<Poller>>,
    users: HashMap<UserId, Arc<User>>,
    /// Users by issuer and subject.
    signed_in: HashMap<(String, String), UserId>,
    grants: HashMap<UserId, BTreeMap<OrgId, Arc<Grant>>>,
    keys: HashMap<KeyId, Arc<Key>>,
    asset_types: HashMap<(OrgKey, TypeId), Arc<AssetType>>,
    assets: HashMap<AssetId, Arc<Asset>>,
    /// Subjects of records that this release can't read, and their sequences.
    unreadable: BTreeMap<String, u64>,
}

impl Directory {
    /// Takes in a record; one that is not newer than what is known changes nothing.
    pub fn apply(&mut self, sequence: u64, record: Record) {
        if sequence <= self.sequence {
            return;
        }
        self.sequence = sequence;
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&record.subject().to_string());
        }
        match record {
            Record::Org(org) => drop(self.orgs.insert(org.key.clone(), org.into())),
            Record::Entity(entity) => drop(self.entities.insert(entity.id, entity.into())),
            Record::TagDef(def) => {
                self.tag_defs.insert((def.org.clone(), def.name.clone()), def.into());
            }
            Record::DeviceType(head) => {
                self.heads.insert((head.org.clone(), head.current.id.clone()), head);
            }
            Record::Profile(profile) => {
                let id = profile.definition.device_type.clone();
                let key = ProfileRef { id, version: profile.version };
                self.profiles.insert((profile.org.clone(), key), Arc::new(*profile));
            }
            Record::Device(device) => {
                if let Role::Logical { gateway, identifier } = &device.role {
                    let of_gateway = (gateway.clone(), device.org.clone());
                    let of_gateway = self.logical.entry(of_gateway).or_default();
                    of_gateway.insert(identifier.clone(), device.id.clone());
                }
                self.devices.insert(device.id.clone(), device.into());
            }
            Record::Poller(poller) => {
                self.pollers.insert(poller.id, Arc::new(*poller));
            }
            Record::User(user) => self.apply_user(user),
            Record::Grant(grant) => {
                let of_user = self.grants.entry(grant.user).or_default();
                of_user.insert(grant.org_id, grant.into());
            }
            Record::Key(key) => drop(self.keys.insert(key.id.clone(), key.into())),
            Record::AssetType(kind) => {
                self.asset_types.insert((kind.org.clone(), kind.id.clone()), kind.into());
            }
            Record::Asset(asset) => drop(self.assets.insert(asset.id, asset.into())),
            Record::Gone(gone) => self.remove(&gone),
        }
    }

    fn apply_user(&mut self, user: User) {
        if let Some(before) = self.users.get(&user.id) {
            self.signed_in.remove(&(before.issuer.clone(), before.subject.clone()));
        }
        self.signed_in.insert((user.issuer.clone(), user.subject.clone()), user.id);
        self.users.insert(user.id, user.into());
    }

    fn remove(&mut self, gone: &Gone) {
        let Gone { org, kind, id, .. } = gone;
        match kind {
            GoneKind::Entity => {
                id.parse().ok().and_then(|id| self.entities.remove(&crate::EntityId(id)));
            }
            GoneKind::TagDef => drop(self.tag_defs.remove(&(org.clone(), id.clone()))),
            GoneKind::Device => {
                if let Some(device) = self.devices.remove(id.as_str())
                    && let Role::Logical { gateway, identifier } = &device.role
                    && let Some(of_gateway) =
                        self.logical.get_mut(&(gateway.clone(), device.org.clone()))
                {
                    of_gateway.remove(identifier);
                }
            }
            GoneKind::AssetType => {
                self.asset_types.retain(|(of, kind), _| !(of == org && kind.as_str() == id));
            }
            GoneKind::Asset => {
                id.parse().ok().and_then(|id| self.assets.remove(&AssetId(id)));
            }
        }
    }

    /// Notes a record that this release can't read. What it replaces stays in force.
    pub fn step_over(&mut self, sequence: u64, subject: String) {
        if sequence > self.sequence {
            self.sequence = sequence;
            self.close(&subject);
            self.unreadable.insert(subject, sequence);
        }
    }

    /// What lets somebody in counts no more where what replaces it can't be read: it may say so.
    fn close(&mut self, subject: &str) {
        let Some(Subject::Model { kind, id, .. }) = Subject::parse(subject) else { return };
        match kind.as_str() {
            "key" => drop(id.parse().ok().and_then(|id: KeyId| self.keys.remove(&id))),
            "user" => {
                let user = id.parse().ok().and_then(|id| self.users.remove(&UserId(id)));
                if let Some(user) = user {
                    self.signed_in.remove(&(user.issuer.clone(), user.subject.clone()));
                }
            }
            "grant" => self.grants.values_mut().for_each(|grants| {
                grants.retain(|_, grant| {
                    Record::Grant(Grant::clone(grant)).subject().to_string() != subject
                });
            }),
            _ => {}
        }
    }

    /// Whether some user's record can't be read: then nobody knows whom an issuer calls what.
    pub fn users_are_unreadable(&self) -> bool {
        let user = |subject: &String| matches!(Subject::parse(subject), Some(Subject::Model { kind, .. }) if kind == "user");
        self.unreadable.keys().any(user)
    }

    /// Subjects of records that can't be read, and their sequences.
    pub fn unreadable(&self) -> &BTreeMap<String, u64> {
        &self.unreadable
    }

    /// Whether a sender is registered by a record that can't be read: then it is not unknown.
    pub fn sender_is_unreadable(&self, name: &str) -> bool {
        let subject =
            || Subject::Model { org: None, kind: "device".to_owned(), id: name.to_owned() };
        !self.unreadable.is_empty() && self.unreadable.contains_key(&subject().to_string())
    }

    /// The sequence of the last record taken in.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// An org by its key.
    pub fn org(&self, key: &OrgKey) -> Option<&Arc<Org>> {
        self.orgs.get(key)
    }

    /// All orgs, by number.
    pub fn orgs(&self) -> Vec<Arc<Org>> {
        sorted(self.orgs.values().cloned(), |org| org.id)
    }

    /// An entity.
    pub fn entity(&self, id: crate::EntityId) -> Option<&Arc<Entity>> {
        self.entities.get(&id)
    }

    /// Devices of an org, by name.
    pub fn devices(&self, org: &OrgKey) -> Vec<Arc<Device>> {
        let of_org = self.devices.values().filter(|device| device.org == *org).cloned();
        sorted(of_org, |device| device.id.clone())
    }

    /// A device.
    pub fn device(&self, id: &DeviceId) -> Option<&Arc<Device>> {
        self.devices.get(id)
    }

    /// A device, by what a sender calls itself.
    pub fn device_named(&self, name: &str) -> Option<&Arc<Device>> {
        self.devices.get(name)
    }

    /// A logical device, by what its gateway calls it.
    pub fn logical(&self, gateway: &DeviceId, identifier: &str) -> Option<&Arc<Device>> {
        self.devices.get(self.logical_of(gateway)?.get(identifier)?)
    }

    /// How many logical devices a gateway has.
    pub fn logical_count(&self, gateway: &DeviceId) -> usize {
        self.logical_of(gateway).map_or(0, HashMap::len)
    }

    /// Those of the org that the gateway is of.
    fn logical_of(&self, gateway: &DeviceId) -> Option<&HashMap<String, DeviceId>> {
        let org = &self.devices.get(gateway)?.org;
        self.logical.get(&(gateway.clone(), org.clone()))
    }

    /// All pollers, by number.
    pub fn pollers(&self) -> Vec<Arc<Poller>> {
        sorted(self.pollers.values().cloned(), |poller| poller.id)
    }

    /// A poller.
    pub fn poller(&self, id: SimulatorId) -> Option<&Arc<Poller>> {
        self.pollers.get(&id)
    }

    /// Device types of an org, by name.
    pub fn device_types(&self, org: &OrgKey) -> Vec<TypeHead> {
        let of_org = self.heads.values().filter(|head| head.org == *org).cloned();
        sorted(of_org, |head| head.current.id.clone())
    }

    /// The version in force of a device type.
    pub fn head(&self, org: &OrgKey, id: &TypeId) -> Option<&TypeHead> {
        self.heads.get(&(org.clone(), id.clone()))
    }

    /// One version of a device type.
    pub fn profile(&self, org: &OrgKey, profile: &ProfileRef) -> Option<&Arc<Profile>> {
        self.profiles.get(&(org.clone(), profile.clone()))
    }

    /// An org by its number.
    pub fn org_by_id(&self, id: OrgId) -> Option<&Arc<Org>> {
        self.orgs.values().find(|org| org.id == id)
    }

    /// Entities of an org, by number.
    pub fn entities(&self, org: OrgId) -> Vec<Arc<Entity>> {
        let of_org = self.entities.values().filter(|entity| entity.org_id == org).cloned();
        sorted(of_org, |entity| entity.id)
    }

    /// A tag definition.
    pub fn tag_def(&self, org: &OrgKey, name: &str) -> Option<&Arc<TagDef>> {
        self.tag_defs.get(&(org.clone(), name.to_owned()))
    }

    /// A user.
    pub fn user(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// All users, by number.
    pub fn users(&self) -> Vec<Arc<User>> {
        sorted(self.users.values().cloned(), |user| user.id)
    }

    /// The user whom an issuer calls so.
    pub fn signed_in(&self, issuer: &str, subject: &str) -> Option<&Arc<User>> {
        self.users.get(self.signed_in.get(&(issuer.to_owned(), subject.to_owned()))?)
    }

    /// What a user may do, by org.
    pub fn grants(&self, user: UserId) -> impl Iterator<Item = &Arc<Grant>> {
        self.grants.get(&user).into_iter().flat_map(BTreeMap::values)
    }

    /// What users may do in an org, by user.
    pub fn grants_in(&self, org: OrgId) -> Vec<Arc<Grant>> {
        let of_org = self.grants.values().filter_map(|grants| grants.get(&org)).cloned();
        sorted(of_org, |grant| grant.user)
    }

    /// A key.
    pub fn key(&self, id: &KeyId) -> Option<&Arc<Key>> {
        self.keys.get(id)
    }

    /// All keys, by their public parts.
    pub fn keys(&self) -> Vec<Arc<Key>> {
        sorted(self.keys.values().cloned(), |key| key.id.clone())
    }

    /// A kind of asset.
    pub fn asset_type(&self, org: &OrgKey, id: &TypeId) -> Option<&Arc<AssetType>> {
        self.asset_types.get(&(org.clone(), id.clone()))
    }

    /// An asset.
    pub fn asset(&self, id: AssetId) -> Option<&Arc<Asset>> {
        self.assets.get(&id)
    }

    /// Assets of an org, by number.
    pub fn assets(&self, org: OrgId) -> Vec<Arc<Asset>> {
        let of_org = self.assets.values().filter(|asset| asset.org_id == org).cloned();
        sorted(of_org, |asset| asset.id)
    }

    /// Whether a device or a poller holds its values in the entity.
    pub fn is_in_use(&self, entity: crate::EntityId) -> bool {
        let in_device =
            |device: &Arc<Device>| device.points.values().any(|point| point.entity == entity);
        let in_poller = |poller: &Arc<Poller>| poller.entities.values().any(|held| *held == entity);
        self.devices.values().any(in_device) || self.pollers.values().any(in_poller)
    }

    /// Who a sender is, and what normalizes what it sends now.
    pub fn sender(&self, name: &str) -> Option<Sender> {
        let device = self.devices.get(name)?;
        if matches!(device.role, Role::Logical { .. }) {
            // It has no voice of its own, and no certificate: whoever uses its name is a stranger.
            return None;
        }
        let head = self.head(&device.org, &device.device_type)?;
        Some(Sender {
            org: device.org.clone(),
            device: device.id.clone(),
            profile: head.current.clone(),
        })
    }
}

fn sorted<T, K: Ord>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by_key(key);
    items
}
