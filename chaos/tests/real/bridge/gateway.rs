//! A gateway speaks for logical devices: as a user registers and sees them.

use super::Stage;
use domain::{DeviceId, Reason, model::Role};
use nats::registry;
use serde_json::json;
use testkit::{Platform, eventually};

const HUB: &str = "HUB-1";

fn hub(unknown: &str) -> String {
    format!(
        r#"{{"device_type":"hub","processing_mode":"gateway","protocol_adapter":"json",
        "timestamp":{{"pointer":"/ts","format":"rfc3339"}},
        "logical_devices":{{"pointer":"/b","identifier":"/id","unknown":"{unknown}"}},
        "gateway_metrics":{{"uptime":{{"pointer":"/up","kind":"number"}}}},
        "metrics":{{"rssi":{{"pointer":"/rssi","kind":"number"}}}}}}"#
    )
}

fn report(beacons: &[(&str, i32)]) -> String {
    let beacons: Vec<_> =
        beacons.iter().map(|(id, rssi)| json!({ "id": id, "rssi": rssi })).collect();
    json!({ "ts": "2026-01-01T00:00:00Z", "up": 7, "b": beacons }).to_string()
}

/// A stage with a hub that knows `b1`.
async fn stage(unknown: &str) -> Stage {
    let stage = Stage::start().await;
    let org = domain::OrgKey::parse("demo").unwrap();
    let definition: domain::device_type::DeviceType = serde_json::from_str(&hub(unknown)).unwrap();
    let id = definition.device_type.clone();
    registry::apply_device_type(&stage.admin, &org, definition).await.unwrap();
    let hub = DeviceId::parse(HUB).unwrap();
    registry::add_device(&stage.admin, &org, hub.clone(), id, None).await.unwrap();
    registry::add_logical(&stage.admin, &hub, "b1", None, None).await.unwrap();
    stage
}

/// Values in `TELEMETRY` by what the hub calls the device (`""`: itself).
async fn values(stage: &Stage) -> Vec<(String, i32)> {
    // Readings first: the devices that they are of are known then.
    let batches = stage.telemetry().await;
    let directory = nats::model::load(&stage.admin).await.unwrap();
    let org = domain::OrgKey::parse("demo").unwrap();
    let mut found = Vec::new();
    for group in batches.into_iter().flat_map(|batch| batch.groups) {
        assert_eq!(group.device.as_ref().map(DeviceId::as_str), Some(HUB));
        for sample in group.samples {
            let has = |device: &&std::sync::Arc<domain::model::Device>| {
                device.points.values().any(|point| point.entity == sample.entity)
            };
            let devices = directory.devices(&org);
            // The stage's own device has numbers that nobody counted.
            let mut others = devices.iter().filter(|device| device.id.as_str() != super::DEVICE);
            let device = others.find(has).expect("a point of somebody");
            let name = match &device.role {
                Role::Logical { identifier, .. } => identifier.clone(),
                _ => String::new(),
            };
            found.push((name, sample.values.n.unwrap() as i32));
        }
    }
    found.sort();
    found
}

