//! `verify`: equal when equal, and a planted row is found in an hour of a million.

use super::{Target, at};
use domain::{EntityId, Timestamp};
use store::{
    Database,
    verify::{Change, Comparison, Recent, Refused, Report},
};

const ROWS: i64 = 1_000_000;
/// Rows were accepted in the first hour; the cutoff lies after it.
const CUTOFF: i64 = 7_200_000_000;

fn cutoff() -> Timestamp {
    at(CUTOFF)
}

/// An hour with `rows` rows of 1,000 entities, and a few in the hours beside it.
async fn fill(database: &Database, rows: i64) {
    let sql = format!(
        "insert into core.values_demo (entity_id, ts, value_n, accepted_at, version) \
         select i % 1000, '2026-01-01 00:00:00Z'::timestamptz + i / 1000 * interval '1 millisecond', \
            i / 7.0, timestamptz '2026-01-01 01:00:00Z', i::bigint << 24 from generate_series(0, {rows} - 1) i \
         union all select e, '2026-01-01 00:00:00Z'::timestamptz + h * interval '1 hour', \
            e, timestamptz '2026-01-01 01:00:00Z', 1 from generate_series(1, 9) e, generate_series(1, 3) h"
    );
    database.run(&sql).await.unwrap();
}

async fn pair(rows: i64) -> (Target, Target) {
    let (a, b) = tokio::join!(Target::fresh(), Target::fresh());
    tokio::join!(fill(&a.owner, rows), fill(&b.owner, rows));
    (a, b)
}

async fn report(a: &Target, b: &Target) -> Report {
    let (recent, refused) = (Recent::since(cutoff()), &Refused::default());
    let (reference, other, org) = (&a.owner, &b.ingest, &a.org);
    Comparison { reference, other, org, recent, refused }.run(10).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_missing_extra_and_changed_row_are_found_in_an_hour_of_a_million() {
    let (a, b) = pair(ROWS).await;
    let equal = report(&a, &b).await;
    assert_eq!((equal.hours, equal.rows, equal.differing.len()), (4, ROWS + 27, 0));

    let plant = "delete from core.values_demo where entity_id = 500 and ts = '2026-01-01 00:00:00.5Z'; \
        update core.values_demo set value_n = value_n + 1e-9 \
            where entity_id = 501 and ts = '2026-01-01 00:00:00.25Z'; \
        insert into core.values_demo values \
            (502, '2026-01-01 00:30:00Z', 1, null, null, null, '2026-01-01 01:00:00Z', 1)";
    b.owner.run(plant).await.unwrap();
    let report = report(&a, &b).await;
    let [hour] = report.differing.as_slice() else { panic!("{:?}", report.differing) };
    assert_eq!((hour.hour, hour.missing, hour.extra, hour.changed), (at(0), 1, 1, 1));
    let found: Vec<_> = hour
        .samples
        .iter()
        .map(|sample| {
            let row = sample.reference.as_ref().or(sample.other.as_ref()).unwrap();
            (row.entity, row.ts, sample.change)
        })
        .collect();
    assert_eq!(
        found,
        [
            (EntityId(500), at(500_000), Change::Missing),
            (EntityId(501), at(250_000), Change::Changed),
            (EntityId(502), at(1_800_000_000), Change::Extra),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_newer_than_the_cutoff_is_left_out_on_both_sides() {
    let (a, b) = pair(10_000).await;
    // A correction, a new row and a deletion that only one side has applied yet.
    let recent = "update core.values_demo set value_n = 0, accepted_at = '2026-01-01 02:00:00Z' \
            where entity_id = 1 and ts = '2026-01-01 00:00:00Z'; \
        insert into core.values_demo values \
            (1, '2026-01-01 00:30:00Z', 1, null, null, null, '2026-01-01 02:00:00Z', 1); \
        delete from core.values_demo where entity_id = 2; \
        insert into core.deletions values \
            (1, 2, '2026-01-01 00:00:00Z', '2026-01-02 00:00:00Z', '2026-01-01 02:00:00Z', 1)";
    a.owner.run(recent).await.unwrap();
    assert_eq!(report(&a, &b).await.differing, []);
    assert_eq!(report(&b, &a).await.differing, []);
    // Without the deletion on record, the rows that it took are missing.
    a.owner.run("delete from core.deletions").await.unwrap();
    let missing: u64 = report(&b, &a).await.differing.iter().map(|hour| hour.missing).sum();
    assert_eq!(missing, 10 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_a_type_and_a_version_are_compared_too() {
    let (a, b) = pair(1_000).await;
    for change in [
        "value_s = 'x'",
        "value_b = false",
        "value_ts = now()",
        "version = version + 1",
        "value_n = null",
    ] {
        let sql = format!(
            "update core.values_demo set {change} \
             where entity_id = 7 and ts = '2026-01-01 02:00:00Z'"
        );
        b.owner.run(&sql).await.unwrap();
        let changed: Vec<_> =
            report(&a, &b).await.differing.iter().map(|h| (h.hour, h.changed)).collect();
        assert_eq!(changed, [(at(7_200_000_000), 1)], "{change}");
    }
}
