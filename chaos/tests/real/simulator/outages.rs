//! Services killed and frozen, servers killed, a stream that is full.

use super::{create, services, start, tell};
use domain::failpoint;
use futures_util::future::join_all;
use std::time::Duration;
use testkit::{Failpoint, Platform, eventually};

const DAY: &str = "2026-01-06T00:00:00Z";

#[tokio::test]
async fn dead_after_publish_before_its_state_is_saved() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 1).await;
    let failpoint = Failpoint { name: failpoint::BEFORE_STATE_SAVE, passes: 2 };
    let mut doomed = platform.doomed("simulator", failpoint);
    // It may die before it answers.
    let id = oracle.id.to_string();
    eventually("it to die", || async {
        platform.command(&["simulator", "start", &id, "--until", DAY]);
        if doomed_at(&platform) { Ok(()) } else { Err("it lives".to_owned()) }
    })
    .await;
    doomed.died_at(failpoint).await;
    let _simulator = platform.service("simulator");
    oracle.arrives(&platform, DAY).await;
}

fn doomed_at(platform: &Platform) -> bool {
    platform.config().with_file_name("simulator.failpoint").exists()
}

#[tokio::test]
async fn services_killed_again_and_again() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 2).await;
    let mut simulator = platform.service("simulator");
    // A simulated day in some eight seconds.
    start(&platform, &oracle, 10_000, DAY).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        simulator.kill9().await;
        simulator = platform.service("simulator");
    }
    oracle.arrives(&platform, DAY).await;
}

#[tokio::test]
async fn two_services_five_simulators_and_one_service_that_freezes_and_wakes() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracles = join_all((0..5).map(|n| create(&platform, "many", 10 + n))).await;
    let mut frozen = platform.instance("simulator", "one");
    join_all(oracles.iter().map(|oracle| start(&platform, oracle, 10_000, DAY))).await;
    let _other = platform.instance("simulator", "two");
    frozen.freeze();
    // Longer than the lease: the other takes over what this one had.
    tokio::time::sleep(Duration::from_secs(4)).await;
    frozen.thaw();
    for oracle in &oracles {
        oracle.arrives(&platform, DAY).await;
    }
    assert!(frozen.stop().await.success());
    let startups = oracles.iter().map(|oracle| {
        let id = oracle.id.to_string();
        platform.succeed(&["simulator", "activity", &id]).matches("took it over").count()
    });
    assert!(startups.sum::<usize>() >= 2 * oracles.len(), "each was taken over");
}

#[tokio::test]
async fn stream_server_and_state_database_killed() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 3).await;
    let _simulator = platform.service("simulator");
    start(&platform, &oracle, 10_000, DAY).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    platform.nats.restart9().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    platform.primary_cluster.restart9().await;
    oracle.arrives(&platform, DAY).await;
}

#[tokio::test]
async fn a_full_stream_is_waited_for_and_the_gap_is_filled() {
    // So small that a day does not fit.
    let platform = Platform::with_simulators("streams.readings_max_bytes = 200000").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 4).await;
    let _simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    tell(&platform, &["start", &id, "--until", DAY]).await;
    eventually("the full stream to be named", || async {
        let state = platform.succeed(&["simulator", "state", &id]);
        let waits = state.contains("\"waiting\"") && state.contains("maximum bytes");
        if waits { Ok(()) } else { Err(state) }
    })
    .await;
    // It can be told to stop while it waits; what it is told then, it says when it is through.
    tell(&platform, &["stop", &id]).await;
    platform.configure("");
    platform.succeed(&["migrate"]);
    tell(&platform, &["start", &id, "--until", DAY]).await;
    oracle.arrives(&platform, DAY).await;
}

#[tokio::test]
async fn a_lost_bucket_of_leases_fences_nobody_for_ever() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 5).await;
    let noon = "2026-01-05T12:00:00Z";
    let mut simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    tell(&platform, &["start", &id, "--until", noon]).await;
    oracle.arrives(&platform, noon).await;
    simulator.kill9().await;
    // Its sequences begin at one again, below every epoch that there was.
    oracle.lose_leases().await;
    platform.succeed(&["migrate"]);
    let _simulator = platform.service("simulator");
    tell(&platform, &["start", &id, "--until", DAY]).await;
    oracle.arrives(&platform, DAY).await;
}
