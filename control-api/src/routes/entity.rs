//! Entities and what their tags mean.

use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    idempotency,
    model::{self, Expected, etag, expected},
    page::{Page, list, one},
    problem::Problem,
    shape,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use domain::{
    EntityId, OrgId,
    access::Permission,
    model::{Entity, Gone, GoneKind, Org, Record, TagDef},
    tags::Tags,
};
use nats::counter::{Counter, allocate};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::view::{Kind, Which};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_entities, create_entity))
        .routes(routes!(show_entity, replace_entity, delete_entity))
        .routes(routes!(list_tag_defs))
        .routes(routes!(show_tag_def, write_tag_def, delete_tag_def))
}

/// The org of a request's body; of one that the caller may not see nobody learns that it is there.
pub(super) fn org(
    api: &Api,
    caller: &Caller,
    id: i32,
    permission: Permission,
) -> Result<Arc<Org>, Problem> {
    caller.require(OrgId(id), permission, "org")?;
    let org = api.directory.read().org_by_id(OrgId(id)).cloned();
    org.ok_or_else(|| Problem::not_found("org"))
}

/// An entity.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct EntityView {
    entity_id: i32,
    org_id: i32,
    name: String,
    #[schema(value_type = shape::Tags)]
    tags: Tags,
    /// What `If-Match` takes.
    revision: u64,
}

impl EntityView {
    fn of(entity: Entity, revision: u64) -> Self {
        let Entity { id, org_id, name, tags, .. } = entity;
        Self { entity_id: id.0, org_id: org_id.0, name, tags, revision }
    }
}

/// An entity to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEntity {
    org_id: i32,
    #[schema(max_length = 1024)]
    name: String,
    #[serde(default)]
    #[schema(value_type = shape::Tags)]
    tags: Tags,
}

/// What an entity is from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EntityContent {
    #[schema(max_length = 1024)]
    name: String,
    #[schema(value_type = shape::Tags)]
    tags: Tags,
}

/// Which entities.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct EntityFilter {
    /// Of this org.
    org_id: Option<i32>,
    /// With this tag.
    tag: Option<String>,
}

/// List entities
#[utoipa::path(get, path = "/entity", tag = "model", params(EntityFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<EntityView>)))]
async fn list_entities(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<EntityFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let of_type = filter.tag.map(|tag| plain("/query/tag", tag)).transpose()?;
    let which = Which { org: filter.org_id, of_type, ..Which::default() };
    list::<EntityView>(&api, &caller, Kind::Entity, &which, &page).await
}

/// A text that databases take.
pub(super) fn plain(pointer: &str, text: String) -> Result<String, Problem> {
    if text.contains('\0') {
        return Err(Problem::field(pointer, "a text with a NUL in it"));
    }
    Ok(text)
}

/// Make an entity
///
/// With an `Idempotency-Key`, a request that is repeated makes one.
#[utoipa::path(post, path = "/entity", tag = "model", request_body = NewEntity,
    params(("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Names this request")),
    responses(
        (status = 201, description = "Made, and applied by the primary", body = EntityView),
        (status = 409, description = "Somebody else was faster"),
    ))]
async fn create_entity(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Json(new): Json<NewEntity>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, new.org_id, Permission::Model)?;
    let NewEntity { name, tags, .. } = new;
    let mut entity =
        Entity { id: EntityId(i32::MAX), org: org.key.clone(), org_id: org.id, name, tags };
    keepable(&Record::Entity(entity.clone()))?;
    model::ready(&api).await?;
    let body = serde_json::to_vec(&entity).unwrap_or_default();
    let key = idempotency::take(&api, &caller, Some(&org.key), "entity", &headers, &body).await?;
    let number = async {
        let ids = allocate(&api.wire, Counter::Entity, 1).await;
        ids.map(|ids| ids.start).map_err(nats::registry::RegistryFault::from)
    };
    entity.id = EntityId(match key {
        Some(mut key) => key.number(&api, number).await?,
        None => number.await?,
    });
    let record = Record::Entity(entity.clone());
    let revision = model::write(&api, &caller, &record, Expected::New).await?;
    let view = EntityView::of(entity, revision);
    Ok((StatusCode::CREATED, etag(revision), axum::Json(view)).into_response())
}

/// Whether every database can hold a record, before it costs anything.
pub(super) fn keepable(record: &Record) -> Result<(), Problem> {
    record.check().map_err(|why| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why.to_string()))
}

/// Show an entity
#[utoipa::path(get, path = "/entity/{entity_id}", tag = "model", params(("entity_id" = i32, Path)),
    responses((status = 200, description = "The entity, with its `ETag`", body = EntityView)))]
async fn show_entity(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Response, Problem> {
    let which = Which { number: Some(id.into()), ..Which::default() };
    let view: EntityView = one(&api, &caller, Kind::Entity, &which, "entity").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// The entity, where the caller may change it.
fn to_change(api: &Api, caller: &Caller, id: i32) -> Result<Entity, Problem> {
    let none = || Problem::not_found("entity");
    let entity = api.directory.read().entity(EntityId(id)).cloned().ok_or_else(none)?;
    if !caller.may_with(entity.org_id, Permission::Model, entity.id) {
        caller.require(entity.org_id, Permission::Model, "entity")?;
    }
    Ok(Entity::clone(&entity))
}

/// Change an entity
#[utoipa::path(put, path = "/entity/{entity_id}", tag = "model", request_body = EntityContent,
    params(("entity_id" = i32, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "Changed, and applied by the primary", body = EntityView),
        (status = 409, description = "Somebody else changes it again and again"),
        (status = 412, description = "It was changed since"),
    ))]
