//! What stands beside readings, of two targets: which devices are there, and how gateways' reports ended.

use super::{
    Recent,
    pairs::{Keyed, Listed, Rows, Unlike, unlike},
};
use crate::{connect::Database, fault::Fault, org::OrgRef, read::moment};
use chrono::{DateTime, Utc};
use domain::{DeviceId, RowVersion, chunk::Ended, presence::PresenceRow};
use futures_util::StreamExt as _;
use sqlx::{PgConnection, Row as _, postgres::PgRow};

/// An end may come so long after it was written, in microseconds, where the stream was full meanwhile.
const LATE_END: i64 = 5 * 60 * 1_000_000;

/// The end of a transaction: gateway, transaction, sequence of the end.
pub type EndKey = (DeviceId, String, u64);

/// Devices whose presence two targets have differently, behind one, and not recent; `most` of them.
pub async fn presences(
    targets: (&Database, &Database),
    org: &OrgRef,
    recent: Recent,
    behind: Option<DeviceId>,
    most: usize,
) -> Result<Vec<Unlike<PresenceRow>>, Fault> {
    unlike(targets, org, recent, behind, most).await
}

/// The same of ends of gateways' transactions.
pub async fn ends(
    targets: (&Database, &Database),
    org: &OrgRef,
    recent: Recent,
    behind: Option<EndKey>,
    most: usize,
) -> Result<Vec<Unlike<Ended>>, Fault> {
    unlike(targets, org, recent, behind, most).await
}

impl Keyed for PresenceRow {
    type Key = DeviceId;
    fn key(&self) -> DeviceId {
        self.device.clone()
    }
}

impl Listed for PresenceRow {
    fn is_recent(&self, recent: Recent) -> bool {
        recent.holds(self.version.accepted_at)
    }

    fn stream<'c>(
        connection: &'c mut PgConnection,
        org: &OrgRef,
        behind: Option<DeviceId>,
    ) -> Rows<'c, Self> {
        type Columns = (String, bool, DateTime<Utc>, Option<DateTime<Utc>>, DateTime<Utc>, i64);
        let sql = "select device_id, online, status_at, last_seen, accepted_at, version \
            from core.device_presence \
            where org_id = $1 and ($2::text is null or device_id collate \"C\" > $2) \
            order by device_id collate \"C\"";
        let rows = sqlx::query_as(sql)
            .bind(org.id.0)
            .bind(behind.map(|device| device.to_string()))
            .fetch(connection);
        let decode = |row: sqlx::Result<Columns>| {
            let (device, online, at, seen, accepted_at, packed) = row?;
            let version = RowVersion { accepted_at: moment(accepted_at)?, packed };
            let (device, at) = (name(&device)?, moment(at)?);
            Ok(Self { device, online, at, seen: seen.map(moment).transpose()?, version })
        };
        rows.map(decode).boxed()
    }
}

impl Keyed for Ended {
    type Key = EndKey;
    fn key(&self) -> EndKey {
        (self.gateway.clone(), self.transaction.clone(), self.sequence)
    }
}

impl Listed for Ended {
    fn is_recent(&self, recent: Recent) -> bool {
        recent.holds(self.ended_at.plus_micros(LATE_END))
    }

    fn stream<'c>(
        connection: &'c mut PgConnection,
        org: &OrgRef,
        behind: Option<EndKey>,
    ) -> Rows<'c, Self> {
        let sql = "select gateway_id, transaction_id, end_sequence, parts_expected, parts_seen, \
                parts_missing, outcome, reason, sha256, began_at, ended_at \
            from core.telemetry_transactions \
            where org_id = $1 and ($2::text is null or (gateway_id collate \"C\", \
                transaction_id collate \"C\", end_sequence) > ($2, $3, $4)) \
            order by gateway_id collate \"C\", transaction_id collate \"C\", end_sequence";
        let rows = sqlx::query(sql)
            .bind(org.id.0)
            .bind(behind.as_ref().map(|(gateway, ..)| gateway.to_string()))
            .bind(behind.as_ref().map(|(_, transaction, _)| transaction.clone()))
            .bind(behind.as_ref().map(|(.., sequence)| sequence.cast_signed()))
            .fetch(connection);
        let decode = |row: sqlx::Result<PgRow>| {
            let row = row?;
            let number = |at: usize| row.try_get::<i32, _>(at).map(i32::cast_unsigned);
            let outcome: String = row.try_get(6)?;
            Ok(Self {
                gateway: name(&row.try_get::<String, _>(0)?)?,
                transaction: row.try_get(1)?,
                sequence: row.try_get::<i64, _>(2)?.cast_unsigned(),
                expected: number(3)?,
                seen: number(4)?,
                missing: row.try_get(5)?,
                outcome: outcome.parse().map_err(|why: String| Fault::hold(why))?,
                reason: row.try_get(7)?,
                sha256: row.try_get(8)?,
                began_at: moment(row.try_get(9)?)?,
                ended_at: moment(row.try_get(10)?)?,
            })
        };
        rows.map(decode).boxed()
    }
}

fn name(text: &str) -> Result<DeviceId, Fault> {
    DeviceId::parse(text).map_err(|error| Fault::hold(error.to_string()))
}
