//! Orgs, users, what they may do, and keys.

use super::{
    entity::{keepable, org, plain},
    moment::Moment,
};
use crate::{
    Api,
    caller::{Caller, May},
    extract::{Json, Path, Query},
    model::{self, Expected, etag},
    page::{Page, answer, list, one},
    problem::Problem,
    shape,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{
    DeviceId, EntityId, OrgId, OrgKey, Timestamp,
    access::{
        Grant, Key, KeyId, MAX_ENTITIES, Permission, Permissions, Rights, Scope, User, UserId,
    },
    model::{MAX_NAME, Org, Record},
};
use nats::registry::{self, Opens, Registered};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::view::{self, Kind, Which};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_orgs, create_org))
        .routes(routes!(show_org))
        .routes(routes!(audit))
        .routes(routes!(list_permissions, grant))
        .routes(routes!(take_permissions))
        .routes(routes!(list_users, create_user))
        .routes(routes!(me))
        .routes(routes!(show_user, change_user))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
}

/// An org.
#[derive(Serialize, Deserialize, ToSchema)]
struct OrgView {
    org_id: i32,
    org_key: String,
    name: String,
    revision: u64,
}

/// An org to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewOrg {
    /// a-z, 0-9 and _, a letter first, at most 31; it can't be changed later.
    #[schema(pattern = "^[a-z][a-z0-9_]{0,30}$")]
    org_key: String,
    /// For people; left out: the key.
    #[schema(min_length = 1, max_length = 1024)]
    name: Option<String>,
}

/// List orgs
#[utoipa::path(get, path = "/org", tag = "access", params(Page),
    responses((status = 200, description = "Those that the caller has to do with", body = Vec<OrgView>)))]
async fn list_orgs(
    State(api): State<Api>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    list::<OrgView>(&api, &caller, Kind::Org, &Which::default(), &page).await
}

/// Show an org
#[utoipa::path(get, path = "/org/{org_id}", tag = "access", params(("org_id" = i32, Path)),
    responses((status = 200, description = "The org", body = OrgView)))]
async fn show_org(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Response, Problem> {
    let which = Which { number: Some(id.into()), ..Which::default() };
    let view: OrgView = one(&api, &caller, Kind::Org, &which, "org").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Make an org
///
/// Repeating it changes nothing.
#[utoipa::path(post, path = "/org", tag = "access", request_body = NewOrg, responses(
    (status = 201, description = "Made, and applied by the primary", body = OrgView),
    (status = 200, description = "It was there", body = OrgView),
    (status = 409, description = "Somebody else was faster")))]
async fn create_org(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewOrg>,
) -> Result<Response, Problem> {
    caller.require_platform()?;
    let key: OrgKey = parsed("/org_key", &new.org_key)?;
    let name = plain("/name", new.name.unwrap_or_else(|| key.to_string()))?;
    short("/name", &name)?;
    model::ready(&api).await?;
    let made = registry::add_org(&model::wire(&api, &caller), key, name).await?;
    model::settled(&api).await?;
    let status = match made {
        Registered::Made(_) => StatusCode::CREATED,
        Registered::Unchanged(_) => StatusCode::OK,
    };
    let which = Which { number: Some(made.into_inner().id.0.into()), ..Which::default() };
    let view: OrgView = one(&api, &caller, Kind::Org, &which, "org").await?;
    Ok((status, etag(view.revision), axum::Json(view)).into_response())
}

fn parsed<T: std::str::FromStr>(pointer: &str, text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Problem::field(pointer, error.to_string()))
}

fn short(pointer: &str, text: &str) -> Result<(), Problem> {
    if (1..=MAX_NAME).contains(&text.len()) {
        return Ok(());
    }
    Err(Problem::field(pointer, format!("1 to {MAX_NAME} bytes are expected")))
}

