//! Which devices are there: of each the status that entered the platform last.

use crate::org::OrgRef;
use domain::{DeviceId, presence::PresenceRow};
use sqlx::{PgConnection, postgres::PgBindIterExt};
use std::collections::BTreeMap;

/// Merges them in; what is repeated or came late changes nothing.
pub(crate) async fn apply(
    connection: &mut PgConnection,
    org: &OrgRef,
    presences: &[PresenceRow],
) -> sqlx::Result<()> {
    let newest = newest(presences);
    let each = || newest.values();
    sqlx::query(
        "insert into core.device_presence as p \
             (org_id, device_id, online, status_at, last_seen, accepted_at, version) \
         select $1, t.* from unnest($2::text[], $3::boolean[], $4::timestamptz[], \
             $5::timestamptz[], $6::timestamptz[], $7::bigint[]) \
             as t (device, online, at, seen, accepted, version) \
         order by t.device \
         on conflict (device_id) do update set \
             (org_id, online, status_at, accepted_at, version) = (select \
                 case when newer then excluded.org_id else p.org_id end, \
                 case when newer then excluded.online else p.online end, \
                 case when newer then excluded.status_at else p.status_at end, \
                 case when newer then excluded.accepted_at else p.accepted_at end, \
                 case when newer then excluded.version else p.version end \
                 from (select (excluded.accepted_at, excluded.version) > \
                     (p.accepted_at, p.version) as newer) as n), \
             last_seen = greatest(p.last_seen, excluded.last_seen)",
    )
    .bind(org.id.0)
    .bind(each().map(|row| row.device.as_str()).bind_iter())
    .bind(each().map(|row| row.online).bind_iter())
    .bind(each().map(|row| row.at.to_chrono()).bind_iter())
    .bind(each().map(|row| row.seen.map(domain::Timestamp::to_chrono)).bind_iter())
    .bind(each().map(|row| row.version.accepted_at.to_chrono()).bind_iter())
    .bind(each().map(|row| row.version.packed).bind_iter())
    .execute(connection)
    .await
    .map(drop)
}

/// One row a device: an upsert can't touch a row twice.
fn newest(presences: &[PresenceRow]) -> BTreeMap<&DeviceId, PresenceRow> {
    let mut newest: BTreeMap<&DeviceId, PresenceRow> = BTreeMap::new();
    for row in presences {
        newest
            .entry(&row.device)
            .and_modify(|kept| {
                let seen = kept.seen.max(row.seen);
                if row.version > kept.version {
                    *kept = row.clone();
                }
                kept.seen = seen;
            })
            .or_insert_with(|| row.clone());
    }
    newest
}
