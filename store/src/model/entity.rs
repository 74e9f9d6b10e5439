//! Entities and their tags, many in one statement: a bootstrap brings hundreds of thousands.

use domain::{EntityId, model::Entity, tags::TagValue};
use serde_json::Value;
use sqlx::{PgConnection, postgres::PgBindIterExt};
use std::collections::{BTreeMap, HashSet};

/// Entities that wait for their statement.
const BATCH: usize = 1_000;

/// Entities not yet written, each as last seen.
#[derive(Default)]
pub(super) struct Entities(BTreeMap<EntityId, (u64, Entity)>);

impl Entities {
    pub(super) fn add(&mut self, sequence: u64, entity: &Entity) {
        let known = self.0.get(&entity.id).map_or(0, |(sequence, _)| *sequence);
        if sequence > known {
            self.0.insert(entity.id, (sequence, entity.clone()));
        }
    }

    pub(super) fn full(&self) -> bool {
        self.0.len() >= BATCH
    }

    /// Writes what waits: entities first, then the tags of those that were not newer already.
    pub(super) async fn flush(&mut self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let entities = std::mem::take(&mut self.0);
        if entities.is_empty() {
            return Ok(());
        }
        let changed = upsert(connection, &entities).await?;
        sqlx::query("delete from core.entity_tag where entity_id = any($1)")
            .bind(changed.iter().copied().bind_iter())
            .execute(&mut *connection)
            .await?;
        insert_tags(connection, entities.values().filter(|(_, e)| changed.contains(&e.id.0))).await
    }
}

async fn upsert(
    connection: &mut PgConnection,
    entities: &BTreeMap<EntityId, (u64, Entity)>,
) -> sqlx::Result<HashSet<i32>> {
    let rows = || entities.values();
    let changed: Vec<i32> = sqlx::query_scalar(
        "insert into core.entity as e (entity_id, org_id, name, model_sequence) \
         select * from unnest($1::integer[], $2::integer[], $3::text[], $4::bigint[]) \
         on conflict (entity_id) do update \
         set org_id = excluded.org_id, name = excluded.name, gone = false, \
             model_sequence = excluded.model_sequence \
         where excluded.model_sequence > e.model_sequence returning entity_id",
    )
    .bind(rows().map(|(_, entity)| entity.id.0).bind_iter())
    .bind(rows().map(|(_, entity)| entity.org_id.0).bind_iter())
    .bind(rows().map(|(_, entity)| entity.name.as_str()).bind_iter())
    .bind(rows().map(|(sequence, _)| *sequence as i64).bind_iter())
    .fetch_all(connection)
    .await?;
    Ok(changed.into_iter().collect())
}

async fn insert_tags<'a>(
    connection: &mut PgConnection,
    entities: impl Iterator<Item = &'a (u64, Entity)>,
) -> sqlx::Result<()> {
    let tags: Vec<(i32, &str, &TagValue, i64)> = entities
        .flat_map(|(sequence, entity)| {
            let of = |(tag, value)| (entity.id.0, String::as_str(tag), value, *sequence as i64);
            entity.tags.iter().map(of)
        })
        .collect();
    sqlx::query(
        "insert into core.entity_tag (entity_id, tag, kind, value, model_sequence) \
         select * from unnest($1::integer[], $2::text[], $3::text[], $4::jsonb[], $5::bigint[])",
    )
    .bind(tags.iter().map(|(entity, ..)| *entity).bind_iter())
    .bind(tags.iter().map(|(_, tag, ..)| *tag).bind_iter())
    .bind(tags.iter().map(|(_, _, value, _)| value.kind()).bind_iter())
    .bind(tags.iter().map(|(_, _, value, _)| json(value)).bind_iter())
    .bind(tags.iter().map(|(.., sequence)| *sequence).bind_iter())
    .execute(connection)
    .await?;
    Ok(())
}

/// A tag's value as its column holds it; the kind stands beside it.
fn json(value: &TagValue) -> Option<Value> {
    Some(match value {
        TagValue::Marker => return None,
        TagValue::Bool(b) => Value::from(*b),
        TagValue::Number(n, None) => Value::from(*n),
        TagValue::Number(n, Some(unit)) => serde_json::json!({ "value": n, "unit": unit }),
        TagValue::Ref(text) | TagValue::Str(text) => Value::from(text.as_str()),
    })
}
