//! `core.deletions` of two targets.

use super::{
    Recent,
    pairs::{Keyed, Pairs, Rows},
    unlimited,
};
use crate::{connect::Database, fault::Fault, org::OrgRef, read::moment};
use chrono::{DateTime, Utc};
use domain::{DeletionRow, EntityId, RowVersion, Timestamp};
use futures_util::StreamExt as _;
use sqlx::PgConnection;

/// What a deletion is about: entity, first moment, first moment no longer.
pub type Range = (EntityId, Timestamp, Timestamp);

impl Keyed for DeletionRow {
    type Key = Range;
    fn key(&self) -> Range {
        (self.entity, self.from, self.to)
    }
}

/// A deletion that only one target has, or both with other versions.
pub type DeletionPair = (Option<DeletionRow>, Option<DeletionRow>);

/// The first deletions in which two targets differ, of those not recent and behind a range;
/// `most` of them.
pub async fn deletions(
    reference: &Database,
    other: &Database,
    org: &OrgRef,
    recent: Recent,
    behind: Option<Range>,
    most: usize,
) -> Result<Vec<DeletionPair>, Fault> {
    let (mut ours, mut theirs) = tokio::try_join!(reference.borrow(), other.borrow())?;
    unlimited(&mut ours.held).await?;
    unlimited(&mut theirs.held).await?;
    let mut found = Vec::new();
    {
        let mut pairs =
            Pairs::new(stream(&mut ours.held, org, behind), stream(&mut theirs.held, org, behind));
        while let Some((ours, theirs)) = pairs.next().await? {
            let is_recent = |row: &Option<DeletionRow>| {
                row.is_some_and(|row| recent.holds(row.version.accepted_at))
            };
            if ours != theirs && !is_recent(&ours) && !is_recent(&theirs) {
                found.push((ours, theirs));
                if found.len() >= most {
                    // The connections are in the middle of an answer: they are not used again.
                    return Ok(found);
                }
            }
        }
    }
    for mut side in [ours, theirs] {
        sqlx::raw_sql("commit").execute(&mut *side.held).await?;
        side.give_back();
    }
    Ok(found)
}

type Columns = (i32, DateTime<Utc>, DateTime<Utc>, DateTime<Utc>, i64);

fn stream<'c>(
    connection: &'c mut PgConnection,
    org: &OrgRef,
    behind: Option<Range>,
) -> Rows<'c, DeletionRow> {
    let sql = "select entity_id, ts_from, ts_to, accepted_at, version from core.deletions \
        where org_id = $1 and ($2::integer is null or (entity_id, ts_from, ts_to) > ($2, $3, $4)) \
        order by entity_id, ts_from, ts_to";
    let rows = sqlx::query_as(sql)
        .bind(org.id.0)
        .bind(behind.map(|(entity, ..)| entity.0))
        .bind(behind.map(|(_, from, _)| from.to_chrono()))
        .bind(behind.map(|(_, _, to)| to.to_chrono()))
        .fetch(connection);
    let decode = |row: sqlx::Result<Columns>| {
        let (entity, from, to, accepted_at, packed) = row?;
        let version = RowVersion { accepted_at: moment(accepted_at)?, packed };
        Ok(DeletionRow { entity: EntityId(entity), from: moment(from)?, to: moment(to)?, version })
    };
    rows.map(decode).boxed()
}