/// A change of the model.
#[derive(Serialize, Deserialize, ToSchema)]
struct ChangeView {
    revision: i64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Moment,
    /// Who.
    changed_by: String,
    /// By which request.
    request_id: Option<String>,
    /// What.
    subject: String,
    /// As it was, where that is known.
    #[schema(value_type = Option<Object>)]
    before: Option<serde_json::Value>,
    /// As it is.
    #[schema(value_type = Object)]
    after: serde_json::Value,
}

/// Which changes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditFilter {
    /// Before this revision: go on with the last of the page before.
    before: Option<i64>,
    /// Rows, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Who changed what
///
/// The last change first.
#[utoipa::path(get, path = "/org/{org_id}/audit", tag = "access",
    params(("org_id" = i32, Path), AuditFilter),
    responses((status = 200, description = "Changes", body = Vec<ChangeView>)))]
async fn audit(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(filter): Query<AuditFilter>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, id, Permission::Admin)?;
    let seen = caller.seen(&api.directory.read());
    let limit = Page { limit: filter.limit, cursor: None }.limit()?;
    let changes =
        view::changes::<ChangeView>(&api.database, &seen, org.id, filter.before, limit).await?;
    Ok(answer(changes, None))
}

/// What a user may do in an org.
#[derive(Serialize, Deserialize, ToSchema)]
struct GrantView {
    org_id: i32,
    user_id: i32,
    #[schema(value_type = Vec<shape::Permission>)]
    permissions: Permissions,
    #[schema(value_type = shape::Entities)]
    entities: BTreeMap<EntityId, Permissions>,
    revision: u64,
}

/// What a user may do from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    user_id: i32,
    /// In the whole org.
    #[serde(default)]
    #[schema(value_type = Vec<shape::Permission>)]
    permissions: Permissions,
    /// For single entities, beside that, by their numbers.
    #[serde(default)]
    #[schema(value_type = shape::Entities)]
    entities: BTreeMap<EntityId, Permissions>,
}

/// Who may do what in an org
#[utoipa::path(get, path = "/org/{org_id}/permission", tag = "access",
    params(("org_id" = i32, Path), Page),
    responses((status = 200, description = "A page of them", body = Vec<GrantView>)))]
async fn list_permissions(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, id, Permission::Admin)?;
    let which = Which { org: Some(org.id.0), ..Which::default() };
    list::<GrantView>(&api, &caller, Kind::Grant, &which, &page).await
}

/// Let a user do things in an org
///
/// In place of what the user might do there before.
#[utoipa::path(post, path = "/org/{org_id}/permission", tag = "access", request_body = NewGrant,
    params(("org_id" = i32, Path)),
    responses(
        (status = 200, description = "In force, and applied by the primary", body = GrantView),
        (status = 409, description = "Somebody else changes it again and again"),
    ))]
async fn grant(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Json(new): Json<NewGrant>,
) -> Result<Response, Problem> {
    let NewGrant { user_id, permissions, entities } = new;
    let rights = Rights { permissions, entities };
    let org = org(&api, &caller, id, Permission::Admin)?;
    if api.directory.read().user(UserId(user_id)).is_none() {
        return Err(Problem::field("/user_id", "there is no such user"));
    }
    let (grant, revision) = write_grant(&api, &caller, &org, user_id, rights).await?;
    let Grant { org_id, user, rights: Rights { permissions, entities }, .. } = grant;
    let view = GrantView { org_id: org_id.0, user_id: user.0, permissions, entities, revision };
    Ok((etag(revision), axum::Json(view)).into_response())
}

/// Take a user out of an org
#[utoipa::path(delete, path = "/org/{org_id}/permission/{user_id}", tag = "access",
    params(("org_id" = i32, Path), ("user_id" = i32, Path)),
    responses(
        (status = 204, description = "The user may do nothing there any more"),
        (status = 409, description = "Somebody else changes it again and again"),
    ))]
