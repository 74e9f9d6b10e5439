//! Gateways' transactions that have ended: on record, once.

use crate::org::OrgRef;
use domain::chunk::Ended;
use sqlx::{PgConnection, postgres::PgBindIterExt};

/// Writes what is not there. An end never changes.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    org: &OrgRef,
    ended: &[Ended],
) -> sqlx::Result<()> {
    let each = || ended.iter();
    sqlx::query(
        "insert into core.telemetry_transactions (org_id, gateway_id, transaction_id, \
             end_sequence, parts_expected, parts_seen, parts_missing, outcome, reason, sha256, \
             began_at, ended_at) \
         select $1, t.* from unnest($2::text[], $3::text[], $4::bigint[], $5::integer[], \
             $6::integer[], $7::text[], $8::text[], $9::text[], $10::text[], $11::timestamptz[], \
             $12::timestamptz[]) as t (gateway, name, sequence, expected, seen, missing, outcome, \
             reason, sha256, began, ended) \
         order by t.gateway, t.name, t.sequence \
         on conflict (org_id, gateway_id, transaction_id, end_sequence) do nothing",
    )
    .bind(org.id.0)
    .bind(each().map(|it| it.gateway.as_str()).bind_iter())
    .bind(each().map(|it| it.transaction.as_str()).bind_iter())
    .bind(each().map(|it| it.sequence.cast_signed()).bind_iter())
    .bind(each().map(|it| it.expected.cast_signed()).bind_iter())
    .bind(each().map(|it| it.seen.cast_signed()).bind_iter())
    .bind(each().map(|it| it.missing.as_str()).bind_iter())
    .bind(each().map(|it| it.outcome.as_str()).bind_iter())
    .bind(each().map(|it| it.reason.as_str()).bind_iter())
    .bind(each().map(|it| it.sha256.as_deref()).bind_iter())
    .bind(each().map(|it| it.began_at.to_chrono()).bind_iter())
    .bind(each().map(|it| it.ended_at.to_chrono()).bind_iter())
    .execute(connection)
    .await
    .map(drop)
}
