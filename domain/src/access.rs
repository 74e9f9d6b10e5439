//! Who may do what: users, their grants in orgs, and keys of programs and devices.
//!
//! Nothing is allowed that is not granted. A right holds in a whole org, or for single entities of it.

use crate::{DeviceId, EntityId, OrgId, OrgKey, Timestamp, time::rfc3339};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// Most entities that one grant or key names.
pub const MAX_ENTITIES: usize = 10_000;

/// What somebody may do in an org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// See entities, values, devices, simulators.
    Read,
    /// Write values.
    Write,
    /// Change entities, tags, device types, devices, assets, pollers.
    Model,
    /// Start, stop, reset and edit simulators.
    Control,
    /// Send as a device.
    Telemetry,
    /// Users, permissions and keys of the org, and all of the above.
    Admin,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Model, Self::Control, Self::Telemetry, Self::Admin];

    /// As people, databases and JSON write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Model => "model",
            Self::Control => "control",
            Self::Telemetry => "telemetry",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|permission| permission.as_str() == text);
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is no permission; there are {all}")
        })
    }
}

/// Permissions in a set.
pub type Permissions = BTreeSet<Permission>;

/// What somebody may do in one org.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rights {
    /// In all of it.
    pub permissions: Permissions,
    /// For single entities, beside that.
    #[serde(default)]
    pub entities: BTreeMap<EntityId, Permissions>,
}

impl Rights {
    /// These permissions in the whole org.
    pub fn of(permissions: impl IntoIterator<Item = Permission>) -> Self {
        Self { permissions: permissions.into_iter().collect(), entities: BTreeMap::new() }
    }

    /// Nothing at all.
    pub fn is_empty(&self) -> bool {
        self.permissions.is_empty() && self.entities.values().all(BTreeSet::is_empty)
    }

    /// Whether it is allowed in the whole org.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission) || self.permissions.contains(&Permission::Admin)
    }

    /// Whether it is allowed for one entity of the org.
    pub fn may_with(&self, permission: Permission, entity: EntityId) -> bool {
        let has =
            |these: &Permissions| these.contains(&permission) || these.contains(&Permission::Admin);
        self.may(permission) || self.entities.get(&entity).is_some_and(has)
    }

    /// Whether whoever has these rights may give those away: nobody gives more than he has.
    pub fn cover(&self, others: &Self) -> bool {
        let whole = others.permissions.iter().all(|permission| self.may(*permission));
        let single = |(entity, these): (&EntityId, &Permissions)| {
            these.iter().all(|permission| self.may_with(*permission, *entity))
        };
        whole && others.entities.iter().all(single)
    }
}

/// A user's number: allocated once, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UserId(pub i32);

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UserId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "a user's number is expected, e.g. 1")
    }
}

/// A person or a program that signs in at an issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The number.
    pub id: UserId,
    /// For people.
    pub name: String,
    /// For people; it lets nobody in.
    pub email: Option<String>,
    /// The issuer whose tokens name the user (its `iss`).
    pub issuer: String,
    /// What the issuer calls the user (`sub`), for ever.
    pub subject: String,
    /// May do everything in every org, and make orgs and users.
    #[serde(default)]
    pub platform_admin: bool,
    /// Else nobody is let in by this name.
    pub active: bool,
}

/// What a user may do in an org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The org.
    pub org: OrgKey,
    /// Its number.
    pub org_id: OrgId,
    /// The user.
    pub user: UserId,
    /// What; nothing takes the user out of the org.
    pub rights: Rights,
}

/// What a key opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything in every org.
    Platform,
    /// Some of one org.
    Org {
        /// The org.
        org: OrgKey,
        /// Its number.
        org_id: OrgId,
        /// What.
        rights: Rights,
    },
    /// The telemetry of one device.
    Device {
        /// Its org.
        org: OrgKey,
        /// Its org's number.
        org_id: OrgId,
        /// The device.
        device: DeviceId,
    },
}

impl Scope {
    /// The org of the key; none where it opens all.
    pub fn org(&self) -> Option<(&OrgKey, OrgId)> {
        match self {
            Self::Platform => None,
            Self::Org { org, org_id, .. } | Self::Device { org, org_id, .. } => {
                Some((org, *org_id))
            }
        }
    }
}

/// A key as it is kept: its secret is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its public part.
    pub id: KeyId,
    /// For people.
    pub name: String,
    /// What it opens.
    pub scope: Scope,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created_at: Timestamp,
    /// From then on it opens nothing.
    #[serde(default, with = "rfc3339::option")]
    pub expires_at: Option<Timestamp>,
    /// Since then it opens nothing.
    #[serde(default, with = "rfc3339::option")]
    pub revoked_at: Option<Timestamp>,
    /// How a secret is recognised.
    pub hash: SecretHash,
}

impl Key {
    /// Whether it opens anything at a moment.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires| now < expires)
    }
}

