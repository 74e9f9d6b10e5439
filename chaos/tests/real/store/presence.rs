//! Which devices are there: the same in every target, in whatever order it came.

use super::{Target, at};
use domain::{
    Origin, OriginStream, Work,
    presence::{Presence, PresenceRow},
};
use std::collections::BTreeSet;
use store::{WritePath, Writer};

/// Said at that second, accepted as message `sequence`.
fn said(sequence: u64, second: i64, online: bool, kept: bool) -> PresenceRow {
    let accepted_at = at(sequence as i64 * 1_000_000);
    let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at };
    let (device, at) = ("D-1".parse().unwrap(), at(second * 1_000_000));
    Presence { device, online, at, kept, origin }.row().unwrap()
}

fn permutations(rows: &[PresenceRow]) -> Vec<Vec<PresenceRow>> {
    if rows.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for place in 0..rows.len() {
        let mut rest = rows.to_vec();
        let first = rest.remove(place);
        for mut others in permutations(&rest) {
            others.insert(0, first.clone());
            all.push(others);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_order_the_last_that_was_accepted_counts() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    // The last is one that the broker had kept: it counts, and nobody was seen by it. The third bears
    // the time of a door whose clock was a year ahead: it was not seen after it was accepted.
    let rows = [
        said(1, 1, true, false),
        said(2, 2, false, false),
        said(3, 31_536_000, true, false),
        said(4, 4, false, true),
    ];
    let mut found = BTreeSet::new();
    for order in permutations(&rows) {
        target.owner.run("truncate core.device_presence").await.unwrap();
        // Two at once, then one, then all of it again.
        let (first, rest) = order.split_at(2);
        for presences in [first, &rest[..1], &rest[1..], &order[..]] {
            let work = Work { presences: presences.to_vec(), ..Work::default() };
            let _ = writer.write(&target.org, &work).await.unwrap();
        }
        let mut connection = testkit::platform::connect(&target.raw.superuser()).await.unwrap();
        let sql = "select concat_ws(' ', online, extract(epoch from status_at - '2026-01-01Z'), \
            extract(epoch from last_seen - '2026-01-01Z'), version >> 24) from core.device_presence";
        let row: String = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        found.insert(row);
    }
    assert_eq!(found, BTreeSet::from(["f 4.000000 3.000000 4".to_owned()]));
}

/// Rows that were there already go another way than new ones; what came with them is kept on both.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_rows_that_were_there_is_kept() {
    let target = Target::fresh().await;
    let rows = super::rows(vec![super::row(1, at(1), 1, domain::Values::number(1.0))]);
    for (sequence, path) in [(1, WritePath::Optimistic), (2, WritePath::Staging)] {
        let writer = Writer::always(target.ingest.clone(), path);
        let _ = writer.write(&target.org, &rows).await.unwrap();
        let presences = vec![said(sequence, sequence as i64, true, false)];
        let work = Work { presences, ..rows.clone() };
        let _ = writer.write(&target.org, &work).await.unwrap();
        let mut connection = testkit::platform::connect(&target.raw.superuser()).await.unwrap();
        let sql = "select version >> 24 from core.device_presence";
        let kept: Option<i64> =
            sqlx::query_scalar(sql).fetch_optional(&mut connection).await.unwrap();
        assert_eq!(kept, Some(sequence as i64), "{path:?}");
    }
}
