//! Users, and who the caller is.

use super::{super::entity::keepable, short};
use crate::{
    Api,
    caller::{Caller, May},
    extract::{Json, Path},
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
    OrgId,
    access::{Permission, Rights, User, UserId},
    model::Record,
    subject::Subject,
};
use nats::registry::{self, Registered};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(me))
        .routes(routes!(show_user, change_user))
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
pub(super) fn sees(
    caller: &Caller,
    directory: &domain::directory::Directory,
    user: UserId,
) -> bool {
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
    if let Some(name) = &change.name {
        short("/name", name)?;
    }
    let user = model::edit(
        &api,
        &caller,
        Subject::Model { org: None, kind: "user".to_owned(), id: id.to_string() },
        |record| {
            let Record::User(user) = record else { return Err(Problem::not_found("user")) };
            let User { name, email, platform_admin, active, .. } = user.clone();
            let user = User {
                name: change.name.clone().unwrap_or(name),
                email: change.email.clone().or(email),
                platform_admin: change.platform_admin.unwrap_or(platform_admin),
                active: change.active.unwrap_or(active),
                ..user
            };
            keepable(&Record::User(user.clone()))?;
            Ok((Record::User(user.clone()), user))
        },
    )
    .await?;
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
