//! Device types, their versions, and tag definitions.

use crate::fault::Fault;
use domain::model::{Profile, TagDef, TypeHead};
use sqlx::PgConnection;

pub(super) async fn tag_def(
    connection: &mut PgConnection,
    sequence: u64,
    def: &TagDef,
) -> Result<(), Fault> {
    sqlx::query(
        "insert into core.tag_def as t (org_id, name, kind, doc, model_sequence) \
         values ($1, $2, $3, $4, $5) on conflict (org_id, name) do update \
         set kind = excluded.kind, doc = excluded.doc, model_sequence = excluded.model_sequence \
         where excluded.model_sequence > t.model_sequence",
    )
    .bind(def.org_id.0)
    .bind(&def.name)
    .bind(&def.kind)
    .bind(&def.doc)
    .bind(sequence as i64)
    .execute(connection)
    .await?;
    Ok(())
}

/// A version never changes, so one that is there stays.
pub(super) async fn profile(
    connection: &mut PgConnection,
    sequence: u64,
    profile: &Profile,
) -> Result<(), Fault> {
    let definition = &profile.definition;
    let unwritable = |error: serde_json::Error| Fault::hold(error.to_string());
    let metrics = serde_json::to_value(&definition.metrics).map_err(unwritable)?;
    let whole = serde_json::to_value(definition).map_err(unwritable)?;
    let adapter = whole.get("protocol_adapter").and_then(serde_json::Value::as_str);
    sqlx::query(
        "insert into core.device_types (org_id, device_type, version, processing_mode, \
            protocol_adapter, message_schema, definition, model_sequence) \
         values ($1, $2, $3, $4, $5, $6, $7, $8) \
         on conflict (org_id, device_type, version) do nothing",
    )
    .bind(profile.org_id.0)
    .bind(definition.device_type.as_str())
    .bind(profile.version as i32)
    .bind(definition.processing_mode.as_str())
    .bind(adapter)
    .bind(&metrics)
    .bind(&whole)
    .bind(sequence as i64)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn head(
    connection: &mut PgConnection,
    sequence: u64,
    head: &TypeHead,
) -> Result<(), Fault> {
    sqlx::query(
        "insert into core.device_type_current as t (org_id, device_type, version, model_sequence) \
         values ($1, $2, $3, $4) on conflict (org_id, device_type) do update \
         set version = excluded.version, model_sequence = excluded.model_sequence \
         where excluded.model_sequence > t.model_sequence",
    )
    .bind(head.org_id.0)
    .bind(head.current.id.as_str())
    .bind(head.current.version as i32)
    .bind(sequence as i64)
    .execute(connection)
    .await?;
    Ok(())
}