async fn arrive(stage: &Stage, wanted: &[(&str, i32)]) {
    eventually("what the hub says", || async {
        let found = values(stage).await;
        let found: Vec<_> = found.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn strangers_are_set_aside_and_count_from_when_they_are_registered() {
    let stage = stage("dead_letter").await;
    let bridge = stage.bridge().await;
    stage.publish(HUB, [report(&[("b1", -1), ("b2", -2), ("b3", -3)])]).await;
    arrive(&stage, &[("", 7), ("b1", -1)]).await;
    let letters = eventually("a letter", || async {
        let letters = stage.letters().await;
        if letters.is_empty() { Err("none".to_owned()) } else { Ok(letters) }
    })
    .await;
    assert_eq!(letters.len(), 1, "one a message");
    assert_eq!(letters[0].reason, Reason::UnknownDevice);
    let detail = &letters[0].detail;
    assert!(detail.contains("2 logical devices") && detail.contains("\"b2\", \"b3\""), "{detail}");
    // Its next message counts, with no restart anywhere.
    let hub = DeviceId::parse(HUB).unwrap();
    registry::add_logical(&stage.admin, &hub, "b2", None, None).await.unwrap();
    stage.publish(HUB, [report(&[("b2", -20)])]).await;
    arrive(&stage, &[("", 7), ("", 7), ("b1", -1), ("b2", -20)]).await;
    assert_eq!(stage.letters().await.len(), 1);
    // A logical device has no voice of its own.
    stage.publish("HUB-1_b2", [report(&[("b1", -9)])]).await;
    eventually("a letter about it", || async {
        let letters = stage.letters().await;
        let it = letters.iter().any(|letter| letter.sender == "HUB-1_b2");
        if it { Ok(()) } else { Err(format!("{letters:?}")) }
    })
    .await;
    bridge.stop().await;
}

#[tokio::test]
async fn strangers_are_registered_or_ignored_where_the_type_says_so() {
    let stage = stage("create").await;
    let bridge = stage.bridge().await;
    let many: Vec<String> = (0..300).map(|n| format!("AA:BB:{n:04x}")).collect();
    let beacons: Vec<(&str, i32)> = many.iter().map(|id| (id.as_str(), -5)).collect();
    stage.publish(HUB, [report(&beacons), report(&[("b1", -1), (&many[0], -6)])]).await;
    let mut wanted = vec![("", 7), ("", 7)];
    wanted.extend(&beacons);
    wanted.extend([(many[0].as_str(), -6), ("b1", -1)]);
    wanted.sort_unstable();
    arrive(&stage, &wanted).await;
    let directory = nats::model::load(&stage.admin).await.unwrap();
    let hub = DeviceId::parse(HUB).unwrap();
    assert_eq!(directory.logical_count(&hub), 301, "each once");
    assert_eq!(stage.letters().await.len(), 0);
    bridge.stop().await;
}

/// What can't be registered is set aside; nobody waits for it.
#[tokio::test]
async fn names_that_are_too_long_hold_nobody_up() {
    let stage = stage("create").await;
    let org = domain::OrgKey::parse("demo").unwrap();
    let (long, id) = (DeviceId::parse("HUB-2").unwrap(), domain::TypeId::parse("hub").unwrap());
    let name = Some("x".repeat(1_000));
    registry::add_device(&stage.admin, &org, long.clone(), id, name).await.unwrap();
    let bridge = stage.bridge().await;
    let identifier = "y".repeat(120);
    stage.publish("HUB-2", [report(&[(&identifier, -7)])]).await;
    stage.publish(super::DEVICE, [super::reading(0)]).await;
    stage.all_normalized(1).await;
    let directory = nats::model::load(&stage.admin).await.unwrap();
    assert!(directory.logical(&long, &identifier).is_some(), "its name was cut");
    bridge.stop().await;
}

#[tokio::test]
async fn strangers_are_ignored_where_the_type_says_so() {
    let stage = stage("ignore").await;
    let bridge = stage.bridge().await;
    stage.publish(HUB, [report(&[("b2", -2), ("b1", -1)]), report(&[])]).await;
    arrive(&stage, &[("", 7), ("", 7), ("b1", -1)]).await;
    assert_eq!(stage.letters().await.len(), 0);
    bridge.stop().await;
}

/// The demonstration hub, from the command line to both databases.
#[tokio::test]
async fn the_demonstration_hub_is_in_both_databases() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let listed = platform.succeed(&["device", "list"]);
    assert_eq!(listed.matches("of LH-001-2024").count(), 50, "{listed}");
    let more =
        ["device", "add", "--gateway", "LH-001-2024", "--identifier", "c 1", "--name", "Cart"];
    platform.succeed(&more);
    assert!(platform.succeed(&more).contains("it was so"));
    let beacon = |n: u32| json!({ "id": format!("b-{n:02}"), "rssi": -60, "battery": 80 });
    let mut beacons: Vec<_> = (1..=50).map(beacon).collect();
    beacons.push(json!({ "id": "c 1", "rssi": -50, "zone": "lobby" }));
    beacons.push(json!({ "id": "new", "rssi": -40 }));
    let message = json!({ "ts": "2026-01-01T00:00:00Z", "uptime_s": 60, "beacons": beacons });
    platform.publish("devices/LH-001-2024/telemetry", [message.to_string()]).await;
    let sql = "select count(*) || ' ' || count(distinct d.device_id) || ' ' || \
        coalesce(sum((d.parent_device_id = 'LH-001-2024')::int), 0) from core.values_demo v \
        join core.device_point p using (entity_id) join core.devices d using (device_id) \
        where v.ts = '2026-01-01T00:00:00Z'";
    for database in [&platform.primary, &platform.secondary] {
        eventually("all that the hub said", || async {
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let found: String = sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .map_err(|e| e.to_string())?;
            if found == "104 53 103" { Ok(()) } else { Err(found) }
        })
        .await;
    }
    platform.succeed(&["verify"]);
    platform.balances().await;
}

#[tokio::test]
async fn fields_that_nothing_maps_become_metrics_where_the_type_says_so() {
    let platform = Platform::start("").await;
    let file = platform.config().with_file_name("open.yaml");
    let text = "device_type: open-sensor\nprocessing_mode: endpoint\nprotocol_adapter: json\n\
        timestamp: { pointer: /ts, format: rfc3339 }\nunknown_metrics: create\nmetrics:\n  \
        temperature: { pointer: /temperature, kind: number }\nexamples:\n  - name: more than it \
        knows\n    payload: { ts: \"2026-01-01T00:00:00Z\", volt: 3.3 }\n    readings:\n      - { \
        metric: volt, ts: \"2026-01-01T00:00:00Z\", value: 3.3 }\n";
    std::fs::write(&file, text).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    for device in ["OS-1", "OS-2"] {
        platform.succeed(&["device", "add", device, "--type", "open-sensor"]);
    }
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let payload = |n: u32, more: &str| format!("{{\"ts\":\"2026-01-01T00:00:{n:02}Z\",{more}}}");
    // Two devices at once, in one pack or not; the second time the kind is another.
    for n in 0..10 {
        let lines = [payload(n, "\"volt\":3.5,\"door\":true"), payload(n + 20, "\"fw\":\"1.2\"")];
        platform.publish("devices/OS-1/telemetry", lines).await;
        platform.publish("devices/OS-2/telemetry", [payload(n, "\"volt\":\"high\"")]).await;
    }
    platform.publish("devices/OS-1/telemetry", [payload(50, "\"volt\":\"low\"")]).await;
    let sql = "select string_agg(concat_ws(' ', device_id, metric, n, b, s, ns, bs, ss), ', ' order by \
        device_id, metric) from (select device_id, metric, count(value_n) n, count(value_b) b, \
        count(value_s) s, max(value_n) ns, bool_and(value_b) bs, max(value_s) ss \
        from core.telemetry_history where device_id like 'OS-%' group by 1, 2) t";
    for database in [&platform.primary, &platform.secondary] {
        eventually("the found metrics", || async {
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let found: Option<String> = sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .map_err(|e| e.to_string())?;
            let wanted = "OS-1 door 0 10 0 t, OS-1 fw 0 0 10 1.2, OS-1 volt 10 0 0 3.5, \
                OS-2 volt 0 0 10 high";
            if found.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
    eventually("a letter about the kind", || async {
        let status = platform.succeed(&["status", "--json"]);
        if status.contains("its first value was a Number") { Ok(()) } else { Err(status) }
    })
    .await;
}

#[tokio::test]
async fn others_go_on_while_a_gateways_strangers_are_registered() {
    const BEACONS: usize = 3_000;
    let stage = stage("create").await;
    let bridge = stage.bridge().await;
    let beacons: Vec<String> = (0..BEACONS).map(|n| format!("s{n}")).collect();
    let all: Vec<(&str, i32)> = beacons.iter().map(|name| (name.as_str(), -1)).collect();
    stage.publish(HUB, [report(&all)]).await;
    stage.publish(super::DEVICE, [super::reading(0)]).await;
    let of_hub = async || {
        let batches = stage.telemetry().await;
        let groups = batches.into_iter().flat_map(|batch| batch.groups);
        let of_hub =
            groups.filter(|group| group.device.as_ref().map(DeviceId::as_str) == Some(HUB));
        of_hub.map(|group| group.samples.len()).sum::<usize>()
    };
    stage.all_normalized(1).await;
    assert_eq!(of_hub().await, 0, "the report still waits for its beacons");
    eventually("the whole report", || async {
        let found = of_hub().await;
        if found == BEACONS + 1 { Ok(()) } else { Err(format!("{found}")) }
    })
    .await;
    assert_eq!(stage.letters().await, []);
    bridge.stop().await;
}

#[tokio::test]
async fn killed_while_strangers_are_registered_the_report_is_whole_once() {
    const BEACONS: usize = 2_000;
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    let file = platform.config().with_file_name("hub.json");
    std::fs::write(&file, hub("create")).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    platform.succeed(&["device", "add", HUB, "--type", "hub"]);
    let _ingest = platform.service("ingest");
    let mut bridge = platform.service("bridge");
    bridge.says("subscribed").await;
    let names: Vec<String> = (0..BEACONS).map(|n| format!("k{n}")).collect();
    let all: Vec<(&str, i32)> = names.iter().map(|name| (name.as_str(), -1)).collect();
    platform.publish("devices/HUB-1/telemetry", [report(&all)]).await;
    let registered = || platform.succeed(&["device", "list", "--json"]).matches("\"k").count();
    eventually("the first beacons", || async {
        let some = registered();
        if some > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    bridge.kill9().await;
    assert!(registered() < BEACONS, "it was killed in the middle");
    let _bridge = platform.service("bridge");
    let sql = "select count(*) || ' ' || count(distinct logical_identifier) || ' ' || sum(value_n) \
        from core.telemetry_history where logical_identifier like 'k%'";
    for database in [&platform.primary, &platform.secondary] {
        eventually("each beacon once", || async {
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let found: Option<String> = sqlx::query_scalar(sql)
                .fetch_one(&mut connection)
                .await
                .map_err(|e| e.to_string())?;
            let wanted = format!("{BEACONS} {BEACONS} -{BEACONS}");
            if found.as_ref() == Some(&wanted) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }
}
