//! Reports in parts through the real binary: all of a report is stored or none of it, once, whoever
//! dies when.

use domain::{chunk::Digest, failpoint};
use serde_json::json;
use testkit::{Failpoint, Platform, Process, eventually};

const GATEWAY: &str = "BG-1";
const TOPIC: &str = "devices/BG-1/telemetry";
const PARTS: u32 = 67;
/// The report that is as large as a large gateway's; the others are smaller, for the test's time.
const LARGE: u32 = 9;

fn beacons(report: u32) -> u32 {
    if report == LARGE { 2_000 } else { 500 }
}

/// The moment of a report.
fn moment(report: u32) -> String {
    format!("2026-01-01T00:{report:02}:00Z")
}

/// The parts of a report.
fn parts(report: u32) -> Vec<String> {
    let beacon = |n: u32| json!({ "mac": format!("AA:{n:05}"), "rssi": -(n as i32) - 1 });
    let beacons = beacons(report);
    let each = beacons.div_ceil(PARTS);
    let part = |index: u32| {
        let to = ((index + 1) * each).min(beacons);
        let data: Vec<_> = ((index * each).min(to)..to).map(beacon).collect();
        json!({ "txn": format!("r {report}"), "index": index, "total": PARTS,
            "sha256": Digest::of(&report.to_be_bytes()).to_string(),
            "ts": moment(report), "data": data })
        .to_string()
    };
    (0..PARTS).map(part).collect()
}

/// The same in another order, every fifth twice.
fn shuffled(parts: &[String]) -> Vec<String> {
    let count = parts.len();
    let mut order: Vec<String> = (0..count).map(|n| parts[n * 29 % count].clone()).collect();
    let twice: Vec<String> = order.iter().step_by(5).cloned().collect();
    order.extend(twice);
    order
}

async fn platform(extra: &str) -> Platform {
    let platform = Platform::start(extra).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/device-types/ble-gateway.yaml");
    platform.succeed(&["device-type", "apply", file]);
    platform.succeed(&["device", "add", GATEWAY, "--type", "ble-gateway"]);
    platform
}

/// How many beacons of a report a database shows, and the sum of what they say.
async fn stored(platform: &Platform, report: u32) -> Result<[String; 2], String> {
    // By their moment: devices that the gateway was the first to speak of may be known later.
    let sql = format!(
        "select count(*) || ' ' || coalesce(sum(value_n), 0) from core.values_demo where ts = '{}'",
        moment(report)
    );
    let mut found = [String::new(), String::new()];
    for (database, found) in [&platform.primary, &platform.secondary].into_iter().zip(&mut found) {
        let mut connection = testkit::platform::connect(&database.superuser()).await?;
        let asked = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone()));
        *found = asked.fetch_one(&mut connection).await.map_err(|error| error.to_string())?;
    }
    Ok(found)
}

