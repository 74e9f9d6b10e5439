//! The way of a reading, and a clean stop.

use super::{DEVICE, Stage, number, reading};
use domain::{DeviceId, EntityId, OriginStream, Values};
use testkit::eventually;

#[tokio::test]
async fn a_reading_of_a_client_that_is_not_ours_is_normalized() {
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    let payload = "{\"ts\":\"2026-01-01T00:00:00Z\",\"temperature\":21.5,\"humidity\":40.2}";
    stage.publish(DEVICE, [payload.to_owned()]).await;
    let batch = eventually("a batch", || async {
        stage.telemetry().await.pop().ok_or_else(|| "nothing".to_owned())
    })
    .await;
    let [group] = &batch.groups[..] else { panic!("one group: {batch:?}") };
    let origin = group.origin.unwrap();
    assert_eq!((origin.stream, origin.index), (OriginStream::Raw, 0));
    let raw = stage.admin.jetstream.get_stream("RAW").await.unwrap();
    let message = raw.get_raw_message(origin.sequence).await.unwrap();
    let stored = message.time.unix_timestamp_nanos() / 1_000;
    assert_eq!(i128::from(origin.accepted_at.micros()), stored);
    assert_eq!((group.device.clone(), group.profile_version), (DeviceId::parse(DEVICE).ok(), 1));
    let found: Vec<_> = group.samples.iter().map(|s| (s.entity, s.values.clone())).collect();
    let wanted = [(EntityId(2), Values::number(40.2)), (EntityId(1), Values::number(21.5))];
    assert_eq!(found, wanted);
    assert_eq!(stage.raw_of_device().await, [payload]);
    stage.counts("readings", 2).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_clean_stop_under_load_loses_nothing_and_repeats_nothing() {
    const SENT: u32 = 20_000;
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    let publishing = stage.publish(DEVICE, (0..SENT).map(reading));
    let stopping = async {
        eventually("some messages", || async {
            let some = stage.raw().await.len();
            if some > 500 { Ok(()) } else { Err(format!("{some}")) }
        })
        .await;
        // Its session stays: what is published now waits at the broker.
        bridge.stop().await;
        stage.bridge().await
    };
    let ((), bridge) = tokio::join!(publishing, stopping);
    stage.all_normalized(SENT).await;
    let numbers: Vec<u32> = stage.raw_of_device().await.iter().map(|p| number(p)).collect();
    assert_eq!(numbers, (0..SENT).collect::<Vec<_>>(), "once each, in order");
    bridge.stop().await;
}
