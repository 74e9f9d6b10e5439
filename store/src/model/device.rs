//! Devices and their points.

use domain::{
    DeviceId,
    model::{Device, Role},
};
use sqlx::{PgConnection, postgres::PgBindIterExt};

pub(super) async fn apply(
    connection: &mut PgConnection,
    sequence: u64,
    device: &Device,
) -> sqlx::Result<()> {
    let (gateway, identifier) = match &device.role {
        Role::Logical { gateway, identifier } => (Some(gateway), Some(identifier.as_str())),
        Role::Endpoint | Role::Gateway => (None, None),
    };
    let changed = sqlx::query(
        "insert into core.devices as d (device_id, org_id, device_type, name, device_role, \
             parent_device_id, logical_identifier, model_sequence) \
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (device_id) do update \
         set org_id = excluded.org_id, device_type = excluded.device_type, name = excluded.name, \
             device_role = excluded.device_role, parent_device_id = excluded.parent_device_id, \
             logical_identifier = excluded.logical_identifier, gone = false, \
             model_sequence = excluded.model_sequence \
         where excluded.model_sequence > d.model_sequence",
    )
    .bind(device.id.as_str())
    .bind(device.org_id.0)
    .bind(device.device_type.as_str())
    .bind(&device.name)
    .bind(device.role.as_str())
    .bind(gateway.map(DeviceId::as_str))
    .bind(identifier)
    .bind(sequence as i64)
    .execute(&mut *connection)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("delete from core.device_point where device_id = $1")
        .bind(device.id.as_str())
        .execute(&mut *connection)
        .await?;
    insert_points(connection, sequence, device).await
}

async fn insert_points(
    connection: &mut PgConnection,
    sequence: u64,
    device: &Device,
) -> sqlx::Result<()> {
    let points = || device.points.iter();
    sqlx::query(
        "insert into core.device_point (device_id, metric, entity_id, kind, model_sequence) \
         select $1, p.metric, p.entity_id, p.kind, $5 \
         from unnest($2::text[], $3::integer[], $4::text[]) as p (metric, entity_id, kind)",
    )
    .bind(device.id.as_str())
    .bind(points().map(|(metric, _)| metric.as_str()).bind_iter())
    .bind(points().map(|(_, point)| point.entity.0).bind_iter())
    .bind(points().map(|(_, point)| point.kind.haystack()).bind_iter())
    .bind(sequence as i64)
    .execute(connection)
    .await?;
    Ok(())
}
