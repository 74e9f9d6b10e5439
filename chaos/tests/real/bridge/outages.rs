//! Servers that go away, connections that are cut, a stream that is full.

use super::{DEVICE, Stage, dead::limit, number, proxy::Proxy, reading};
use domain::raw::MAX_PAYLOAD;
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};
use testkit::eventually;

#[tokio::test]
async fn a_killed_stream_server_loses_nothing() {
    const SENT: u32 = 10_000;
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    let publishing = stage.publish(DEVICE, (0..SENT).map(reading));
    let killing = async {
        raw_reaches(&stage, 500).await;
        stage.nats.restart9().await;
    };
    tokio::join!(publishing, killing);
    stage.all_normalized(SENT).await;
    in_order(&stage, SENT).await;
    bridge.flows().await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_restarted_broker_loses_nothing_that_it_had_said_yes_to() {
    const ROUNDS: u32 = 3;
    const A_ROUND: u32 = 2_000;
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    for round in 0..ROUNDS {
        stage.publish(DEVICE, (round * A_ROUND..(round + 1) * A_ROUND).map(reading)).await;
        stage.mosquitto.stop().await;
        let why = bridge.held("mqtt").await;
        assert!(why.contains("MQTT broker"), "{why}");
        stage.mosquitto.launch().await;
    }
    stage.all_normalized(ROUNDS * A_ROUND).await;
    in_order(&stage, ROUNDS * A_ROUND).await;
    bridge.flows().await;
    bridge.stop().await;
}

#[tokio::test]
async fn cut_connections_keep_the_order_of_a_device() {
    const SENT: u32 = 20_000;
    const CUTS: usize = 8;
    let stage = Stage::start().await;
    let proxy = Proxy::to(stage.mosquitto.port()).await;
    let bridge = stage.bridge_at(&proxy.url()).await;
    let publishing = stage.publish(DEVICE, (0..SENT).map(reading));
    let cutting = async {
        for cut in 0..CUTS {
            raw_reaches(&stage, 100 + cut * SENT as usize / 2 / CUTS).await;
            proxy.cut();
        }
    };
    tokio::join!(publishing, cutting);
    stage.counts("redelivered", 1).await;
    stage.all_normalized(SENT).await;
    in_order(&stage, SENT).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_full_stream_pushes_back_to_the_broker_and_flows_again() {
    const SENT: u32 = 5_000;
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    limit(&stage, "RAW", 16 << 10).await;
    // The broker takes them all: the pressure ends at its queue.
    stage.publish(DEVICE, (0..SENT).map(reading)).await;
    let why = bridge.held("raw").await;
    assert!(why.contains("maximum bytes"), "{why}");
    let stored = stage.raw_of_device().await.len();
    assert!(stored < SENT as usize / 2, "{stored}");
    limit(&stage, "RAW", 1 << 30).await;
    stage.all_normalized(SENT).await;
    // Nothing came again: the connection lived while it was held.
    let numbers: Vec<u32> = stage.raw_of_device().await.iter().map(|p| number(p)).collect();
    assert_eq!(numbers, (0..SENT).collect::<Vec<_>>());
    bridge.flows().await;
    bridge.stop().await;
}

/// What may wait in the bridge's memory, with one message that is being taken.
const MAX_WAITING: usize = (64 << 20) + MAX_PAYLOAD;

#[tokio::test]
async fn what_waits_for_a_full_stream_is_bounded_in_bytes() {
    const LARGE: usize = 4 << 20;
    const SENT: usize = 24;
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    limit(&stage, "RAW", 16 << 10).await;
    let large = format!("\"{}\"", "x".repeat(LARGE));
    stage.publish(DEVICE, (0..SENT).map(|_| large.clone())).await;
    bridge.held("raw").await;
    let before = AtomicU64::new(0);
    let taken = eventually("a standstill", || async {
        let now = stage.report().await.counters["messages"];
        if before.swap(now, Ordering::Relaxed) == now {
            Ok(now as usize)
        } else {
            Err(format!("{now} taken"))
        }
    });
    let taken = taken.await;
    assert!(taken > 2 && taken * LARGE <= MAX_WAITING, "{taken} taken");
    limit(&stage, "RAW", 1 << 30).await;
    eventually("all of them", || async {
        let bytes = nats::inspect::stream(&stage.admin, "RAW").await.unwrap().bytes;
        if bytes > (SENT * LARGE) as u64 { Ok(()) } else { Err(format!("{bytes} bytes")) }
    })
    .await;
    bridge.stop().await;
}

/// Waits until so many messages are in `RAW`. It may be away meanwhile.
async fn raw_reaches(stage: &Stage, count: usize) {
    eventually(&format!("{count} messages in RAW"), || async {
        let now = stage.raw().await.len();
        if now >= count { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
}

/// Each number is in `RAW`, and where a message came again, it did in the order of sending: the
/// first times are in order, and so are the last times, which count.
async fn in_order(stage: &Stage, sent: u32) {
    let numbers: Vec<u32> = stage.raw_of_device().await.iter().map(|p| number(p)).collect();
    let once = |numbers: &mut dyn Iterator<Item = u32>| {
        let mut seen = BTreeSet::new();
        numbers.filter(|n| seen.insert(*n)).collect::<Vec<_>>()
    };
    let first = once(&mut numbers.iter().copied());
    let mut last = once(&mut numbers.iter().rev().copied());
    last.reverse();
    assert_eq!(first, (0..sent).collect::<Vec<_>>());
    assert_eq!(last, first);
}
