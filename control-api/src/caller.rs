//! Who calls, and what the caller may do.

use crate::{
    Api, auth,
    problem::Problem,
    shell::{hold, request_id},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use domain::{
    DeviceId, EntityId, OrgId, OrgKey,
    access::{KeyId, Permission, Rights, UserId},
    directory::Directory,
};
use nats::Author;
use std::{collections::BTreeMap, fmt};
use store::view::Seen;

/// By what somebody is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    User(UserId),
    Key(KeyId),
    Device(DeviceId),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user:{id}"),
            Self::Key(id) => write!(f, "key:{id}"),
            Self::Device(id) => write!(f, "device:{id}"),
        }
    }
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum May {
    /// Everything.
    All,
    /// This, by org.
    Orgs(BTreeMap<OrgId, Rights>),
    /// Send as one device of an org.
    Device(OrgKey, DeviceId),
}

/// Who calls. Its rights are those of the moment in which the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    pub(crate) name: String,
    pub(crate) may: May,
}

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = auth::caller(&parts.headers, api).await?;
        let many = || Problem::away("too many requests of yours at once; try again soon");
        hold(api.gate.requests_of.take(&caller).ok_or_else(many)?);
        tracing::debug!(caller = %caller.who, "known");
        Ok(caller)
    }
}

impl Caller {
    /// Whether the caller has anything to do with an org.
    fn knows(&self, org: OrgId) -> bool {
        match &self.may {
            May::All => true,
            May::Orgs(orgs) => orgs.get(&org).is_some_and(|rights| !rights.is_empty()),
            May::Device(..) => false,
        }
    }

    /// Whether anything of an org may be open to the caller.
    pub(crate) fn may_any(&self, org: OrgId) -> bool {
        self.knows(org)
    }

    /// Whether something is allowed in a whole org.
    pub(crate) fn may(&self, org: OrgId, permission: Permission) -> bool {
        match &self.may {
            May::All => true,
            May::Orgs(orgs) => orgs.get(&org).is_some_and(|rights| rights.may(permission)),
            May::Device(..) => false,
        }
    }

    /// Whether something is allowed for an entity of an org.
    pub(crate) fn may_with(&self, org: OrgId, permission: Permission, entity: EntityId) -> bool {
        match &self.may {
            May::All => true,
            May::Orgs(orgs) => {
                orgs.get(&org).is_some_and(|rights| rights.may_with(permission, entity))
            }
            May::Device(..) => false,
        }
    }

    /// Lets nobody past who may not; of another's org nobody learns that it is there.
    pub(crate) fn require(
        &self,
        org: OrgId,
        permission: Permission,
        what: &str,
    ) -> Result<(), Problem> {
        if self.may(org, permission) {
            return Ok(());
        }
        if !self.knows(org) {
            return Err(Problem::not_found(what));
        }
        Err(Problem::forbidden(format!("{} lacks the permission {permission} here", self.who)))
    }

    /// The same for things of the platform.
    pub(crate) fn require_platform(&self) -> Result<(), Problem> {
        match self.may {
            May::All => Ok(()),
            _ => Err(Problem::forbidden("only an admin of the platform may do this")),
        }
    }

    /// What the caller may see in databases.
    pub(crate) fn seen(&self, directory: &Directory) -> Seen {
        match &self.may {
            May::Device(..) => Seen::default(),
            May::All => {
                let orgs: Vec<i32> = directory.orgs().iter().map(|org| org.id.0).collect();
                Seen { whole: orgs.clone(), orgs, entities: Vec::new() }
            }
            May::Orgs(orgs) => {
                let known = orgs.iter().filter(|(_, rights)| !rights.is_empty());
                let whole = orgs.iter().filter(|(_, rights)| rights.may(Permission::Read));
                let single = orgs.values().flat_map(|rights| {
                    let named = rights.entities.keys();
                    named.filter(|entity| rights.may_with(Permission::Read, **entity))
                });
                Seen {
                    orgs: known.map(|(org, _)| org.0).collect(),
                    whole: whole.map(|(org, _)| org.0).collect(),
                    entities: single.map(|entity| entity.0).collect(),
                }
            }
        }
    }

    /// On whose behalf messages are written.
    pub(crate) fn author(&self) -> Author {
        let who = format!("{} {}", self.who, self.name);
        Author { who: who.trim_end().to_owned(), request_id: Some(request_id()) }
    }
}
