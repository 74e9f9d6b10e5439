//! Assets: the things that are looked after, and what kinds of them there are.

use super::{
    device::{shallow, written},
    entity::{OrgFilter, keepable, org, plain},
    moment::Moment,
};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    idempotency,
    model::{self, Expected, etag, expected},
    page::{Page, list, one},
    problem::{FieldProblem, Problem},
    shape,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use domain::{
    DeviceId, OrgKey, TypeId,
    access::Permission,
    directory::Directory,
    model::{Asset, AssetId, AssetType, Gone, GoneKind, Record},
    tags::Tags,
};
use nats::counter::{Counter, allocate};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::view::{Kind, Which};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(list_asset_types))
        .routes(routes!(show_asset_type, write_asset_type, delete_asset_type))
        .routes(routes!(list_assets, create_asset))
        .routes(routes!(show_asset, replace_asset, delete_asset))
}

/// A kind of asset.
#[derive(Serialize, Deserialize, ToSchema)]
struct AssetTypeView {
    org_id: i32,
    asset_type: String,
    name: String,
    /// What is measured or computed of such an asset, by name.
    #[schema(value_type = Object)]
    metric_definitions: Value,
    /// What computes the metrics.
    transformation_engine: Option<String>,
    /// What computes the health score.
    health_algorithm: Option<String>,
    /// What `If-Match` takes.
    revision: u64,
}

/// What a kind of asset is from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssetTypeContent {
    #[schema(max_length = 1024)]
    name: String,
    /// What is measured or computed of such an asset, by name.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Value>, example = json!({"cop": {"unit": "1", "doc": "cooling over power"}}))]
    metric_definitions: Map<String, Value>,
    /// What computes the metrics.
    transformation_engine: Option<String>,
    /// What computes the health score.
    health_algorithm: Option<String>,
}

/// List kinds of assets
#[utoipa::path(get, path = "/asset_type", tag = "model", params(OrgFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<AssetTypeView>)))]
async fn list_asset_types(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<OrgFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let which = Which { org: filter.org_id, ..Which::default() };
    list::<AssetTypeView>(&api, &caller, Kind::AssetType, &which, &page).await
}

/// Show a kind of asset
#[utoipa::path(get, path = "/asset_type/{org_id}/{asset_type}", tag = "model",
    params(("org_id" = i32, Path), ("asset_type" = shape::TypeId, Path)),
    responses((status = 200, description = "The kind, with its `ETag`", body = AssetTypeView)))]
async fn show_asset_type(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, id)): Path<(i32, TypeId)>,
) -> Result<Response, Problem> {
    let which = Which { org: Some(org_id), name: Some(id.to_string()), ..Which::default() };
    let view: AssetTypeView = one(&api, &caller, Kind::AssetType, &which, "asset type").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Make or change a kind of asset
#[utoipa::path(put, path = "/asset_type/{org_id}/{asset_type}", tag = "model", request_body = AssetTypeContent,
    params(("org_id" = i32, Path), ("asset_type" = shape::TypeId, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "Written, and applied by the primary", body = AssetTypeView),
        (status = 409, description = "Somebody else changes it again and again"),
        (status = 412, description = "It was changed since"),
    ))]
async fn write_asset_type(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, id)): Path<(i32, String)>,
    headers: HeaderMap,
    Json(content): Json<AssetTypeContent>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, org_id, Permission::Model)?;
    let id = TypeId::parse(&id).map_err(|why| Problem::field("/path/asset_type", why.rule))?;
    let metric_definitions = Value::Object(content.metric_definitions);
    shallow("/metric_definitions".to_owned(), &metric_definitions)?;
    let kind = AssetType {
        org: org.key.clone(),
        org_id: org.id,
        id,
        name: content.name,
        metric_definitions,
        transformation_engine: content.transformation_engine,
        health_algorithm: content.health_algorithm,
    };
    let record = Record::AssetType(kind.clone());
    keepable(&record)?;
    let revision = model::write(&api, &caller, &record, expected(&headers)?).await?;
    let view = AssetTypeView {
        org_id,
        asset_type: kind.id.to_string(),
        name: kind.name,
        metric_definitions: kind.metric_definitions,
        transformation_engine: kind.transformation_engine,
        health_algorithm: kind.health_algorithm,
        revision,
    };
    Ok((etag(revision), axum::Json(view)).into_response())
}

/// Take a kind of asset away
#[utoipa::path(delete, path = "/asset_type/{org_id}/{asset_type}", tag = "model",
    params(("org_id" = i32, Path), ("asset_type" = shape::TypeId, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 204, description = "Gone, also in the primary"),
        (status = 409, description = "There are assets of this kind"),
        (status = 412, description = "It was changed since"),
    ))]
