//! Migrations and the functions they leave behind.

use super::{Target, add_org, database, open, org};
use store::{inspect, migrate};

#[tokio::test(flavor = "multi_thread")]
async fn migrations_run_twice_and_by_two_at_once() {
    let raw = database().await;
    let (owner, _) = open(&raw);
    assert_eq!(inspect::migrations(&owner).await.unwrap(), inspect::Migrations::Missing(8));
    let (a, b, c) = tokio::join!(migrate::run(&owner), migrate::run(&owner), migrate::run(&owner));
    for done in [a, b, c] {
        done.unwrap();
    }
    migrate::run(&owner).await.unwrap();
    assert_eq!(inspect::migrations(&owner).await.unwrap(), inspect::Migrations::Current);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_version_is_named_and_left_alone() {
    let target = Target::fresh().await;
    let foreign = "insert into core.schema_migrations values \
        (9999, 'from the future', now(), true, '\\x00', 0)";
    target.owner.run(foreign).await.unwrap();
    let error = migrate::run(&target.owner).await.unwrap_err().to_string();
    assert!(error.contains("another version"), "{error}");
    assert_eq!(inspect::migrations(&target.owner).await.unwrap(), inspect::Migrations::Foreign);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_tables_are_made_again_and_by_two_at_once() {
    let target = Target::fresh().await;
    let north = org(2, "north");
    tokio::join!(add_org(&target.ingest, 2, &north), add_org(&target.owner, 2, &north));
    add_org(&target.ingest, 2, &north).await;
    let access = inspect::access(&target.owner, "haystack_ingest").await.unwrap();
    assert!(access.iter().all(|access| access.missing.is_empty()), "{access:?}");
    assert_eq!(access.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_that_makes_tables_takes_nothing_but_org_keys() {
    let target = Target::fresh().await;
    for key in ["", "x_current", "A", "a\"; drop table core.org; --", &"a".repeat(32)] {
        let sql = format!("select core.create_values_tables($key${key}$key$)");
        assert!(target.ingest.run(&sql).await.is_err(), "{key}");
    }
    assert!(target.ingest.run("select core.create_values_tables(null)").await.is_err());
    assert!(target.ingest.run("create table core.mine ()").await.is_err());
    assert!(target.ingest.run("select core.grant_access()").await.is_err());
    assert!(target.ingest.run("drop table core.values_demo").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_role_may_own_and_write() {
    let raw = database().await;
    let (owner, _) = open(&raw);
    migrate::run(&owner).await.unwrap();
    let demo = org(1, "demo");
    add_org(&owner, 1, &demo).await;
    let work = super::rows(vec![super::row(1, super::at(0), 1, domain::Values::boolean(true))]);
    let _ = store::Writer::new(owner).write(&demo, &work).await.unwrap();
}
