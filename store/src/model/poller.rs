//! Pollers and their entities.

use domain::model::Poller;
use sqlx::{PgConnection, postgres::PgBindIterExt};

pub(super) async fn apply(
    connection: &mut PgConnection,
    sequence: u64,
    poller: &Poller,
) -> sqlx::Result<()> {
    let changed = sqlx::query(
        "insert into core.poller_config as p (id, org_id, poller_type, poller_id, poller_name, \
             config, status, model_sequence) \
         values ($1, $2, $3, $1, $4, $5, $6, $7) on conflict (id) do update \
         set poller_name = excluded.poller_name, config = excluded.config, \
             status = excluded.status, model_sequence = excluded.model_sequence \
         where excluded.model_sequence > p.model_sequence",
    )
    .bind(poller.id.0)
    .bind(poller.org_id.0)
    .bind(&poller.poller_type)
    .bind(&poller.name)
    .bind(&poller.config)
    .bind(&poller.status)
    .bind(sequence as i64)
    .execute(&mut *connection)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(());
    }
    let entities = || poller.entities.iter();
    sqlx::query(
        "insert into core.poller_entity (poller_id, key, entity_id) \
         select $1, e.key, e.entity_id from unnest($2::text[], $3::integer[]) \
             as e (key, entity_id) \
         on conflict (poller_id, key) do update set entity_id = excluded.entity_id",
    )
    .bind(poller.id.0)
    .bind(entities().map(|(key, _)| key.as_str()).bind_iter())
    .bind(entities().map(|(_, entity)| entity.0).bind_iter())
    .execute(connection)
    .await?;
    Ok(())
}
