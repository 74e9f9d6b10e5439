//! Outages hold, say so, and end by themselves.

use super::house::{House, batch, group, held, reading, until};
use domain::Values;

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_grant_holds_one_org_of_one_target() {
    let house = House::new().await;
    house.add_org("north").await;
    let instance = house.start().await;
    for key in ["demo", "north"] {
        house.publish(key, &reading(1, 1, 1.0)).await;
        house.drained("primary", key).await;
        house.drained("secondary", key).await;
    }
    let owner = &house.base("primary").owner;
    owner.run("revoke insert on core.values_demo from haystack_ingest").await.unwrap();
    for n in 2..50 {
        house.publish("demo", &reading(1, n, 1.0)).await;
        house.publish("north", &reading(1, n, 1.0)).await;
    }
    let why = held(&instance, "primary/demo").await;
    assert!(why.contains("values_demo") && why.contains("42501"), "{why}");
    house.drained("primary", "north").await;
    house.drained("secondary", "demo").await;
    house.drained("secondary", "north").await;
    assert!(house.lag("primary", "demo").await > Some(0));
    assert_eq!(instance.holds.list().len(), 1);

    owner.run("grant insert on core.values_demo to haystack_ingest").await.unwrap();
    for key in ["demo", "north"] {
        house.all_equal_the_stream(key).await;
    }
    until("nothing to be held", async || instance.holds.list().is_empty()).await;
    assert!(house.letters().await.is_empty());
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn orgs_that_are_held_leave_the_memory_to_the_others() {
    const SMALL: i64 = 12_000;
    let house = &House::new().await;
    let instance = house.start().await;
    let owner = &house.base("primary").owner;
    let heavy = (0..16).map(|n| (n, 1, Values::text("x".repeat(60_000)))).collect();
    let heavy = batch(vec![group(None, heavy)]);
    for key in ["a", "b", "c", "d"] {
        house.add_org(key).await;
        house.publish(key, &reading(1, 1, 1.0)).await;
        house.drained("primary", key).await;
        let sql = format!("revoke insert on core.values_{key} from haystack_ingest");
        owner.run(&sql).await.unwrap();
        for _ in 0..24 {
            house.publish(key, &heavy).await;
        }
        held(&instance, &format!("primary/{key}")).await;
    }
    // Starved of memory, each of these messages is a transaction of its own: some hundred a second.
    for chunk in 0..SMALL / 1_000 {
        let many = (0..1_000).map(|n| chunk * 1_000 + n);
        let all = many.map(|n| async move { house.publish("demo", &reading(1, n, 1.0)).await });
        futures_util::future::join_all(all).await;
    }
    house.drained("primary", "demo").await;
    for key in ["a", "b", "c", "d"] {
        assert!(house.lag("primary", key).await > Some(0));
        let sql = format!("grant insert on core.values_{key} to haystack_ingest");
        owner.run(&sql).await.unwrap();
        house.all_equal_the_stream(key).await;
    }
    assert!(house.letters().await.is_empty());
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_platform_is_named_and_left_alone() {
    let mut house = House::new().await;
    house.add_target("other", testkit::postgres::shared().await).await;
    let foreign = "update core.model_position set sequence = 1000";
    house.base("other").owner.run(foreign).await.unwrap();
    let instance = house.start().await;
    let why = held(&instance, "other/MODEL").await;
    assert!(why.contains("another platform's MODEL"), "{why}");
    house.publish("demo", &reading(1, 1, 1.0)).await;
    house.drained("primary", "demo").await;
    house.drained("secondary", "demo").await;
    assert_eq!(house.lag("other", "demo").await, None);
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_holds_the_model_and_not_the_readings() {
    let house = House::new().await;
    let instance = house.start().await;
    house.publish("demo", &reading(1, 1, 1.0)).await;
    house.drained("primary", "demo").await;
    let garbage = nats::publish::Outgoing::new("model.demo.entity.1", "g", "garbage".into());
    nats::publish::publish(&house.admin, garbage).await.unwrap();
    let why = held(&instance, "primary/MODEL").await;
    assert!(why.contains("model.demo.entity.1"), "{why}");
    house.publish("demo", &reading(1, 2, 1.0)).await;
    house.drained("primary", "demo").await;
    house.drained("secondary", "demo").await;
    assert!(house.letters().await.is_empty());
    assert!(instance.stop().await, "it drains");
}
