//! What was taken away.

use domain::model::{Gone, GoneKind};
use sqlx::PgConnection;

/// An entity or a device stays as a row that nobody sees: a record that is written at the same moment
/// may still point at it, and must not be held for that.
pub(super) async fn apply(
    connection: &mut PgConnection,
    sequence: u64,
    gone: &Gone,
) -> sqlx::Result<()> {
    let number = || gone.id.parse::<i32>().unwrap_or_default();
    let sequence = sequence as i64;
    match gone.kind {
        GoneKind::Entity => {
            // Also where its record was never seen here: the stream holds what was said last alone, and a
            // point of a device may name it.
            let marked = sqlx::query(
                "insert into core.entity as e (entity_id, org_id, name, gone, model_sequence) \
                 values ($1, $2, '', true, $3) on conflict (entity_id) do update \
                 set gone = true, model_sequence = excluded.model_sequence \
                 where e.model_sequence < excluded.model_sequence",
            );
            let marked = marked.bind(number()).bind(gone.org_id.0).bind(sequence);
            marked.execute(&mut *connection).await?;
            sqlx::query("delete from core.entity_tag where entity_id = $1 and model_sequence < $2")
                .bind(number())
                .bind(sequence)
                .execute(connection)
                .await?;
        }
        GoneKind::Device => {
            let marked = sqlx::query(
                "update core.devices set gone = true, model_sequence = $2 \
                 where device_id = $1 and model_sequence < $2",
            );
            marked.bind(&gone.id).bind(sequence).execute(connection).await?;
        }
        GoneKind::TagDef => {
            let deleted = sqlx::query(
                "delete from core.tag_def \
                 where org_id = $1 and name = $2 and model_sequence < $3",
            );
            let deleted = deleted.bind(gone.org_id.0).bind(&gone.id).bind(sequence);
            deleted.execute(connection).await?;
        }
        GoneKind::AssetType => {
            let deleted = sqlx::query(
                "delete from core.asset_types \
                 where org_id = $1 and asset_type = $2 and model_sequence < $3",
            );
            let deleted = deleted.bind(gone.org_id.0).bind(&gone.id).bind(sequence);
            deleted.execute(connection).await?;
        }
        GoneKind::Asset => {
            let deleted =
                sqlx::query("delete from core.assets where asset_id = $1 and model_sequence < $2");
            deleted.bind(number()).bind(sequence).execute(connection).await?;
        }
    }
    Ok(())
}
