//! Errors as a real server sends them, and what is decided about them.

use super::{Target, at, org, row, rows};
use domain::{DeletionRow, EntityId, Values, Work};
use std::time::Duration;
use store::{Database, Limits, Login, Verdict, WritePath, Writer, read};

fn one(values: Values) -> Work {
    rows(vec![row(1, at(1), 1, values)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_with_nul_is_data_and_its_neighbours_commit_without_it() {
    let target = Target::fresh().await;
    for path in [WritePath::Optimistic, WritePath::Staging] {
        let writer = Writer::always(target.ingest.clone(), path);
        let fault = writer.write(&target.org, &one(Values::text("a\0b"))).await.unwrap_err();
        assert_eq!(fault.verdict, Verdict::Data, "{fault}");
        let _ = writer.write(&target.org, &one(Values::text("ab"))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_holds_one_org_until_it_is_granted_again() {
    let target = Target::fresh().await;
    let north = org(2, "north");
    super::add_org(&target.ingest, 2, &north).await;
    let writer = Writer::new(target.ingest.clone());
    let work = one(Values::number(1.0));
    target.owner.run("revoke insert on core.values_demo from haystack_ingest").await.unwrap();
    let fault = writer.write(&target.org, &work).await.unwrap_err();
    assert_eq!(fault.verdict, Verdict::Hold);
    assert!(fault.reason.contains("values_demo"), "{fault}");
    let access = store::inspect::access(&target.owner, "haystack_ingest").await.unwrap();
    let missing: Vec<_> = access.into_iter().map(|access| access.missing).collect();
    assert_eq!(missing, [vec!["insert on core.values_demo".to_owned()], vec![]]);
    let _ = writer.write(&north, &work).await.unwrap();
    target.owner.run("grant insert on core.values_demo to haystack_ingest").await.unwrap();
    let _ = writer.write(&target.org, &work).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_a_read_only_server_and_a_server_away_hold() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    let work = one(Values::number(1.0));
    let fault = writer.write(&org(9, "nowhere"), &work).await.unwrap_err();
    assert_eq!((fault.verdict, fault.sqlstate.as_deref()), (Verdict::Hold, Some("42P01")));

    let name = target.raw.name();
    let read_only =
        |on| format!("alter database \"{name}\" set default_transaction_read_only = {on}");
    target.owner.run(&read_only("on")).await.unwrap();
    let login =
        Login { url: target.raw.ingest_url(), pgpass: Some(target.raw.passfile().to_owned()) };
    let fresh = Database::open(&login, "haystack-test", Limits::default()).unwrap();
    let fault = Writer::new(fresh).write(&target.org, &work).await.unwrap_err();
    assert_eq!((fault.verdict, fault.sqlstate.as_deref()), (Verdict::Hold, Some("25006")));

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = Login { url: format!("postgres://x@127.0.0.1:{port}/x"), pgpass: None };
    let limits = Limits { connect: Duration::from_millis(200), ..Limits::default() };
    let silent = Database::open(&silent, "haystack-test", limits).unwrap();
    assert_eq!(silent.ping().await.unwrap_err().verdict, Verdict::Hold);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_and_a_tombstone_wait_for_each_other() {
    let target = Target::fresh().await;
    let writer = Writer::new(target.ingest.clone());
    let version = row(1, at(0), 9, Values::default()).version;
    let tombstone = DeletionRow { entity: EntityId(1), from: at(0), to: at(9), version };
    let deletions = Work { rows: vec![], deletions: vec![tombstone], ..Work::default() };
    let live = one(Values::number(1.0));
    for _ in 0..20 {
        target.clear().await;
        let (a, b, c) = tokio::join!(
            writer.write(&target.org, &live),
            writer.write(&target.org, &deletions),
            writer.write(&target.org, &live),
        );
        for committed in [a, b, c] {
            let _ = committed.unwrap();
        }
        let tables = read::tables(&target.ingest, &target.org).await.unwrap();
        assert!(tables.values.is_empty());
        assert!(read::current(&target.ingest, &target.org).await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_a_restart_cut_are_replaced() {
    let server = testkit::Postgres::start().await;
    let raw = server.database().await;
    let (owner, _) = super::open(&raw);
    store::migrate::run(&owner).await.unwrap();
    let _ = tokio::join!(owner.ping(), owner.ping(), owner.ping());
    server.restart9().await;
    // The first may meet a dead connection; the others are then tried before they are used.
    let _ = owner.ping().await;
    for _ in 0..3 {
        owner.ping().await.unwrap();
    }
}