async fn replace_entity(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
    Json(content): Json<EntityContent>,
) -> Result<Response, Problem> {
    let before = to_change(&api, &caller, id)?;
    let entity = Entity { name: content.name, tags: content.tags, ..before };
    let record = Record::Entity(entity.clone());
    keepable(&record)?;
    let revision = model::write(&api, &caller, &record, expected(&headers)?).await?;
    Ok((etag(revision), axum::Json(EntityView::of(entity, revision))).into_response())
}

/// Take an entity away
///
/// Its values stay in the databases, and nobody sees them. One that holds the values of a device or a
/// poller stays.
#[utoipa::path(delete, path = "/entity/{entity_id}", tag = "model",
    params(("entity_id" = i32, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 204, description = "Gone, also in the primary"),
        (status = 409, description = "A device or a poller keeps its values there"),
        (status = 412, description = "It was changed since"),
    ))]
async fn delete_entity(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let found = to_change(&api, &caller, id);
    if found.is_err() && model::is_gone(&api, &caller, &format!("model.*.entity.{id}")).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let Entity { org, org_id, id, .. } = found?;
    if api.directory.read().is_in_use(id) {
        return Err(Problem::conflict("a device or a poller keeps its values there"));
    }
    let gone = Gone { org, org_id, kind: GoneKind::Entity, id: id.to_string() };
    model::write(&api, &caller, &Record::Gone(gone), expected(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a tag means.
#[derive(Serialize, Deserialize, ToSchema)]
struct TagDefView {
    org_id: i32,
    name: String,
    /// The Haystack kind of its values.
    value_kind: String,
    doc: String,
    /// What `If-Match` takes.
    revision: u64,
}

/// What a tag means from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TagDefContent {
    /// The Haystack kind of its values, e.g. `Marker`, `Number`, `Str`, `Ref`.
    value_kind: String,
    doc: String,
}

/// Which org.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OrgFilter {
    /// Of this org.
    pub(super) org_id: Option<i32>,
}

/// List tag definitions
#[utoipa::path(get, path = "/tag_def", tag = "model", params(OrgFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<TagDefView>)))]
async fn list_tag_defs(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<OrgFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let which = Which { org: filter.org_id, ..Which::default() };
    list::<TagDefView>(&api, &caller, Kind::TagDef, &which, &page).await
}

/// Show a tag definition
#[utoipa::path(get, path = "/tag_def/{org_id}/{name}", tag = "model",
    params(("org_id" = i32, Path), ("name" = String, Path, pattern = "^[a-z][A-Za-z0-9_]{0,127}$")),
    responses((status = 200, description = "The definition, with its `ETag`", body = TagDefView)))]
async fn show_tag_def(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, name)): Path<(i32, String)>,
) -> Result<Response, Problem> {
    let name = Some(plain("/path/name", name)?);
    let which = Which { org: Some(org_id), name, ..Which::default() };
    let view: TagDefView = one(&api, &caller, Kind::TagDef, &which, "tag definition").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Make or change a tag definition
#[utoipa::path(put, path = "/tag_def/{org_id}/{name}", tag = "model", request_body = TagDefContent,
    params(("org_id" = i32, Path), ("name" = String, Path, pattern = "^[a-z][A-Za-z0-9_]{0,127}$"), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "Written, and applied by the primary", body = TagDefView),
        (status = 409, description = "Somebody else changes it again and again"),
        (status = 412, description = "It was changed since"),
    ))]
async fn write_tag_def(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, name)): Path<(i32, String)>,
    headers: HeaderMap,
    Json(TagDefContent { value_kind, doc }): Json<TagDefContent>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, org_id, Permission::Model)?;
    let name = tag_name(name)?;
    let view = |revision| TagDefView {
        org_id,
        name: name.clone(),
        value_kind: value_kind.clone(),
        doc: doc.clone(),
        revision,
    };
    let record = Record::TagDef(TagDef {
        org: org.key.clone(),
        org_id: org.id,
        name: name.clone(),
        kind: value_kind.clone(),
        doc: doc.clone(),
    });
    keepable(&record)?;
    let revision = model::write(&api, &caller, &record, expected(&headers)?).await?;
    Ok((etag(revision), axum::Json(view(revision))).into_response())
}

/// The name of a tag, as Project Haystack has it: a lower-case letter, then letters, digits, `_`.
fn tag_name(name: String) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= domain::model::MAX_TAG_NAME
        && name.chars().all(plain);
    let rule = "a tag begins with a lower-case letter, and has letters, digits and _";
    if fits { Ok(name) } else { Err(Problem::field("/path/name", rule)) }
}

/// Take a tag definition away
#[utoipa::path(delete, path = "/tag_def/{org_id}/{name}", tag = "model",
    params(("org_id" = i32, Path), ("name" = String, Path, pattern = "^[a-z][A-Za-z0-9_]{0,127}$"), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 204, description = "Gone, also in the primary"),
        (status = 409, description = "Somebody else changes it again and again"),
        (status = 412, description = "It was changed since"),
    ))]
async fn delete_tag_def(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, name)): Path<(i32, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let org = org(&api, &caller, org_id, Permission::Model)?;
    let is_there = api.directory.read().tag_def(&org.key, &name).is_some();
    let gone = Gone { org: org.key.clone(), org_id: org.id, kind: GoneKind::TagDef, id: name };
    let gone = Record::Gone(gone);
    if !is_there {
        let before = model::is_gone(&api, &caller, &gone.subject().to_string()).await?;
        let none = || Problem::not_found("tag definition");
        return before.then_some(StatusCode::NO_CONTENT).ok_or_else(none);
    }
    model::write(&api, &caller, &gone, expected(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