/// Waits until both databases have all of a report. Never is a part of one seen.
async fn arrives(platform: &Platform, report: u32) {
    let beacons = beacons(report);
    let all = format!("{beacons} -{}", beacons * (beacons + 1) / 2);
    eventually(&format!("report {report}"), || async {
        let found = stored(platform, report).await?;
        for one in &found {
            assert!(*one == all || one == "0 0", "a part of report {report}: {one}");
        }
        if found == [all.clone(), all.clone()] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// Waits until nothing of any report is left in `CHUNKS`, but marks of ends.
async fn swept(platform: &Platform) {
    eventually("no open transaction", || async {
        let listed = platform.succeed(&["transactions"]);
        if listed.contains("no open transactions") { Ok(()) } else { Err(listed) }
    })
    .await;
}

/// The bridge dies at the failpoint while two reports come, and is started again.
async fn survives(failpoint: Failpoint, reports: [u32; 2]) {
    let platform = platform("nats.ack_wait_seconds = 2").await;
    let _ingest = platform.service("ingest");
    let mut doomed = platform.doomed("bridge", failpoint);
    let lines = reports.map(|report| shuffled(&parts(report))).concat();
    let dying = async {
        doomed.died_at(failpoint).await;
        platform.service("bridge")
    };
    let (_bridge, ()) = tokio::join!(dying, platform.publish(TOPIC, lines));
    for report in reports {
        arrives(&platform, report).await;
    }
    swept(&platform).await;
    let ended = reports.map(|report| format!("r {report} complete 67 of 67 -"));
    on_record(&platform, &[&ended[0], &ended[1]]).await;
    platform.succeed(&["verify"]);
    platform.balances().await;
    assert_eq!(letters(&platform), 0);
}

/// Messages of a stream, as `status` counts them.
fn messages(platform: &Platform, stream: &str) -> u64 {
    let status: serde_json::Value =
        serde_json::from_str(&platform.succeed(&["status", "--json"])).unwrap();
    let mut streams = status["streams"].as_array().expect("streams").iter();
    let found = streams.find(|one| one["name"] == stream).expect("the stream");
    found["messages"].as_u64().expect("a number")
}

fn letters(platform: &Platform) -> u64 {
    messages(platform, "DEAD")
}

/// Waits until both databases have these ends on record, in the order of time.
async fn on_record(platform: &Platform, wanted: &[&str]) {
    let sql = "select transaction_id || ' ' || outcome || ' ' || parts_seen || ' of ' || \
        parts_expected || ' -' || parts_missing from core.telemetry_transactions order by ended_at";
    for database in [&platform.primary, &platform.secondary] {
        eventually("the ends on record", || async {
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let found: Vec<String> = sqlx::query_scalar(sql)
                .fetch_all(&mut connection)
                .await
                .map_err(|e| e.to_string())?;
            if found == wanted { Ok(()) } else { Err(format!("{found:#?}")) }
        })
        .await;
    }
}

#[tokio::test]
async fn dead_between_two_parts() {
    Box::pin(survives(Failpoint { name: failpoint::BEFORE_PUBACK, passes: 1 }, [1, LARGE])).await;
}

#[tokio::test]
async fn dead_after_the_end_is_on_record() {
    Box::pin(survives(Failpoint { name: failpoint::BEFORE_ASSEMBLED, passes: 0 }, [1, 2])).await;
}

#[tokio::test]
async fn dead_after_the_whole_is_stored_before_its_parts_go() {
    Box::pin(survives(Failpoint { name: failpoint::BEFORE_PARTS_REMOVED, passes: 0 }, [1, 2]))
        .await;
}

#[tokio::test]
async fn dead_after_the_parts_went_before_that_is_on_record() {
    Box::pin(survives(Failpoint { name: failpoint::BEFORE_END_DONE, passes: 0 }, [1, 2])).await;
}

/// A gateway without a clock and without digests, whose reports are one part each: the bridge dies
/// after parts are on disk, before the broker knows.
#[tokio::test]
async fn dead_before_puback_a_part_without_a_time_counts_once() {
    const SENT: i64 = 300;
    let platform = platform("nats.ack_wait_seconds = 2").await;
    let file = platform.config().with_file_name("untimed.yaml");
    let text = "device_type: untimed\nprocessing_mode: gateway_chunked\nprotocol_adapter: json\n\
                logical_devices: { pointer: /data, identifier: /mac, unknown: create }\n\
                metrics: { rssi: { pointer: /rssi, kind: number } }\n";
    std::fs::write(&file, text).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    platform.succeed(&["device", "add", "BG-2", "--type", "untimed"]);
    let _ingest = platform.service("ingest");
    let failpoint = Failpoint { name: failpoint::BEFORE_PUBACK, passes: 0 };
    let mut doomed = platform.doomed("bridge", failpoint);
    let line = |n: i64| {
        json!({ "txn": format!("t {n}"), "index": 0, "total": 1,
            "data": [{ "mac": "A", "rssi": 7 }] })
        .to_string()
    };
    let dying = async {
        doomed.died_at(failpoint).await;
        platform.service("bridge")
    };
    let publishing = platform.publish("devices/BG-2/telemetry", (0..SENT).map(line));
    let ((), _bridge) = tokio::join!(publishing, dying);
    let sql = "select count(*) from core.values_demo where value_n = 7";
    for database in [&platform.primary, &platform.secondary] {
        eventually("each report once", || async {
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

/// The stream server hangs for longer than a report may take: nothing expires that could still come.
#[tokio::test]
async fn no_time_passes_while_the_stream_hangs() {
    let platform = platform("bridge.transaction_seconds = 10").await;
    let (_ingest, bridge) = (platform.service("ingest"), platform.service("bridge"));
    bridge.says("subscribed").await;
    let all = parts(1);
    platform.publish(TOPIC, all[..30].to_vec()).await;
    lists(&platform, "30 of 67").await;
    platform.nats.freeze();
    platform.publish(TOPIC, all[30..].to_vec()).await;
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    platform.nats.thaw();
    arrives(&platform, 1).await;
    assert_eq!(letters(&platform), 0);
}

/// Both get every part; both want to end each transaction.
#[tokio::test]
async fn two_bridges_store_a_report_once() {
    let platform = platform("").await;
    let _ingest = platform.service("ingest");
    let bridges = ["bridge-1", "bridge-2"].map(|name| platform.instance("bridge", name));
    for bridge in &bridges {
        bridge.says("subscribed").await;
    }
    platform.publish(TOPIC, (1..=3).flat_map(parts)).await;
    for report in 1..=3 {
        arrives(&platform, report).await;
    }
    swept(&platform).await;
    assert_eq!(messages(&platform, "RAW"), 3, "each is in RAW once");
}

async fn lists(platform: &Platform, part: &str) -> String {
    eventually(&format!("a transaction: {part}"), || async {
        let listed = platform.succeed(&["transactions"]);
        if listed.contains(part) { Ok(listed) } else { Err(listed) }
    })
    .await
}

#[tokio::test]
async fn what_never_comes_expires_and_what_contradicts_supersedes() {
    let platform = platform("bridge.transaction_seconds = 6").await;
    let (_ingest, mut bridge) = (platform.service("ingest"), platform.service("bridge"));
    let all = parts(1);
    let some: Vec<String> = all
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != 3 && *n < 60)
        .map(|(_, p)| p.clone())
        .collect();
    platform.publish(TOPIC, some).await;
    let listed = lists(&platform, "59 of 67").await;
    assert!(listed.contains("3, 60-66") && listed.contains("BG-1"), "{listed}");
    // While no bridge is there, no time passes: it is not over when it comes back.
    bridge.stop().await;
    tokio::time::sleep(std::time::Duration::from_secs(7)).await;
    let _bridge = platform.service("bridge");
    platform.publish(TOPIC, [all[3].clone()]).await;
    platform.publish(TOPIC, all[60..].to_vec()).await;
    arrives(&platform, 1).await;
    assert_eq!(letters(&platform), 0);
    // This one does not come, ...
    platform.publish(TOPIC, parts(2)[..5].to_vec()).await;
    swept(&platform).await;
    assert_eq!(letters(&platform), 1);
    // ... and this one is begun anew under its name, and then comes.
    let other = parts(3)[0].replace("AA:00000", "BB:00000");
    platform.publish(TOPIC, [other]).await;
    platform.publish(TOPIC, parts(3)).await;
    arrives(&platform, 3).await;
    swept(&platform).await;
    assert_eq!(letters(&platform), 2);
    assert_eq!(stored(&platform, 2).await.unwrap(), ["0 0", "0 0"]);
    let ended = [
        "r 1 complete 67 of 67 -",
        "r 2 expired 5 of 67 -5-66",
        "r 3 superseded 1 of 67 -1-66",
        "r 3 complete 67 of 67 -",
    ];
    on_record(&platform, &ended).await;
    // What is no part is told so.
    platform
        .publish(TOPIC, ["{\"txn\":\"x\",\"index\":9,\"total\":1000000000,\"data\":[]}".to_owned()])
        .await;
    eventually("a letter", || async {
        let found = letters(&platform);
        if found == 3 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
}

/// Thousands of reports that never become whole, and one that does.
#[tokio::test]
async fn endless_partials_stay_within_their_limits() {
    let platform = platform("bridge.transaction_seconds = 600").await;
    let (_ingest, bridge) = (platform.service("ingest"), platform.service("bridge"));
    let first = |n: u32| parts(1)[0].replace("r 1", &format!("never {n}"));
    platform.publish(TOPIC, (0..500).map(first)).await;
    // At most 64 of one gateway are open: the oldest gave way.
    eventually("the oldest to give way", || async {
        let found = letters(&platform);
        if found == 436 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    let listed = platform.succeed(&["transactions"]);
    assert_eq!(listed.matches("1 of 67").count(), 64, "{listed}");
    platform.publish(TOPIC, parts(2)).await;
    arrives(&platform, 2).await;
    let resident = resident_mib(&bridge);
    assert!(resident < 200, "{resident} MiB");
}

fn resident_mib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    line.trim().split(' ').next().unwrap().parse::<u64>().unwrap() / 1_024
}
