//! Users, what they may do, and keys.

use super::{Registered, RegistryFault, org_of};
use crate::{
    Wire,
    counter::{Counter, claim},
    model::{ModelFault, get, look, put},
};
use domain::{
    Clock, DeviceId, EntityId, OrgId, OrgKey, SystemClock, Timestamp,
    access::{Grant, Key, KeyId, KeyToken, MAX_ENTITIES, Rights, SALT_BYTES, Scope, User, UserId},
    directory::Directory,
    model::Record,
    subject::Subject,
};

/// Makes a user; one whom the issuer calls so already stays as it is, also where two are made at once.
pub async fn add_user(wire: &Wire, mut user: User) -> Result<Registered<User>, RegistryFault> {
    let known = |model: &Directory| {
        (model.signed_in(&user.issuer, &user.subject).cloned(), model.users_are_unreadable())
    };
    let (found, unreadable) = look(wire, known).await?;
    if unreadable && found.is_none() {
        let text = "a user's record was written by a later release: the user may be there; update this one";
        return Err(RegistryFault::Taken(text.to_owned()));
    }
    if let Some(found) = found {
        return Ok(Registered::Unchanged(User::clone(&found)));
    }
    // Whoever is first to say which number this subject has, says it for all; whoever is first to
    // write the user under it makes it.
    let name = format!("{}:{}{}", user.issuer.len(), user.issuer, user.subject);
    user.id = UserId(claim(wire, Counter::User, &name).await?);
    let record = Record::User(user.clone());
    match put(wire, &record, 0).await {
        Err(ModelFault::Conflict(subject)) => match get(wire, &subject).await? {
            Some((_, Record::User(found))) => Ok(Registered::Unchanged(found)),
            _ => Err(ModelFault::Conflict(subject).into()),
        },
        done => done.map(|_| Registered::Made(user)).map_err(Into::into),
    }
}

/// Gives a user these rights in an org, in place of those that were; none at all take the user out.
pub async fn grant(
    wire: &Wire,
    org: &OrgKey,
    user: UserId,
    rights: Rights,
) -> Result<Grant, RegistryFault> {
    let known = |model: &Directory| {
        let org_id = org_of(model, org)?;
        within(model, org, org_id, &rights)?;
        Ok::<_, RegistryFault>((org_id, model.user(user).is_some()))
    };
    let (org_id, is_user) = look(wire, known).await??;
    if !is_user {
        let text = format!("there is no user {user}; `haystack user list` names them");
        return Err(RegistryFault::Taken(text));
    }
    let grant = Grant { org: org.clone(), org_id, user, rights };
    let record = Record::Grant(grant.clone());
    let expected = get(wire, &record.subject().to_string()).await?.map_or(0, |(last, _)| last);
    put(wire, &record, expected).await?;
    Ok(grant)
}

/// Refuses rights about what is not of the org.
fn within(
    model: &Directory,
    org: &OrgKey,
    org_id: OrgId,
    rights: &Rights,
) -> Result<(), RegistryFault> {
    let taken = |text: String| Err(RegistryFault::Taken(text));
    if rights.entities.len() > MAX_ENTITIES {
        return taken(format!("at most {MAX_ENTITIES} single entities can be named"));
    }
    let of_org = |id: EntityId| model.entity(id).is_some_and(|entity| entity.org_id == org_id);
    match rights.entities.keys().find(|id| !of_org(**id)) {
        Some(id) => taken(format!("org {org} has no entity {id}")),
        None => Ok(()),
    }
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
    let scope = look(wire, |model| scope(model, opens)).await??;
    let mut salt = [0; SALT_BYTES];
    fill(&mut salt);
    let (id, hash) = (token.id.clone(), token.hash(salt));
    let created_at = SystemClock.now();
    let key = Key { id, name, scope, created_at, expires_at, revoked_at: None, hash };
    put(wire, &Record::Key(key.clone()), 0).await?;
    Ok(key)
}

fn scope(model: &Directory, opens: Opens) -> Result<Scope, RegistryFault> {
    Ok(match opens {
        Opens::Platform => Scope::Platform,
        Opens::Org(org, rights) => {
            let org_id = org_of(model, &org)?;
            within(model, &org, org_id, &rights)?;
            Scope::Org { org, org_id, rights }
        }
        Opens::Device(device) => {
            let text = || format!("there is no device {device}");
            let found = model.device(&device);
            let found = found.ok_or_else(|| RegistryFault::Taken(text()))?;
            Scope::Device { org: found.org.clone(), org_id: found.org_id, device }
        }
    })
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

/// Lets a user in again, or not any more; `None`: there is no such user.
pub async fn set_user_active(
    wire: &Wire,
    id: UserId,
    active: bool,
) -> Result<Option<User>, RegistryFault> {
    let subject = Subject::Model { org: None, kind: "user".to_owned(), id: id.to_string() };
    let Some((sequence, Record::User(mut user))) = get(wire, &subject.to_string()).await? else {
        return Ok(None);
    };
    if user.active != active {
        user.active = active;
        put(wire, &Record::User(user.clone()), sequence).await?;
    }
    Ok(Some(user))
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