async fn delete_asset_type(
    State(api): State<Api>,
    caller: Caller,
    Path((org_id, id)): Path<(i32, TypeId)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let org = org(&api, &caller, org_id, Permission::Model)?;
    let (is_there, is_used) = {
        let directory = api.directory.read();
        let is_used = directory.assets(org.id).iter().any(|asset| asset.asset_type == id);
        (directory.asset_type(&org.key, &id).is_some(), is_used)
    };
    let id = id.to_string();
    let gone = Gone { org: org.key.clone(), org_id: org.id, kind: GoneKind::AssetType, id };
    let gone = Record::Gone(gone);
    if !is_there {
        let before = model::is_gone(&api, &caller, &gone.subject().to_string()).await?;
        let none = || Problem::not_found("asset type");
        return before.then_some(StatusCode::NO_CONTENT).ok_or_else(none);
    }
    if is_used {
        return Err(Problem::conflict("there are assets of this type; take them away first"));
    }
    model::write(&api, &caller, &gone, expected(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An asset.
#[derive(Serialize, Deserialize, ToSchema)]
struct AssetView {
    asset_id: i32,
    org_id: i32,
    asset_type: String,
    name: String,
    /// Devices that observe it. A device observes one asset: the one that named it last.
    devices: Vec<String>,
    #[schema(value_type = shape::Tags)]
    tags: Tags,
    /// Computed, as the next three are; null where nothing computes it.
    health_score: Option<f64>,
    #[schema(value_type = Option<String>, format = DateTime)]
    health_score_updated_at: Option<Moment>,
    health_score_computed_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_telemetry_at: Option<Moment>,
    /// What `If-Match` takes.
    revision: u64,
}

/// An asset to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAsset {
    org_id: i32,
    /// One of the org's.
    #[schema(value_type = shape::TypeId)]
    asset_type: TypeId,
    #[schema(max_length = 1024)]
    name: String,
    /// Devices of the org that observe it.
    #[serde(default)]
    #[schema(value_type = Vec<shape::DeviceId>)]
    devices: Vec<DeviceId>,
    #[serde(default)]
    #[schema(value_type = shape::Tags)]
    tags: Tags,
}

/// What an asset is from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssetContent {
    /// One of the org's.
    #[schema(value_type = shape::TypeId)]
    asset_type: TypeId,
    #[schema(max_length = 1024)]
    name: String,
    /// Devices of the org that observe it.
    #[schema(value_type = Vec<shape::DeviceId>)]
    devices: Vec<DeviceId>,
    #[schema(value_type = shape::Tags)]
    tags: Tags,
}

/// Which assets.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AssetFilter {
    /// Of this org.
    org_id: Option<i32>,
    /// Of this type.
    asset_type: Option<String>,
}

/// List assets
#[utoipa::path(get, path = "/asset", tag = "model", params(AssetFilter, Page),
    responses((status = 200, description = "A page of them", body = Vec<AssetView>)))]
async fn list_assets(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<AssetFilter>,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    let of_type = filter.asset_type.map(|it| plain("/query/asset_type", it)).transpose()?;
    let which = Which { org: filter.org_id, of_type, ..Which::default() };
    list::<AssetView>(&api, &caller, Kind::Asset, &which, &page).await
}

/// Show an asset
#[utoipa::path(get, path = "/asset/{asset_id}", tag = "model", params(("asset_id" = i32, Path)),
    responses((status = 200, description = "The asset, with its `ETag`", body = AssetView)))]
async fn show_asset(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Response, Problem> {
    let which = Which { number: Some(id.into()), ..Which::default() };
    let view: AssetView = one(&api, &caller, Kind::Asset, &which, "asset").await?;
    Ok((etag(view.revision), axum::Json(view)).into_response())
}

/// Whether the org has what an asset names; what it has not is named.
fn named(
    directory: &Directory,
    org: &OrgKey,
    asset_type: &TypeId,
    devices: &[DeviceId],
) -> Result<(), Problem> {
    let none = |pointer: String, what: &str| FieldProblem {
        pointer,
        detail: format!("the org has no such {what}"),
    };
    let kind = directory.asset_type(org, asset_type);
    let kind = kind.is_none().then(|| none("/asset_type".to_owned(), "asset type"));
    let unknown =
        |(_, id): &(usize, &DeviceId)| directory.device(id).is_none_or(|device| device.org != *org);
    let unknown = devices.iter().enumerate().filter(unknown);
    let unknown = unknown.map(|(at, _)| none(format!("/devices/{at}"), "device"));
    let wrong: Vec<FieldProblem> = kind.into_iter().chain(unknown).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Problem::fields(wrong)) }
}