/// Characters of a key's public part.
const ID_LENGTH: usize = 12;
/// Characters of its secret: letters and digits, 238 bits.
pub const SECRET_LENGTH: usize = 40;
/// What every key begins with, so that people and scanners of sources know it.
const PREFIX: &str = "hsk_";

/// The public part of a key: names it in lists and logs, opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

impl KeyId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if text.len() == ID_LENGTH && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err("the public part of a key has 12 lower-case letters and digits")
    }
}

impl TryFrom<String> for KeyId {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

/// A key as its owner has it: `hsk_{id}_{secret}`. Neither shown nor logged but where it is made.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyToken {
    /// Which key it is.
    pub id: KeyId,
    secret: String,
}

impl fmt::Debug for KeyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

impl KeyToken {
    /// Makes one of random bytes.
    pub fn new(random: &[u8; ID_LENGTH + SECRET_LENGTH]) -> Self {
        const SMALL: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345679";
        const ALL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789AZ";
        let (id, secret) = random.split_at(ID_LENGTH);
        let id = id.iter().map(|byte| char::from(SMALL[usize::from(byte & 31)])).collect();
        let secret = secret.iter().map(|byte| char::from(ALL[usize::from(byte & 63)])).collect();
        Self { id: KeyId(id), secret }
    }

    /// Reads what a caller brings; `None`: it is no key of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let plain =
            secret.len() == SECRET_LENGTH && secret.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| Some(Self { id: id.parse().ok()?, secret: secret.to_owned() }))?
    }

    /// The whole, to be shown once.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }

    /// How it is recognised from now on.
    pub fn hash(&self, salt: [u8; SALT_BYTES]) -> SecretHash {
        SecretHash { salt: salt.to_vec(), sha256: digest(&salt, &self.secret).to_vec() }
    }
}

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

/// SHA-256 of a salt and a secret. A secret of 238 random bits needs no slow function: nobody tries
/// them all.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHash {
    #[serde(with = "serde_bytes")]
    salt: Vec<u8>,
    #[serde(with = "serde_bytes")]
    sha256: Vec<u8>,
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

impl SecretHash {
    /// Whether it is the secret of this key. Takes as long for any wrong one.
    pub fn is_of(&self, token: &KeyToken) -> bool {
        let found = digest(&self.salt, &token.secret);
        let differ = found.iter().zip(&self.sha256).fold(0, |sum, (a, b)| sum | (a ^ b));
        differ == 0 && self.sha256.len() == found.len()
    }
}

fn digest(salt: &[u8], secret: &str) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(secret.as_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(seed: u8) -> KeyToken {
        let mut random = [0; ID_LENGTH + SECRET_LENGTH];
        for (at, byte) in (0u8..).zip(&mut random) {
            *byte = seed.wrapping_mul(31).wrapping_add(at.wrapping_mul(7));
        }
        KeyToken::new(&random)
    }

    #[test]
    fn a_key_is_read_back_and_known_by_its_hash_alone() {
        let token = token(1);
        assert_eq!(KeyToken::parse(&token.reveal()), Some(token.clone()));
        let hash = token.hash([7; SALT_BYTES]);
        assert!(hash.is_of(&token) && !hash.is_of(&self::token(2)));
        assert_ne!(hash, token.hash([8; SALT_BYTES]));
        let shown = format!("{token:?} {hash:?}");
        assert!(!shown.contains(&token.secret), "{shown}");
        for no in ["", "hsk_", "hsk_abc_def", &token.reveal()[..50], &(token.reveal() + "x")] {
            assert_eq!(KeyToken::parse(no), None, "{no}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_is_not_granted() {
        use Permission::{Admin, Read, Write};
        let mut rights = Rights::default();
        assert!(rights.is_empty() && !rights.may_with(Read, EntityId(1)));
        rights.entities.insert(EntityId(1), [Read].into());
        assert!(rights.may_with(Read, EntityId(1)) && !rights.is_empty());
        assert!(!rights.may(Read) && !rights.may_with(Read, EntityId(2)));
        assert!(!rights.may_with(Write, EntityId(1)));
        assert!(Rights::of([Admin]).cover(&rights) && !rights.cover(&Rights::of([Read])));
        assert!(rights.cover(&rights) && Rights::of([Read]).cover(&rights));
    }

    #[test]
    fn a_key_ends_when_it_expires_or_is_revoked() {
        let at = |seconds: i64| Timestamp::EPOCH.plus_micros(seconds * 1_000_000);
        let mut key = Key {
            id: token(1).id,
            name: String::new(),
            scope: Scope::Platform,
            created_at: at(0),
            expires_at: Some(at(10)),
            revoked_at: None,
            hash: token(1).hash([0; SALT_BYTES]),
        };
        assert!(key.is_live(at(9)) && !key.is_live(at(10)));
        key.revoked_at = Some(at(5));
        assert!(!key.is_live(at(1)));
    }
}
