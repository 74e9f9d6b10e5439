//! Keys that a recent deletion covers: one target may have applied it and the other not yet.

use super::Sample;
use crate::{connect::Database, fault::Fault, org::OrgRef, read::moment};
use chrono::{DateTime, Utc};
use domain::{Row, Timestamp};
use sqlx::postgres::PgBindIterExt;
use std::collections::HashSet;

/// Leaves out samples that a deletion accepted at `cutoff` or later covers in one of the targets.
pub(super) async fn without_deleted(
    targets: [&Database; 2],
    org: &OrgRef,
    cutoff: Timestamp,
    samples: Vec<Sample>,
) -> Result<Vec<Sample>, Fault> {
    if samples.is_empty() {
        return Ok(samples);
    }
    let mut deleted = HashSet::new();
    for target in targets {
        deleted.extend(covered(target, org, cutoff, &samples).await?);
    }
    let kept = |sample: &Sample| key(sample).is_some_and(|key| !deleted.contains(&key));
    Ok(samples.into_iter().filter(kept).collect())
}

fn key(sample: &Sample) -> Option<(i32, Timestamp)> {
    let row: Option<&Row> = sample.reference.as_ref().or(sample.other.as_ref());
    row.map(|row| (row.entity.0, row.ts))
}

async fn covered(
    target: &Database,
    org: &OrgRef,
    cutoff: Timestamp,
    samples: &[Sample],
) -> Result<Vec<(i32, Timestamp)>, Fault> {
    let keys = || samples.iter().filter_map(key);
    let rows: Vec<(i32, DateTime<Utc>)> = sqlx::query_as(
        "select k.entity_id, k.ts from unnest($1::integer[], $2::timestamptz[]) \
            as k (entity_id, ts) \
         where exists (select from core.deletions d where d.org_id = $3 and d.accepted_at >= $4 \
            and d.entity_id = k.entity_id and d.ts_from <= k.ts and k.ts < d.ts_to)",
    )
    .bind(keys().map(|(entity, _)| entity).bind_iter())
    .bind(keys().map(|(_, ts)| ts.to_chrono()).bind_iter())
    .bind(org.id.0)
    .bind(cutoff.to_chrono())
    .fetch_all(&target.pool)
    .await?;
    rows.into_iter().map(|(entity, ts)| Ok((entity, moment(ts)?))).collect()
}
