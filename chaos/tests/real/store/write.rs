//! What a write reports, and what it leaves in the tables beside the merge rule.

use super::{Target, add_org, at, org, row, rows};
use domain::{DeletionRow, EntityId, Timestamp, Values, Work};
use store::{
    WritePath::{self, Optimistic, Staging},
    Writer, read,
};

const BATCH: i64 = 5_000;

fn batch(sequence: u64) -> Work {
    let row = |i: i64| row(i as i32 % 50, at(i / 50), sequence, Values::number(i as f64));
    rows((0..BATCH).map(row).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_rows_go_straight_and_a_backlog_through_staging_until_it_is_through() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    let mut paths = Vec::new();
    let mut changed = Vec::new();
    for sequence in [1, 1, 1, 2] {
        let counts = writer.write(&target.org, &batch(sequence)).await.unwrap().counts();
        paths.push(counts.path);
        changed.push(counts.changed as i64);
    }
    assert_eq!(changed, [BATCH, 0, 0, BATCH]);
    let fresh = rows(vec![row(99, at(0), 3, Values::number(1.0))]);
    paths.push(writer.write(&target.org, &fresh).await.unwrap().counts().path);
    assert_eq!(paths, [Optimistic, Staging, Staging, Staging, Optimistic]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_column_comes_back_as_it_went() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    let long = "ÿ☃".repeat(10_000);
    let all = Values {
        n: Some(f64::MIN_POSITIVE),
        b: Some(false),
        s: Some("".into()),
        ts: Some(Timestamp::MAX),
    };
    let work = rows(vec![
        row(1, Timestamp::MIN, 1, all),
        row(1, Timestamp::MAX, 1, Values::text(long)),
        row(i32::MIN, at(0), 1, Values::number(f64::NEG_INFINITY)),
        row(i32::MAX, at(-1), 1, Values::default()),
    ]);
    let _ = writer.write(&target.org, &work).await.unwrap();
    let tables = read::tables(&target.ingest, &target.org).await.unwrap();
    let kept = tables.values.into_iter().map(|((entity, ts), (version, values))| domain::Row {
        entity,
        ts,
        version,
        values,
    });
    assert_eq!(kept.collect::<Vec<_>>(), work.rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tombstone_restores_the_newest_that_is_left_and_leaves_other_orgs_alone() {
    let target = Target::fresh().await;
    let north = org(2, "north");
    add_org(&target.ingest, 2, &north).await;
    let writer = Writer::new(target.ingest.clone());
    let live = batch(1);
    for org in [&target.org, &north] {
        let _ = writer.write(org, &live).await.unwrap();
    }
    let version = row(1, at(0), 2, Values::default()).version;
    let tombstone = DeletionRow { entity: EntityId(7), from: at(60), to: at(1_000), version };
    let work = Work { rows: vec![], deletions: vec![tombstone], ..Work::default() };
    let counts = writer.write(&target.org, &work).await.unwrap().counts();
    assert_eq!(counts.deleted, 40);
    let newest = |rows: Vec<domain::Row>| {
        rows.iter().find(|row| row.entity == EntityId(7)).map(|row| row.ts)
    };
    let of = |org| read::current(&target.ingest, org);
    assert_eq!(newest(of(&target.org).await.unwrap()), Some(at(59)));
    assert_eq!(newest(of(&north).await.unwrap()), Some(at(99)));
    // Redelivered, the deleted rows stay away, and the rest is as it was.
    let counts = writer.write(&target.org, &live).await.unwrap().counts();
    assert_eq!((counts.changed, counts.path), (0, WritePath::Staging));
    assert_eq!(newest(of(&target.org).await.unwrap()), Some(at(59)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_write_leaves_nothing_and_the_next_goes_on() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    for micros in [0, 200, 1_000, 3_000, 8_000] {
        let limit = std::time::Duration::from_micros(micros);
        let _ = tokio::time::timeout(limit, writer.write(&target.org, &batch(1))).await;
        let there = read::tables(&target.ingest, &target.org).await.unwrap().values.len();
        assert!(there == 0 || there == BATCH as usize, "{there} rows");
    }
    let _ = writer.write(&target.org, &batch(1)).await.unwrap();
    let tables = read::tables(&target.ingest, &target.org).await.unwrap();
    assert_eq!(tables.values.len(), BATCH as usize);
}

/// More rows than TimescaleDB decompresses for one statement unless it is told to.
const MANY: i64 = 120_000;

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_change_history_also_where_it_is_compressed() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    let history = |sequence: u64| {
        let one = |i: i64| row(1, at(i), sequence, Values::number((i + sequence as i64) as f64));
        rows((0..MANY).map(one).collect())
    };
    let _ = writer.write(&target.org, &history(1)).await.unwrap();
    // Nothing to compress where the extension is not.
    target
        .owner
        .run(
            "do $$ declare chunk regclass; begin \
           if exists (select from pg_extension where extname = 'timescaledb') then \
             for chunk in select public.show_chunks('core.values_demo') loop \
               perform public.compress_chunk(chunk, true); \
             end loop; \
           end if; end $$",
        )
        .await
        .unwrap();
    let late = history(2);
    let counts = writer.write(&target.org, &late).await.unwrap().counts();
    assert_eq!(counts.changed as i64, MANY);
    let tables = read::tables(&target.ingest, &target.org).await.unwrap();
    assert_eq!(tables.values.len() as i64, MANY);
    for row in &late.rows {
        assert_eq!(tables.values[&(row.entity, row.ts)], (row.version, row.values.clone()));
    }
}
