//! What leaves the streams, and what stays.

use nats::publish::Outgoing;
use serde_json::Value;
use testkit::{
    Platform, eventually,
    judge::{Numbered, payload},
};

/// Small enough to be filled, by some twelve thousand readings, and large enough for a pack to fit above the
/// high-water mark.
const LIMIT: &str = "streams.readings_max_bytes = 2000000\nretention.history_hours = 0\n";

fn stream(platform: &Platform, name: &str) -> Value {
    let status: Value = serde_json::from_str(&platform.succeed(&["status", "--json"])).unwrap();
    let mut streams = status["streams"].as_array().unwrap().iter();
    streams.find(|stream| stream["name"] == name).unwrap().clone()
}

/// One hundredth of that.
const MARK: u64 = 20_000;

/// Waits until a stream is below the high-water mark.
async fn trimmed(platform: &Platform, name: &str) {
    eventually(&format!("{name} is trimmed"), || async {
        let stream = stream(platform, name);
        if stream["bytes"].as_u64().unwrap() <= MARK { Ok(()) } else { Err(stream.to_string()) }
    })
    .await;
}

/// Waits until the one who keeps what is too old in `TELEMETRY` is named.
async fn overdue(platform: &Platform, who: &str) {
    eventually(&format!("{who} is waited for"), || async {
        let telemetry = stream(platform, "TELEMETRY");
        if telemetry["overdue"] == who { Ok(()) } else { Err(telemetry.to_string()) }
    })
    .await;
}

fn of(device: &str, entity: i32, sent: u32) -> Numbered {
    Numbered { device: device.to_owned(), entity, sent }
}

async fn everywhere(platform: &Platform, readings: &Numbered) {
    for database in [&platform.primary, &platform.secondary] {
        readings.arrives(database, "demo").await;
    }
}

/// Several times as much as the streams may hold passes through them.
#[tokio::test]
async fn full_streams_flow_while_all_targets_are_current_and_letters_keep_what_they_are_about() {
    let platform = Platform::start(LIMIT).await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("FULL-1");
    platform.publish("devices/LATE-9/telemetry", (0..50).map(payload)).await;
    // And one message of which nothing can be read.
    let wire = crate::ingest::connect(&platform.nats, "bridge").await;
    let rubbish = Outgoing::without_id("raw.mqtt.test", "rubbish".into());
    nats::publish::publish(&wire, rubbish).await.unwrap();
    let each = 6_000;
    for round in 0..5 {
        platform
            .publish("devices/FULL-1/telemetry", (round * each..(round + 1) * each).map(payload))
            .await;
        everywhere(&platform, &of("FULL-1", entity, (round + 1) * each)).await;
    }
    let listed = |what: &[&str]| {
        let letters = [&["dead-letters", "list", "--json", "--limit", "1000"], what].concat();
        let letters: Value = serde_json::from_str(&platform.succeed(&letters)).unwrap();
        letters.as_array().unwrap().clone()
    };
    let letters = listed(&[]);
    assert_eq!(letters.len(), 51);
    let metrics = stream(&platform, "RAW");
    assert!(metrics["bytes"].as_u64().unwrap() <= 2_000_000, "{metrics}");

    // What they are about has left RAW.
    let late = letters.iter().find(|letter| letter["sender"] == "LATE-9").unwrap();
    let number = late["number"].to_string();
    let shown = platform.succeed(&["dead-letters", "show", &number]);
    assert!(shown.contains("temperature"), "{shown}");
    let (_, late) = platform.add_device("LATE-9");
    let told = platform.command(&["dead-letters", "redrive", "--all", "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["delivered"], &told["again"]), (&50.into(), &1.into()), "{told}");
    everywhere(&platform, &of("LATE-9", late, 50)).await;
    let left = listed(&[]);
    assert_eq!((left.len(), &left[0]["reason"]), (1, &"undecodable".into()), "{left:?}");
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}

/// What a target that is away has not applied stays until it was let go.
#[tokio::test]
async fn nothing_goes_that_a_registered_target_needs() {
    let platform = Platform::start(&format!("{LIMIT}retention.high_water_percent = 1\n")).await;
    let (bridge, mut ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("AWAY-1");
    platform.publish("devices/AWAY-1/telemetry", (0..10).map(payload)).await;
    everywhere(&platform, &of("AWAY-1", entity, 10)).await;
    platform.secondary_cluster.stop().await;
    platform.publish("devices/AWAY-1/telemetry", (10..3_500).map(payload)).await;
    let readings = of("AWAY-1", entity, 3_500);
    readings.arrives(&platform.primary, "demo").await;
    overdue(&platform, "ingest-secondary-demo").await;
    platform.secondary_cluster.launch().await;
    everywhere(&platform, &readings).await;
    trimmed(&platform, "TELEMETRY").await;
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;

    // One that is registered and has no consumer has applied nothing.
    ingest.stop().await;
    let third = "targets.third.url = \"postgresql://nobody@127.0.0.1:1/nothing\"\n";
    platform.configure(&format!("{LIMIT}retention.high_water_percent = 1\n{third}"));
    let _ingest = platform.service("ingest");
    eventually("it is registered", || async {
        let listed = platform.succeed(&["targets", "list"]);
        let line = listed.lines().find(|line| line.starts_with("third")).unwrap_or_default();
        if line.contains("attached since") { Ok(()) } else { Err(listed) }
    })
    .await;
    platform.publish("devices/AWAY-1/telemetry", (3_500..6_500).map(payload)).await;
    let readings = of("AWAY-1", entity, 6_500);
    everywhere(&platform, &readings).await;
    overdue(&platform, "ingest-third-demo").await;
    let asked = platform.fail(&["targets", "detach", "third"]);
    assert!(asked.is_empty(), "{asked}");
    let primary = platform.fail(&["targets", "detach", "primary", "--yes"]);
    assert!(primary.contains("is the primary"), "{primary}");
    platform.succeed(&["targets", "detach", "third", "--yes"]);
    trimmed(&platform, "TELEMETRY").await;
    let status = platform.succeed(&["status"]);
    assert!(status.contains("targets attach third"), "{status}");
    drop(bridge);
}

/// A target that this process is the first to know is waited for from the start.
#[tokio::test]
async fn nothing_goes_before_every_target_of_the_process_is_registered() {
    let platform = Platform::start(LIMIT).await;
    let (_bridge, mut ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("FIRST-1");
    platform.publish("devices/FIRST-1/telemetry", (0..500).map(payload)).await;
    everywhere(&platform, &of("FIRST-1", entity, 500)).await;
    ingest.stop().await;
    let before = stream(&platform, "TELEMETRY")["messages"].clone();
    let third = "targets.third.url = \"postgresql://nobody@127.0.0.1:1/nothing\"\n";
    platform.configure(&format!("{LIMIT}retention.high_water_percent = 0\n{third}"));
    for _ in 0..3 {
        let mut ingest = platform.service("ingest");
        overdue(&platform, "ingest-third-demo").await;
        ingest.stop().await;
    }
    assert_eq!(stream(&platform, "TELEMETRY")["messages"], before);
}
