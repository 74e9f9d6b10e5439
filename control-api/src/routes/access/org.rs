//! Orgs, and who changed what in them.

use super::{
    super::entity::{org, plain},
    super::moment::Moment,
    parsed, short,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    model::{self, etag},
    page::{Page, large_page, list, one},
    problem::Problem,
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use domain::{OrgKey, access::Permission};
use nats::registry::{self, Registered};
use serde::{Deserialize, Serialize};
use store::view::{self, Kind, Which};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_orgs, create_org))
        .routes(routes!(show_org))
        .routes(routes!(audit))
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
    /// Before this revision: go on with the last of the page before; a page may end early, where it is large.
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
    let changes = view::changes::<ChangeView>(
        &*api.reading(&caller).await?,
        &seen,
        org.id,
        filter.before,
        limit,
    )
    .await?;
    large_page(&api, &caller, &changes, None).await
}