async fn take_permissions(
    State(api): State<Api>,
    caller: Caller,
    Path((id, user)): Path<(i32, i32)>,
) -> Result<StatusCode, Problem> {
    let org = org(&api, &caller, id, Permission::Admin)?;
    let there = api.directory.read().user(UserId(user)).is_some();
    if !there {
        return Err(Problem::not_found("user"));
    }
    write_grant(&api, &caller, &org, user, Rights::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn write_grant(
    api: &Api,
    caller: &Caller,
    org: &Org,
    user: i32,
    rights: Rights,
) -> Result<(Grant, u64), Problem> {
    of_org(api, org.id, &rights)?;
    let grant = Grant { org: org.key.clone(), org_id: org.id, user: UserId(user), rights };
    let record = Record::Grant(grant.clone());
    let revision = model::write(api, caller, &record, Expected::Last).await?;
    Ok((grant, revision))
}

/// Rights name entities of their own org, and not too many.
fn of_org(api: &Api, org: OrgId, rights: &Rights) -> Result<(), Problem> {
    if rights.entities.len() > MAX_ENTITIES {
        return Err(Problem::field("/entities", format!("at most {MAX_ENTITIES} are taken")));
    }
    let directory = api.directory.read();
    let strange = |id: &&EntityId| directory.entity(**id).is_none_or(|it| it.org_id != org);
    match rights.entities.keys().find(strange) {
        Some(id) => Err(Problem::field(format!("/entities/{id}"), "no entity of this org")),
        None => Ok(()),
    }
}

/// A user.
#[derive(Serialize, Deserialize, ToSchema)]
struct UserView {
    user_id: i32,
    name: String,
    email: Option<String>,
    /// Whose tokens name the user.
    issuer: String,
    /// What the issuer calls the user (`sub`).
    subject: String,
    /// May do everything.
    platform_admin: bool,
    active: bool,
}

impl From<&User> for UserView {
    fn from(user: &User) -> Self {
        let User { id, name, email, issuer, subject, platform_admin, active } = user.clone();
        Self { user_id: id.0, name, email, issuer, subject, platform_admin, active }
    }
}

/// A user to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    #[schema(min_length = 1, max_length = 1024)]
    name: String,
    email: Option<String>,
    /// Whose tokens name the user (`iss`).
    #[schema(min_length = 1, max_length = 1024)]
    issuer: String,
    /// What the issuer calls the user (`sub`).
    #[schema(min_length = 1, max_length = 1024)]
    subject: String,
    /// May do everything in every org.
    #[serde(default)]
    platform_admin: bool,
}

/// What changes about a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChange {
    #[schema(min_length = 1, max_length = 1024)]
    name: Option<String>,
    email: Option<String>,
    platform_admin: Option<bool>,
    /// Not any more: nobody is let in by this name.
    active: Option<bool>,
}

/// List users
///
/// All for an admin of the platform; for an admin of orgs those who may do something there.
#[utoipa::path(get, path = "/user", tag = "access",
    responses((status = 200, description = "By number", body = Vec<UserView>)))]
async fn list_users(State(api): State<Api>, caller: Caller) -> Result<Response, Problem> {
    let directory = api.directory.read();
    let users = directory.users();
    let shown = users.iter().filter(|user| sees(&caller, &directory, user.id));
    Ok(answer(shown.map(|user| UserView::from(&**user)).collect(), None))
}

/// Whether a caller may know of a user: its own, or of an org where it is an admin.
fn sees(caller: &Caller, directory: &domain::directory::Directory, user: UserId) -> bool {
    let mut grants = directory.grants(user).filter(|grant| !grant.rights.is_empty());
    caller.may == May::All
        || caller.who == crate::caller::Who::User(user)
        || grants.any(|grant| caller.may(grant.org_id, Permission::Admin))
}

/// Make a user
///
/// Repeating it changes nothing.
#[utoipa::path(post, path = "/user", tag = "access", request_body = NewUser, responses(
    (status = 201, description = "Made, and applied by the primary", body = UserView),
    (status = 200, description = "The issuer's subject was known", body = UserView),
    (status = 409, description = "Somebody else was faster")))]
