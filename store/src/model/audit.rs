//! Who changed what: a row for each record that was written on somebody's behalf.

use super::access::shown;
use domain::{Timestamp, model::Record};
use serde_json::Value;
use sqlx::PgConnection;

/// Longest record that the audit log keeps whole, in bytes of JSON.
const MAX_KEPT: usize = 64 << 10;

/// A change, as the stream knows it.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// On whose behalf.
    pub by: &'a str,
    /// The request that led to it.
    pub request_id: Option<&'a str>,
    /// When it was written.
    pub at: Timestamp,
}

pub(super) async fn note(
    connection: &mut PgConnection,
    sequence: u64,
    record: &Record,
    change: Change<'_>,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into core.audit_log (model_sequence, at, org_id, changed_by, request_id, subject, \
             before, after) \
         values ($1, $2, $3, $4, $5, $6, \
             (select after from core.audit_log where subject = $6 and model_sequence < $1 \
              and org_id is not distinct from $3 order by model_sequence desc limit 1), $7) \
         on conflict (model_sequence) do nothing",
    )
    .bind(sequence as i64)
    .bind(change.at.to_chrono())
    .bind(record.org().map(|(_, id)| id.0))
    .bind(change.by)
    .bind(change.request_id)
    .bind(record.subject().to_string())
    .bind(kept(record))
    .execute(connection)
    .await
    .map(drop)
}

fn kept(record: &Record) -> Value {
    let whole = shown(record);
    let text = whole.to_string();
    if text.len() <= MAX_KEPT {
        return whole;
    }
    let hash = domain::subject::fnv1a(text.as_bytes());
    serde_json::json!({ "bytes": text.len(), "fnv1a": format!("{hash:016x}") })
}
