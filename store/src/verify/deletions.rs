//! `core.deletions` of two targets.

use super::{
    Recent,
    pairs::{Keyed, Listed, Rows, Unlike, unlike},
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

/// The first deletions in which two targets differ, of those not recent and behind a range;
/// `most` of them.
pub async fn deletions(
    targets: (&Database, &Database),
    org: &OrgRef,
    recent: Recent,
    behind: Option<Range>,
    most: usize,
) -> Result<Vec<Unlike<DeletionRow>>, Fault> {
    unlike(targets, org, recent, behind, most).await
}

type Columns = (i32, DateTime<Utc>, DateTime<Utc>, DateTime<Utc>, i64);

impl Listed for DeletionRow {
    fn is_recent(&self, recent: Recent) -> bool {
        recent.holds(self.version.accepted_at)
    }

    fn stream<'c>(
        connection: &'c mut PgConnection,
        org: &OrgRef,
        behind: Option<Range>,
    ) -> Rows<'c, Self> {
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
            Ok(DeletionRow {
                entity: EntityId(entity),
                from: moment(from)?,
                to: moment(to)?,
                version,
            })
        };
        rows.map(decode).boxed()
    }
}