async fn create_user(
    State(api): State<Api>,
    caller: Caller,
    Json(new): Json<NewUser>,
) -> Result<Response, Problem> {
    caller.require_platform()?;
    let NewUser { name, email, issuer, subject, platform_admin } = new;
    for (pointer, text) in [("/name", &name), ("/issuer", &issuer), ("/subject", &subject)] {
        short(pointer, text)?;
    }
    let id = UserId(i32::MAX);
    let user = User { id, name, email, issuer, subject, platform_admin, active: true };
    keepable(&Record::User(user.clone()))?;
    model::ready(&api).await?;
    let made = registry::add_user(&model::wire(&api, &caller), user).await?;
    model::settled(&api).await?;
    let status = match made {
        Registered::Made(_) => StatusCode::CREATED,
        Registered::Unchanged(_) => StatusCode::OK,
    };
    Ok((status, axum::Json(UserView::from(&made.into_inner()))).into_response())
}

/// Show a user
#[utoipa::path(get, path = "/user/{user_id}", tag = "access", params(("user_id" = i32, Path)),
    responses((status = 200, description = "The user", body = UserView)))]
async fn show_user(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<axum::Json<UserView>, Problem> {
    let directory = api.directory.read();
    let user = directory.user(UserId(id)).filter(|user| sees(&caller, &directory, user.id));
    user.map(|user| axum::Json(UserView::from(&**user))).ok_or_else(|| Problem::not_found("user"))
}

/// Change a user
#[utoipa::path(patch, path = "/user/{user_id}", tag = "access", request_body = UserChange,
    params(("user_id" = i32, Path)),
    responses(
        (status = 200, description = "Changed, and applied by the primary", body = UserView),
        (status = 409, description = "Somebody else changes it again and again"),
    ))]
async fn change_user(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Json(change): Json<UserChange>,
) -> Result<axum::Json<UserView>, Problem> {
    caller.require_platform()?;
    let found = api.directory.read().user(UserId(id)).cloned();
    let mut user = User::clone(&*found.ok_or_else(|| Problem::not_found("user"))?);
    if let Some(name) = change.name {
        short("/name", &name)?;
        user.name = name;
    }
    user.email = change.email.or(user.email);
    user.platform_admin = change.platform_admin.unwrap_or(user.platform_admin);
    user.active = change.active.unwrap_or(user.active);
    let record = Record::User(user.clone());
    keepable(&record)?;
    model::write(&api, &caller, &record, Expected::Last).await?;
    Ok(axum::Json(UserView::from(&user)))
}

/// Who calls.
#[derive(Serialize, Deserialize, ToSchema)]
struct Me {
    /// E.g. `user:3` or `key:abcdefghijkm`.
    who: String,
    name: String,
    /// May do everything.
    platform_admin: bool,
    /// What the caller may do, by org.
    #[schema(value_type = BTreeMap<String, shape::Rights>)]
    orgs: BTreeMap<OrgId, Rights>,
    /// The device that the caller is.
    device_id: Option<String>,
}

/// Who am I?
#[utoipa::path(get, path = "/me", tag = "access",
    responses((status = 200, description = "Who calls, and what the caller may do", body = Me)))]
async fn me(caller: Caller) -> axum::Json<Me> {
    let (orgs, device_id) = match &caller.may {
        May::All => (BTreeMap::new(), None),
        May::Orgs(orgs) => (orgs.clone(), None),
        May::Device(_, device) => (BTreeMap::new(), Some(device.to_string())),
    };
    let platform_admin = caller.may == May::All;
    axum::Json(Me {
        who: caller.who.to_string(),
        name: caller.name,
        platform_admin,
        orgs,
        device_id,
    })
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

/// A key to be made: for an org, for a device, or (neither) for the platform.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    #[schema(min_length = 1, max_length = 1024)]
    name: String,
    org_id: Option<i32>,
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
#[utoipa::path(get, path = "/key", tag = "access", params(super::entity::OrgFilter),
    responses((status = 200, description = "Those of orgs where the caller is an admin", body = Vec<KeyView>)))]
async fn list_keys(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<super::entity::OrgFilter>,
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
        caller.require_platform()?;
        if !rights.is_empty() {
            return Err(Problem::field("/org_id", "permissions are of an org: which?"));
        }
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