/// Writes an asset; the answer shows it as the primary does.
async fn write(
    api: &Api,
    caller: &Caller,
    asset: Asset,
    expected: Expected,
    status: StatusCode,
) -> Result<Response, Problem> {
    let (id, org) = (asset.id, asset.org_id);
    model::write(api, caller, &Record::Asset(asset), expected).await?;
    let which = Which { number: Some(id.0.into()), ..Which::default() };
    let view: AssetView = written(api, org, Kind::Asset, which, "asset").await?;
    Ok((status, etag(view.revision), axum::Json(view)).into_response())
}

/// Make an asset
///
/// With an `Idempotency-Key`, a request that is repeated makes one.
#[utoipa::path(post, path = "/asset", tag = "model", request_body = NewAsset,
    params(("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255, description = "Names this request")),
    responses(
        (status = 201, description = "Made, and applied by the primary", body = AssetView),
        (status = 409, description = "Somebody else was faster"),
    ))]
async fn create_asset(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    Json(new): Json<NewAsset>,
) -> Result<Response, Problem> {
    let org = org(&api, &caller, new.org_id, Permission::Model)?;
    named(&api.directory.read(), &org.key, &new.asset_type, &new.devices)?;
    let mut asset = Asset {
        id: AssetId(i32::MAX),
        org: org.key.clone(),
        org_id: org.id,
        asset_type: new.asset_type,
        name: new.name,
        devices: new.devices.into_iter().collect(),
        tags: new.tags,
    };
    keepable(&Record::Asset(asset.clone()))?;
    model::ready(&api).await?;
    let body = serde_json::to_vec(&asset).unwrap_or_default();
    let key = idempotency::take(&api, &caller, Some(&org.key), "asset", &headers, &body).await?;
    let number = async {
        let ids = allocate(&api.wire, Counter::Asset, 1).await;
        ids.map(|ids| ids.start).map_err(nats::registry::RegistryFault::from)
    };
    asset.id = AssetId(match key {
        Some(mut key) => key.number(&api, number).await?,
        None => number.await?,
    });
    write(&api, &caller, asset, Expected::New, StatusCode::CREATED).await
}

/// The asset, where the caller may change it.
fn to_change(api: &Api, caller: &Caller, id: i32) -> Result<Asset, Problem> {
    let asset = api.directory.read().asset(AssetId(id)).cloned();
    let asset = asset.ok_or_else(|| Problem::not_found("asset"))?;
    caller.require(asset.org_id, Permission::Model, "asset")?;
    Ok(Asset::clone(&asset))
}

/// Change an asset
///
/// Devices that another asset named observe this one from then on.
#[utoipa::path(put, path = "/asset/{asset_id}", tag = "model", request_body = AssetContent,
    params(("asset_id" = i32, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 200, description = "Changed, and applied by the primary", body = AssetView),
        (status = 409, description = "Somebody else changes it again and again"),
        (status = 412, description = "It was changed since"),
    ))]
async fn replace_asset(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
    Json(content): Json<AssetContent>,
) -> Result<Response, Problem> {
    let before = to_change(&api, &caller, id)?;
    named(&api.directory.read(), &before.org, &content.asset_type, &content.devices)?;
    let AssetContent { asset_type, name, devices, tags } = content;
    let devices = devices.into_iter().collect();
    let asset = Asset { asset_type, name, devices, tags, ..before };
    keepable(&Record::Asset(asset.clone()))?;
    write(&api, &caller, asset, expected(&headers)?, StatusCode::OK).await
}

/// Take an asset away
///
/// Its devices stay, and observe nothing until another asset names them.
#[utoipa::path(delete, path = "/asset/{asset_id}", tag = "model",
    params(("asset_id" = i32, Path), ("if-match" = Option<String>, Header, description = "The `ETag` that the change is based on")),
    responses(
        (status = 204, description = "Gone, also in the primary"),
        (status = 409, description = "Somebody else changes it again and again"),
        (status = 412, description = "It was changed since"),
    ))]
async fn delete_asset(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let found = to_change(&api, &caller, id);
    if found.is_err() && model::is_gone(&api, &caller, &format!("model.*.asset.{id}")).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let Asset { org, org_id, id, .. } = found?;
    let gone = Gone { org, org_id, kind: GoneKind::Asset, id: id.to_string() };
    model::write(&api, &caller, &Record::Gone(gone), expected(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
