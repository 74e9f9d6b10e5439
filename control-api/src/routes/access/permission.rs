//! What users may do in orgs.

use super::{super::entity::org, of_org, user::sees};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    model::{self, Expected, etag},
    page::{Page, list},
    problem::Problem,
    shape,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{
    EntityId,
    access::{Grant, Permission, Permissions, Rights, UserId},
    model::{Org, Record},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use store::view::{Kind, Which};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list_permissions, grant)).routes(routes!(take_permissions))
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
/// In place of what the user might do there before. Whoever is not in an org of the caller's yet is brought
/// in by an admin of the platform.
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
    if !knows(&api, &caller, UserId(user_id)) {
        let detail =
            "there is no such user in your orgs; an admin of the platform brings in another";
        return Err(Problem::field("/user_id", detail));
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
    let was_in = api.directory.read().grants(UserId(user)).any(|grant| grant.org_id == org.id);
    if !was_in && !knows(&api, &caller, UserId(user)) {
        return Err(Problem::not_found("user"));
    }
    write_grant(&api, &caller, &org, user, Rights::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a user is there, as far as the caller may know: a number alone must not tell who it is.
fn knows(api: &Api, caller: &Caller, user: UserId) -> bool {
    let directory = api.directory.read();
    directory.user(user).is_some() && sees(caller, &directory, user)
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
