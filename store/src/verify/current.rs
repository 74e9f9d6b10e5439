//! `_current` of a target against its own history.

use super::unlimited;
use crate::{connect::Database, fault::Fault, org::OrgRef, write::COLUMNS};
use domain::EntityId;
use sqlx::AssertSqlSafe;

/// Entities whose current row is not their newest one, or is missing, or has no history.
///
/// Both change in one transaction, and one statement sees one moment: what is written meanwhile is not in the
/// way. Entities are found by jumping from one to the next in the index.
pub async fn stale_current(database: &Database, org: &OrgRef) -> Result<Vec<EntityId>, Fault> {
    let (values, current) = (org.values(), org.current());
    let of = |table: &str| {
        COLUMNS.split(", ").map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
    };
    let sql = format!(
        "with recursive jump (id) as ( \
            (select entity_id from {values} order by entity_id limit 1) \
            union all \
            select (select v.entity_id from {values} v where v.entity_id > jump.id \
                    order by v.entity_id limit 1) \
            from jump where jump.id is not null), \
         entities as (select id from jump where id is not null \
            union select entity_id from {current}) \
         select e.id from entities e \
         left join lateral (select {COLUMNS} from {values} v where v.entity_id = e.id \
            order by v.ts desc limit 1) n on true \
         left join {current} c on c.entity_id = e.id \
         where row({}) is distinct from row({}) order by e.id",
        of("n"),
        of("c")
    );
    let mut connection = database.borrow().await?;
    unlimited(&mut connection.held).await?;
    let entities: Vec<(i32,)> =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut *connection.held).await?;
    sqlx::raw_sql("commit").execute(&mut *connection.held).await?;
    connection.give_back();
    Ok(entities.into_iter().map(|(id,)| EntityId(id)).collect())
}
