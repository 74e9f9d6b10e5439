//! Who knows every numbered reading, and says what a database lost, doubled or changed. It does
//! not break things: who injects faults does not decide whether the outcome is right.

use crate::{
    Database,
    platform::{connect, eventually},
};
use std::collections::BTreeMap;

/// Readings of one point, numbered from 0: number n was so at [`FIRST`] + n seconds and has the
/// value n.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// The device.
    pub device: String,
    /// The entity of its point `temperature`.
    pub entity: i32,
    /// How many were sent.
    pub sent: u32,
}

/// Moment of reading 0, in seconds since 1970: 2026-01-01T00:00:00Z.
pub const FIRST: i64 = 1_767_225_600;

/// The payload of reading `n` for the device type `temperature-sensor`.
pub fn payload(n: u32) -> String {
    let seconds = i64::from(n);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    assert!(days < 31, "a month of seconds is enough");
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let day = days + 1;
    format!(
        "{{\"ts\":\"2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z\",\"temperature\":{n}}}"
    )
}

impl Numbered {
    /// What is wrong in this database; empty where everything is there, once, unchanged.
    pub async fn judge(&self, database: &Database, org: &str) -> Result<String, String> {
        let mut connection = connect(&database.superuser()).await?;
        let sql = format!(
            "select extract(epoch from ts)::bigint, value_n from core.values_{org} \
             where entity_id = {} order by ts",
            self.entity
        );
        let rows: Vec<(i64, Option<f64>)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .map_err(|error| error.to_string())?;
        let mut problems = self.compare(&rows);
        problems.extend(self.current(&mut connection, org).await?);
        Ok(problems.join("; "))
    }

    fn compare(&self, rows: &[(i64, Option<f64>)]) -> Vec<String> {
        let found: BTreeMap<i64, Option<f64>> = rows.iter().map(|&(s, v)| (s - FIRST, v)).collect();
        let mut problems = Vec::new();
        let expected = 0..i64::from(self.sent);
        let lost: Vec<i64> = expected.clone().filter(|n| !found.contains_key(n)).collect();
        if let Some(first) = lost.first() {
            problems.push(format!("{} lost, the first is {first}", lost.len()));
        }
        for (n, value) in found {
            if !expected.contains(&n) {
                problems.push(format!("{n} was never sent"));
            } else if value != Some(n as f64) {
                problems.push(format!("{n} became {value:?}"));
            }
        }
        problems.truncate(10);
        problems
    }

    async fn current(
        &self,
        connection: &mut sqlx::PgConnection,
        org: &str,
    ) -> Result<Option<String>, String> {
        let sql = format!(
            "select extract(epoch from ts)::bigint from core.values_{org}_current \
             where entity_id = {}",
            self.entity
        );
        let newest: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_optional(connection)
            .await
            .map_err(|error| error.to_string())?;
        let wanted = (self.sent > 0).then(|| FIRST + i64::from(self.sent) - 1);
        Ok((newest != wanted).then(|| format!("current is {newest:?}, not {wanted:?}")))
    }

    /// Waits until everything is in this database, once, unchanged.
    pub async fn arrives(&self, database: &Database, org: &str) {
        eventually(&format!("{} readings of {}", self.sent, self.device), || async {
            match self.judge(database, org).await {
                Ok(problems) if problems.is_empty() => Ok(()),
                Ok(problems) | Err(problems) => Err(problems),
            }
        })
        .await;
    }
}
