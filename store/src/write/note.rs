//! The ledger's part of a write: noted in the COMMIT that writes the rows.

use super::Counts;
use crate::org::OrgRef;
use domain::ledger::{Entry, Fates, Page};
use sqlx::{AssertSqlSafe, PgConnection};
use std::fmt::Write as _;

/// Notes the page and how many rows there are more or fewer, and commits: one round trip. Every statement
/// before succeeded, so this can't be a rollback in disguise; the server leaves the COMMIT out where noting
/// fails.
pub(crate) async fn commit(
    connection: &mut PgConnection,
    org: &OrgRef,
    page: &Page,
    counts: &mut Counts,
) -> sqlx::Result<()> {
    let mut sql = String::new();
    let recovered = page.recovered.min(counts.inserted) as i64;
    rows(&mut sql, org, counts.inserted as i64 - counts.deleted as i64 - recovered);
    if !page.is_empty() {
        messages(&mut sql, org, page, counts.fates);
        counts.noted = true;
    }
    sql.push_str("commit");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// That an org's table has so many rows more.
pub(crate) fn rows(sql: &mut String, org: &OrgRef, more: i64) {
    if more != 0 {
        let _ = write!(sql, "select core.note_rows({}, {more});", org.id);
    }
}

fn messages(sql: &mut String, org: &OrgRef, page: &Page, fates: Fates) {
    for Entry { hour, block, bits, messages, fates } in page.entries(fates) {
        let list = |of: fn(&(u32, u32)) -> u32| {
            messages.iter().map(|message| of(message).to_string()).collect::<Vec<_>>().join(",")
        };
        let (places, readings) = (list(|(place, _)| *place), list(|(_, readings)| *readings));
        let Fates { stored, superseded, duplicate, deleted, dead } = fates;
        let _ = write!(
            sql,
            "select core.note_messages({}, '{hour}', {block}, B'{}', '{{{places}}}', '{{{readings}}}', \
             '{{{stored},{superseded},{duplicate},{deleted},{dead}}}');",
            org.id,
            bits.text()
        );
    }
    for (hour, block, bits) in page.origins() {
        let _ = write!(
            sql,
            "select core.note_origins({}, '{hour}', {block}, B'{}');",
            org.id,
            bits.text()
        );
    }
}
