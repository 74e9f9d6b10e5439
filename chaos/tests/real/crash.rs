//! Every crash window on purpose: a service dies at each named place, is frozen, is killed while
//! readings flow; the stream server too. Nothing may be lost, doubled or changed.

use domain::failpoint;
use std::time::Duration;
use testkit::{
    Failpoint, Platform, Process,
    judge::{Numbered, payload},
};

const TOPIC: &str = "devices/CRASH-1/telemetry";

/// A platform with one device, and the judge of its readings.
async fn platform(sent: u32, extra: &str) -> (Platform, Numbered) {
    let platform = Platform::start(extra).await;
    let (_, entity) = platform.add_device("CRASH-1");
    (platform, Numbered { device: "CRASH-1".to_owned(), entity, sent })
}

async fn everywhere(platform: &Platform, readings: &Numbered) {
    tokio::join!(
        readings.arrives(&platform.primary, "demo"),
        readings.arrives(&platform.secondary, "demo")
    );
    platform.balances().await;
}

/// One service dies at the failpoint while readings flow, and is started again.
async fn survives(role: &str, failpoint: Failpoint) {
    let (platform, readings) = platform(2_000, "").await;
    let mut doomed = platform.doomed(role, failpoint);
    let other = if role == "bridge" { "ingest" } else { "bridge" };
    let _other = platform.service(other);
    let publishing = platform.publish(TOPIC, (0..readings.sent).map(payload));
    let dying = async {
        doomed.died_at(failpoint).await;
        platform.service(role)
    };
    let ((), _again) = tokio::join!(publishing, dying);
    everywhere(&platform, &readings).await;
}

#[tokio::test]
async fn dead_after_fsync_before_puback() {
    survives("bridge", Failpoint { name: failpoint::BEFORE_PUBACK, passes: 1 }).await;
}

/// A device without a clock says the same again and again: each time counts, and none twice.
#[tokio::test]
async fn dead_before_puback_a_reading_without_a_time_counts_once() {
    const SENT: i64 = 2_000;
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    let file = platform.config().with_file_name("untimed.yaml");
    let text = "device_type: untimed\nprocessing_mode: endpoint\nprotocol_adapter: json\n\
                metrics: { level: { pointer: /level, kind: number } }\n";
    std::fs::write(&file, text).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    platform.succeed(&["device", "add", "NO-CLOCK", "--type", "untimed"]);
    let _ingest = platform.service("ingest");
    let failpoint = Failpoint { name: failpoint::BEFORE_PUBACK, passes: 1 };
    let mut doomed = platform.doomed("bridge", failpoint);
    let lines = std::iter::repeat_n("{\"level\":7}".to_owned(), SENT as usize);
    let dying = async {
        doomed.died_at(failpoint).await;
        platform.service("bridge")
    };
    let ((), _bridge) = tokio::join!(platform.publish("devices/NO-CLOCK/telemetry", lines), dying);
    let sql = "select count(*) from core.values_demo v join core.device_point p using (entity_id) \
               where p.device_id = 'NO-CLOCK' and v.value_n = 7";
    for database in [&platform.primary, &platform.secondary] {
        testkit::eventually("each of them", || async {
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let found: i64 = sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .map_err(|e| e.to_string())?;
            assert!(found <= SENT, "{} too many", found - SENT);
            if found == SENT { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }
}

#[tokio::test]
async fn dead_after_publish_before_raw_is_acknowledged() {
    survives("bridge", Failpoint { name: failpoint::BEFORE_RAW_ACK, passes: 0 }).await;
}

#[tokio::test]
async fn dead_after_commit_before_telemetry_is_acknowledged() {
    survives("ingest", Failpoint { name: failpoint::BEFORE_TELEMETRY_ACK, passes: 1 }).await;
}

#[tokio::test]
async fn dead_in_the_middle_of_a_copy() {
    survives("ingest", Failpoint { name: failpoint::MID_COPY, passes: 1 }).await;
}

/// Kills the process again and again while readings flow.
async fn killed_often(platform: &Platform, role: &str, times: u32) -> Process {
    let mut process = platform.service(role);
    for _ in 0..times {
        // Long enough to connect and to be in the middle of something, never the same place.
        tokio::time::sleep(Duration::from_millis(700)).await;
        process.kill9().await;
        process = platform.service(role);
    }
    process
}

#[tokio::test]
async fn services_killed_again_and_again() {
    let (platform, readings) = platform(20_000, "").await;
    let publishing = platform.publish(TOPIC, (0..readings.sent).map(payload));
    let ((), _bridge, _ingest) = tokio::join!(
        publishing,
        killed_often(&platform, "bridge", 4),
        killed_often(&platform, "ingest", 4)
    );
    everywhere(&platform, &readings).await;
}

#[tokio::test]
async fn stream_server_killed_while_readings_flow() {
    let (platform, readings) = platform(20_000, "").await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    let kills = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            platform.nats.restart9().await;
        }
    };
    tokio::join!(platform.publish(TOPIC, (0..readings.sent).map(payload)), kills);
    everywhere(&platform, &readings).await;
}

#[tokio::test]
async fn frozen_for_longer_than_the_stream_waits() {
    let (platform, readings) = platform(5_000, "nats.ack_wait_seconds = 2").await;
    let bridge = platform.service("bridge");
    let ingest = platform.service("ingest");
    let frozen = async {
        for process in [&bridge, &ingest] {
            process.freeze();
            tokio::time::sleep(Duration::from_secs(3)).await;
            process.thaw();
        }
    };
    tokio::join!(platform.publish(TOPIC, (0..readings.sent).map(payload)), frozen);
    everywhere(&platform, &readings).await;
}

#[tokio::test]
async fn a_stop_is_clean_and_quick() {
    let (platform, readings) = platform(3_000, "").await;
    let mut bridge = platform.service("bridge");
    let mut ingest = platform.service("ingest");
    let stops = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        for process in [&mut bridge, &mut ingest] {
            let started = std::time::Instant::now();
            let status = process.stop().await;
            assert!(status.success(), "{status}\n{}", process.log_tail());
            assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        }
    };
    tokio::join!(platform.publish(TOPIC, (0..readings.sent).map(payload)), stops);
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    everywhere(&platform, &readings).await;
}
