//! Assets and their kinds.

use domain::model::{Asset, AssetType};
use sqlx::{PgConnection, postgres::PgBindIterExt, types::Json};

pub(super) async fn kind(
    connection: &mut PgConnection,
    sequence: u64,
    kind: &AssetType,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into core.asset_types as t (org_id, asset_type, name, metric_definitions, \
             transformation_engine, health_algorithm, model_sequence) \
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (org_id, asset_type) do update \
         set name = excluded.name, metric_definitions = excluded.metric_definitions, \
             transformation_engine = excluded.transformation_engine, \
             health_algorithm = excluded.health_algorithm, \
             model_sequence = excluded.model_sequence \
         where excluded.model_sequence > t.model_sequence",
    )
    .bind(kind.org_id.0)
    .bind(kind.id.as_str())
    .bind(&kind.name)
    .bind(&kind.metric_definitions)
    .bind(&kind.transformation_engine)
    .bind(&kind.health_algorithm)
    .bind(sequence as i64)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn apply(
    connection: &mut PgConnection,
    sequence: u64,
    asset: &Asset,
) -> sqlx::Result<()> {
    let changed = sqlx::query(
        "insert into core.assets as a (asset_id, org_id, asset_type, name, tags, model_sequence) \
         values ($1, $2, $3, $4, $5, $6) on conflict (asset_id) do update \
         set asset_type = excluded.asset_type, name = excluded.name, tags = excluded.tags, \
             model_sequence = excluded.model_sequence \
         where excluded.model_sequence > a.model_sequence",
    )
    .bind(asset.id.0)
    .bind(asset.org_id.0)
    .bind(asset.asset_type.as_str())
    .bind(&asset.name)
    .bind(Json(&asset.tags))
    .bind(sequence as i64)
    .execute(&mut *connection)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("delete from core.asset_device where asset_id = $1")
        .bind(asset.id.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into core.asset_device (device_id, asset_id) \
         select device_id, $1 from unnest($2::text[]) as d (device_id) \
         on conflict (device_id) do update set asset_id = excluded.asset_id",
    )
    .bind(asset.id.0)
    .bind(asset.devices.iter().map(domain::DeviceId::as_str).bind_iter())
    .execute(connection)
    .await
    .map(drop)
}
