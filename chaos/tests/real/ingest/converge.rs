//! Whatever order and repetition, every target holds what the stream asks for.

use super::house::{House, batch, group, held, origin, reading, tombstone, until};
use domain::{Batch, Values};
use std::time::Duration;
use testkit::Postgres;

/// Readings of a few entities and moments, many versions of each, tombstones among them; from a
/// seed, in no order.
fn history(messages: u64, seed: u64) -> Vec<Batch> {
    let mut state = seed;
    let mut random = move |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut history = Vec::new();
    for _ in 0..messages {
        let mut groups = Vec::new();
        for _ in 0..=random(4) {
            let sequence = 1 + random(500);
            // A message's content is a function of its origin: whoever repeats one repeats that.
            let sample = |n: u64| {
                let (entity, ts) = ((sequence + n) % 7, (sequence * 3 + n) % 50);
                (entity as i32, ts as i64, Values::number((sequence * 10 + n) as f64))
            };
            groups.push(group(Some(origin(sequence)), (0..sequence % 9).map(sample).collect()));
        }
        let mut deletions = Vec::new();
        if random(6) == 0 {
            let (sequence, from) = (501 + random(200), random(50) as i64);
            let entities = [random(7) as i32, 6 - random(7) as i32];
            deletions.push(tombstone(
                origin(random(2) * 300 + sequence),
                &entities,
                from,
                from + 9,
            ));
        }
        history.push(Batch { groups, deletions, ..Batch::default() });
    }
    history
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_and_all_over_again() {
    let house = House::new().await;
    let instance = house.start().await;
    for message in history(120, 7) {
        house.publish("demo", &message).await;
    }
    house.all_equal_the_stream("demo").await;
    assert!(!house.expected("demo").await.values.is_empty());
    assert!(house.letters().await.is_empty());
    // Everything comes again, and changes nothing.
    assert!(instance.stop().await, "it drains");
    for name in ["primary", "secondary"] {
        house.forget(name, "demo").await;
    }
    let instance = house.start().await;
    until("everything to be delivered again", async || {
        house.lag("primary", "demo").await.is_some()
    })
    .await;
    house.publish("demo", &reading(1, 1, 1.0)).await;
    house.all_equal_the_stream("demo").await;
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_share_the_work_and_one_may_leave() {
    let house = House::new().await;
    let (one, two) = (house.start().await, house.start().await);
    let north = house.add_org("north").await;
    assert_eq!(north.id.0, 2);
    for (n, message) in history(200, 11).iter().enumerate() {
        house.publish(["demo", "north"][n % 2], message).await;
    }
    assert!(one.stop().await, "it drains");
    for message in history(50, 13) {
        house.publish("north", &message).await;
    }
    for key in ["demo", "north"] {
        house.all_equal_the_stream(key).await;
    }
    assert!(two.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_empty_database_fills_itself() {
    let mut house = House::new().await;
    house.add_org("north").await;
    let instance = house.start().await;
    for (n, message) in history(60, 17).iter().enumerate() {
        house.publish(["demo", "north"][n % 2], message).await;
    }
    house.drained("primary", "demo").await;
    assert!(instance.stop().await, "it drains");

    house.add_target("third", testkit::postgres::shared().await).await;
    let instance = house.start().await;
    for key in ["demo", "north"] {
        house.all_equal_the_stream(key).await;
    }
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_that_is_away_delays_nobody_and_catches_up() {
    let away = Postgres::start().await;
    let mut house = House::without_targets().await;
    house.add_target("primary", testkit::postgres::shared().await).await;
    house.add_target("secondary", &away).await;
    house.add_org("demo").await;
    let instance = house.start().await;
    house.publish("demo", &reading(1, 1, 1.0)).await;
    house.drained("secondary", "demo").await;

    away.stop().await;
    for message in history(80, 19) {
        house.publish("demo", &message).await;
    }
    house.drained("primary", "demo").await;
    let why = held(&instance, "secondary/demo").await;
    assert!(!why.is_empty());
    assert!(house.lag("secondary", "demo").await > Some(0));
    // An instance that starts in the middle of the outage serves the primary too.
    assert!(instance.stop().await, "it drains");
    let instance = house.start().await;
    house.publish("demo", &reading(2, 2, 2.0)).await;
    house.drained("primary", "demo").await;

    away.launch().await;
    house.all_equal_the_stream("demo").await;
    until("nothing to be held", async || instance.holds.list().is_empty()).await;
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_and_small_messages_goes_through_small_limits() {
    let mut house = House::new().await;
    house.config.ingest.batch_rows = 100;
    house.config.ingest.batch_bytes = 20_000;
    let samples = |n: i64| {
        let text = "x".repeat(n as usize * 40);
        (0..n).map(|i| (i as i32, n * 1_000 + i, Values::text(text.clone()))).collect()
    };
    for n in [1, 50, 99, 100, 101, 250, 1, 2, 3] {
        house.publish("demo", &batch(vec![group(None, samples(n))])).await;
    }
    let instance = house.start().await;
    house.all_equal_the_stream("demo").await;
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_server_restarts_in_the_middle() {
    let house = House::new().await;
    let instance = house.start().await;
    house.publish("demo", &reading(1, 1, 1.0)).await;
    house.drained("primary", "demo").await;
    for message in history(100, 23) {
        house.publish("demo", &message).await;
    }
    house.nats.restart9().await;
    until("the server to answer", async || {
        let asked = nats::inspect::stream(&house.admin, "TELEMETRY");
        matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(_)))
    })
    .await;
    house.publish("demo", &reading(2, 2, 2.0)).await;
    house.all_equal_the_stream("demo").await;
    assert!(instance.stop().await, "it drains");
}
