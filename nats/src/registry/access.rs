//! Users, what they may do, and keys.

use super::{Registered, RegistryFault, org_of};
use crate::{
    Wire,
    counter::{Counter, allocate},
    model::{get, load, put},
};
use domain::{
    Clock, DeviceId, OrgKey, SystemClock, Timestamp,
    access::{Grant, Key, KeyId, KeyToken, MAX_ENTITIES, Rights, SALT_BYTES, Scope, User, UserId},
    model::Record,
    subject::Subject,
};

/// Makes a user; one whom the issuer calls so already stays as it is.
pub async fn add_user(wire: &Wire, mut user: User) -> Result<Registered<User>, RegistryFault> {
    if let Some(found) = load(wire).await?.signed_in(&user.issuer, &user.subject) {
        return Ok(Registered::Unchanged(User::clone(found)));
    }
    user.id = UserId(allocate(wire, Counter::User, 1).await?.start);
    put(wire, &Record::User(user.clone()), 0).await?;
    Ok(Registered::Made(user))
}

/// Gives a user these rights in an org, in place of those that were; none at all take the user out.
pub async fn grant(
    wire: &Wire,
    org: &OrgKey,
    user: UserId,
    rights: Rights,
) -> Result<Grant, RegistryFault> {
    let directory = load(wire).await?;
    let org_id = org_of(&directory, org)?;
    if directory.user(user).is_none() {
        let text = format!("there is no user {user}; `haystack user list` names them");
        return Err(RegistryFault::Taken(text));
    }
    few_enough(&rights)?;
    let grant = Grant { org: org.clone(), org_id, user, rights };
    let record = Record::Grant(grant.clone());
    let expected = get(wire, &record.subject().to_string()).await?.map_or(0, |(last, _)| last);
    put(wire, &record, expected).await?;
    Ok(grant)
}

fn few_enough(rights: &Rights) -> Result<(), RegistryFault> {
    if rights.entities.len() <= MAX_ENTITIES {
        return Ok(());
    }
    Err(RegistryFault::Taken(format!("at most {MAX_ENTITIES} single entities can be named")))
}

/// What a new key is to open.
#[derive(Debug, Clone)]
pub enum Opens {
    /// Everything.
    Platform,
    /// Some of one org.
    Org(OrgKey, Rights),
    /// The telemetry of one device.
    Device(DeviceId),
}

/// Makes a key. The token is in nobody's hands but the caller's: it can't be shown again.
pub async fn add_key(
    wire: &Wire,
    name: String,
    opens: Opens,
    expires_at: Option<Timestamp>,
) -> Result<(Key, KeyToken), RegistryFault> {
    let token = new_token();
    let key = add_key_as(wire, &token, name, opens, expires_at).await?;
    Ok((key, token))
}

/// The same with a token that was made before.
pub async fn add_key_as(
    wire: &Wire,
    token: &KeyToken,
    name: String,
    opens: Opens,
    expires_at: Option<Timestamp>,
) -> Result<Key, RegistryFault> {
    let directory = load(wire).await?;
    let scope = match opens {
        Opens::Platform => Scope::Platform,
        Opens::Org(org, rights) => {
            few_enough(&rights)?;
            let org_id = org_of(&directory, &org)?;
            Scope::Org { org, org_id, rights }
        }
        Opens::Device(device) => {
            let text = || format!("there is no device {device}");
            let found = directory.device(&device);
            let found = found.ok_or_else(|| RegistryFault::Taken(text()))?;
            Scope::Device { org: found.org.clone(), org_id: found.org_id, device: device.clone() }
        }
    };
    let mut salt = [0; SALT_BYTES];
    fill(&mut salt);
    let (id, hash) = (token.id.clone(), token.hash(salt));
    let created_at = SystemClock.now();
    let key = Key { id, name, scope, created_at, expires_at, revoked_at: None, hash };
    put(wire, &Record::Key(key.clone()), 0).await?;
    Ok(key)
}

/// A token that nobody else has.
pub fn new_token() -> KeyToken {
    let mut random = [0; 52];
    fill(&mut random);
    KeyToken::new(&random)
}

fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the system gives random numbers");
}

/// Lets a key open nothing any more; `None`: there is no such key.
pub async fn revoke_key(wire: &Wire, id: &KeyId) -> Result<Option<Key>, RegistryFault> {
    let subject = Subject::Model { org: None, kind: "key".to_owned(), id: id.to_string() };
    let Some((sequence, Record::Key(mut key))) = get(wire, &subject.to_string()).await? else {
        return Ok(None);
    };
    if key.revoked_at.is_none() {
        key.revoked_at = Some(SystemClock.now());
        put(wire, &Record::Key(key.clone()), sequence).await?;
    }
    Ok(Some(key))
}
