//! Keys: made, listed, revoked.

use super::{
    super::{
        entity::{OrgFilter, org, plain},
        moment::Moment,
    },
    of_org, parsed, short,
};
use crate::{
    Api,
    caller::{Caller, May},
    extract::{Json, Path, Query},
    model,
    page::answer,
    problem::Problem,
    shape,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{
    DeviceId, EntityId, OrgId, Timestamp,
    access::{Key, KeyId, Permission, Permissions, Rights, Scope},
};
use nats::registry::{self, Opens};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_keys, create_key)).routes(routes!(revoke_key))
}

/// A key, without its secret.
#[derive(Serialize, Deserialize, ToSchema)]
struct KeyView {
    /// Its public part.
    key_id: String,
    name: String,
    /// Its org; none where it opens every org.
    org_id: Option<i32>,
    #[schema(value_type = Vec<shape::Permission>)]
    permissions: Permissions,
    #[schema(value_type = shape::Entities)]
    entities: BTreeMap<EntityId, Permissions>,
    /// The one device whose telemetry it may send.
    device_id: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Moment,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Moment>,
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Moment>,
    /// The whole key: shown once, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl From<&Key> for KeyView {
    fn from(key: &Key) -> Self {
        let (rights, device_id) = match &key.scope {
            Scope::Platform => (Rights::of(Permission::ALL), None),
            Scope::Org { rights, .. } => (rights.clone(), None),
            Scope::Device { device, .. } => {
                (Rights::of([Permission::Telemetry]), Some(device.to_string()))
            }
        };
        Self {
            key_id: key.id.to_string(),
            name: key.name.clone(),
            org_id: key.scope.org().map(|(_, id)| id.0),
            permissions: rights.permissions,
            entities: rights.entities,
            device_id,
            created_at: Moment(key.created_at),
            expires_at: key.expires_at.map(Moment),
            revoked_at: key.revoked_at.map(Moment),
            key: None,
        }
    }
}

/// A key to be made: for an org, for a device, or for the platform.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "a program", "org_id": 1, "permissions": ["read", "write"]}))]
struct NewKey {
    #[schema(min_length = 1, max_length = 1024)]
    name: String,
    org_id: Option<i32>,
    /// It opens everything in every org.
    #[serde(default)]
    platform: bool,
    /// In the whole org.
    #[serde(default)]
    #[schema(value_type = Vec<shape::Permission>)]
    permissions: Permissions,
    /// For single entities, beside that, by their numbers.
    #[serde(default)]
    #[schema(value_type = shape::Entities)]
    entities: BTreeMap<EntityId, Permissions>,
    /// The one device whose telemetry it may send.
    #[schema(value_type = Option<shape::DeviceId>)]
    device_id: Option<String>,
    /// From then on it opens nothing.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Moment>,
}

/// List keys
#[utoipa::path(get, path = "/key", tag = "access", params(OrgFilter),
    responses((status = 200, description = "Those of orgs where the caller is an admin", body = Vec<KeyView>)))]
async fn list_keys(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<OrgFilter>,
) -> Result<Response, Problem> {
    let keys = api.directory.read().keys();
    let shown = keys.iter().filter(|key| {
        let org = key.scope.org().map(|(_, id)| id);
        admins(&caller, &key.scope) && filter.org_id.is_none_or(|id| org == Some(OrgId(id)))
    });
    Ok(answer(shown.map(|key| KeyView::from(&**key)).collect(), None))
}

/// Whether a caller is an admin of what a key opens.
fn admins(caller: &Caller, scope: &Scope) -> bool {
    match scope.org() {
        None => caller.may == May::All,
        Some((_, org)) => caller.may(org, Permission::Admin),
    }
}

/// Make a key
///
/// Its secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/key", tag = "access", request_body = NewKey, responses(
    (status = 201, description = "Made and live, with its secret", body = KeyView),
    (status = 409, description = "Somebody else was faster")))]
async fn create_key(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewKey>,
) -> Result<Response, Problem> {
    let name = plain("/name", new.name.clone())?;
    short("/name", &name)?;
    let opens = opens(&api, &caller, &new)?;
    let expires_at = new.expires_at.map(|moment| moment.0);
    if expires_at.is_some_and(|at: Timestamp| at <= api.clock.now()) {
        return Err(Problem::field("/expires_at", "it is over already"));
    }
    let wire = model::wire(&api, &caller);
    let (key, token) = registry::add_key(&wire, name, opens, expires_at).await?;
    model::known(&api).await?;
    let view = KeyView { key: Some(token.reveal()), ..KeyView::from(&key) };
    Ok((StatusCode::CREATED, axum::Json(view)).into_response())
}

/// What a new key opens, where the caller may give that away.
fn opens(api: &Api, caller: &Caller, new: &NewKey) -> Result<Opens, Problem> {
    let rights = Rights { permissions: new.permissions.clone(), entities: new.entities.clone() };
    if new.platform && (new.org_id.is_some() || new.device_id.is_some()) {
        let detail = "a key is of the platform, or of an org or a device of it";
        return Err(Problem::field("/platform", detail));
    }
    if let Some(device) = &new.device_id {
        let id: DeviceId = parsed("/device_id", device)?;
        let found = api.directory.read().device(&id).map(|device| device.org_id);
        let none = || Problem::field("/device_id", "there is no such device");
        let org_id = found.ok_or_else(none)?;
        if !caller.may(org_id, Permission::Admin) || new.org_id.is_some_and(|id| id != org_id.0) {
            return Err(none());
        }
        if !rights.is_empty() {
            let detail = "a device's key sends its telemetry, and may nothing else";
            return Err(Problem::field("/permissions", detail));
        }
        return Ok(Opens::Device(id));
    }
    let Some(id) = new.org_id else {
        if !rights.is_empty() {
            return Err(Problem::field("/org_id", "permissions are of an org: which?"));
        }
        if !new.platform {
            let detail = "which org? With `platform`: true instead, the key opens everything";
            return Err(Problem::field("/org_id", detail));
        }
        caller.require_platform()?;
        return Ok(Opens::Platform);
    };

    let org = org(api, caller, id, Permission::Admin)?;
    if rights.is_empty() {
        return Err(Problem::field("/permissions", "a key that opens nothing is of no use"));
    }
    of_org(api, org.id, &rights)?;
    Ok(Opens::Org(org.key.clone(), rights))
}

/// Revoke a key
///
/// It opens nothing any more, at once. Repeating it changes nothing.
#[utoipa::path(delete, path = "/key/{key_id}", tag = "access", params(("key_id" = String, Path)),
    responses(
        (status = 204, description = "It opens nothing any more"),
        (status = 409, description = "Somebody else was faster"),
    ))]
async fn revoke_key(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let none = || Problem::not_found("key");
    let id: KeyId = id.parse().map_err(|_| none())?;
    let key = api.directory.read().key(&id).cloned().ok_or_else(none)?;
    if !admins(&caller, &key.scope) {
        return Err(none());
    }
    registry::revoke_key(&model::wire(&api, &caller), &id).await?;
    model::known(&api).await?;
    Ok(StatusCode::NO_CONTENT)
}
