//! History processed again by other rules, taken back, stopped, and killed in the middle.

use crate::api::{Api, jobs::over};
use domain::{
    failpoint,
    raw::{Pack, ProfileRef, RawMessage, Sender},
};
use nats::{
    envelope,
    publish::{Outgoing, publish},
};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use testkit::{Database, Failpoint, Platform, eventually, judge::FIRST};

const DEVICE: &str = "PROBE-1";
const TOPIC: &str = "devices/PROBE-1/telemetry";
const ALL: [&str; 5] = ["replay", "--from", "2020-01-01", "--to", "2100-01-01"];

/// A message with what the probe measured, and what that means: the first version of its type took the
/// wrong one of the two.
fn message(n: u32) -> String {
    let ts = domain::Timestamp::from_micros((FIRST + i64::from(n)) * 1_000_000).unwrap();
    json!({ "ts": ts.to_string(), "raw": n, "calibrated": f64::from(n) + 0.5, "extra": n % 3 })
        .to_string()
}

/// Puts a version of the probe's type in force.
fn apply(platform: &Platform, metrics: &str) {
    let file = platform.config().with_file_name("probe.yaml");
    let text = format!(
        "device_type: probe\nprocessing_mode: endpoint\nprotocol_adapter: json\n\
         timestamp: {{ pointer: /ts, format: rfc3339 }}\nmetrics:\n{metrics}"
    );
    std::fs::write(&file, text).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
}

const FIRST_VERSION: &str =
    "  level: { pointer: /raw, kind: number }\n  extra: { pointer: /extra, kind: number }\n";
const MENDED: &str = "  level: { pointer: /calibrated, kind: number }\n";

/// What a database holds of the probe: by metric and second.
async fn held(database: &Database) -> Result<BTreeMap<(String, i64), f64>, String> {
    let mut connection = testkit::platform::connect(&database.owner()).await?;
    let rows: Vec<(String, i64, f64)> = sqlx::query_as(
        "select p.metric, extract(epoch from v.ts)::bigint, v.value_n from core.values_demo v \
         join core.device_point p using (entity_id) where p.device_id = $1",
    )
    .bind(DEVICE)
    .fetch_all(&mut connection)
    .await
    .map_err(|error| error.to_string())?;
    Ok(rows.into_iter().map(|(metric, second, value)| ((metric, second - FIRST), value)).collect())
}

async fn holds(platform: &Platform, wanted: &BTreeMap<(String, i64), f64>) {
    for database in [&platform.primary, &platform.secondary] {
        eventually("what the rules give", || async {
            let held = held(database).await?;
            let wrong = wanted.iter().find(|(key, value)| held.get(*key) != Some(value));
            let more = held.keys().find(|key| !wanted.contains_key(key));
            match (wrong, more) {
                (None, None) => Ok(()),
                (wrong, more) => Err(format!("{} rows; {wrong:?} {more:?}", held.len())),
            }
        })
        .await;
    }
}

fn by_first_version(sent: u32) -> BTreeMap<(String, i64), f64> {
    let level = (0..sent).map(|n| (("level".to_owned(), i64::from(n)), f64::from(n)));
    let extra = (0..sent).map(|n| (("extra".to_owned(), i64::from(n)), f64::from(n % 3)));
    level.chain(extra).collect()
}

fn mended(sent: u32) -> BTreeMap<(String, i64), f64> {
    (0..sent).map(|n| (("level".to_owned(), i64::from(n)), f64::from(n) + 0.5)).collect()
}

fn shown(platform: &Platform, id: u32) -> Value {
    serde_json::from_str(&platform.succeed(&["replay", "show", &id.to_string(), "--json"])).unwrap()
}

/// A platform with the probe's messages, normalized by the first version; the mended one is in force.
async fn with_messages(sent: u32) -> Platform {
    let platform = Platform::start("").await;
    apply(&platform, FIRST_VERSION);
    platform.succeed(&["device", "add", DEVICE, "--type", "probe"]);
    let (mut bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.publish(TOPIC, (0..sent).map(message)).await;
    holds(&platform, &by_first_version(sent)).await;
    apply(&platform, MENDED);
    bridge.stop().await;
    platform
}

#[tokio::test]
async fn history_is_as_the_mended_rules_give_it_and_can_be_taken_back() {
    const SENT: u32 = 600;
    const LATER: u32 = SENT + 10;
    let platform = with_messages(SENT).await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let api = Api::start(&platform).await;
    let shown_device = platform.succeed(&["device", "show", DEVICE]);
    let device: Value = serde_json::from_str(&shown_device).unwrap();
    let level = device["points"]["level"]["entity"].as_i64().unwrap();
    let ts = domain::Timestamp::from_micros((FIRST + 7) * 1_000_000).unwrap().to_string();
    let correction =
        json!({ "org_id": 1, "values": [{ "ts": ts, "entity_id": level, "value_n": 0.25 }] });
    assert_eq!(api.post("/bulk/value", &correction).await.status, 200);
    // A message that came by the mended version never gave `extra`: what somebody else says of that moment is
    // not its to take away.
    let extra = device["points"]["extra"]["entity"].as_i64().unwrap();
    let ts = domain::Timestamp::from_micros((FIRST + i64::from(LATER)) * 1_000_000).unwrap();
    let by_hand = json!({ "ts": ts.to_string(), "entity_id": extra, "value_n": 5 });
    let by_hand = json!({ "org_id": 1, "values": [by_hand] });
    assert_eq!(api.post("/bulk/value", &by_hand).await.status, 200);
    platform.publish(TOPIC, [message(LATER)]).await;
    let corrected = |mut wanted: BTreeMap<(String, i64), f64>| {
        wanted.insert(("level".to_owned(), 7), 0.25);
        wanted.insert(("level".to_owned(), LATER.into()), f64::from(LATER) + 0.5);
        wanted.insert(("extra".to_owned(), LATER.into()), 5.0);
        wanted
    };
    let before = corrected(by_first_version(SENT));
    holds(&platform, &before).await;

    // First a look at what would change.
    let dry = [&ALL[..], &["--device-type", "probe", "--dry-run"]].concat();
    let would: Value =
        serde_json::from_str(&platform.succeed(&[&dry[..], &["--json"]].concat())).unwrap();
    let counts = ["added", "changed", "removed", "unchanged"].map(|it| would[it].as_u64().unwrap());
    assert_eq!(counts, [0, u64::from(SENT) - 1, u64::from(SENT), 2], "{would}");
    let told = platform.succeed(&dry);
    assert!(told.contains("2026-01-01") && told.contains("0 → 0.5"), "{told}");
    // The same by the API.
    let asked = json!({ "from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "device_type": "probe" });
    let begun = api.post("/replay/preview", &asked).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let looked = over(&api, begun.number("job_id")).await;
    assert_eq!(looked.body["result"], would, "{looked:?}");
    holds(&platform, &before).await;

    let said = platform.succeed(&[&ALL[..], &["--device-type", "probe"]].concat());
    assert!(said.contains("replay 1: done") && said.contains("601 messages"), "{said}");
    holds(&platform, &corrected(mended(SENT))).await;
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
    let told = platform.succeed(&dry);
    assert!(told.contains("0 rows would be added, 0 changed, 0 removed, 601 stay"), "{told}");
    assert!(
        told.contains("how long it would take is not known"),
        "one replay of few readings: {told}"
    );

    let said = platform.succeed(&["replay", "undo", "1"]);
    assert!(said.contains("replay 2: done"), "{said}");
    holds(&platform, &before).await;
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
    // And there again.
    platform.succeed(&[&ALL[..], &["--device", DEVICE, "--org", "demo"]].concat());
    holds(&platform, &corrected(mended(SENT))).await;
    let listed = platform.succeed(&["replay", "list"]);
    assert!(listed.contains("takes 1 back") && listed.contains("100 %"), "{listed}");
    assert!(platform.fail(&["replay"]).contains("--from"));
    let nobody = platform.fail(&[&ALL[..], &["--device", "NOBODY"]].concat());
    assert!(nobody.contains("no device"), "{nobody}");
}

#[tokio::test]
async fn killed_before_it_is_noted_it_goes_on_and_gives_the_same() {
    const SENT: u32 = 400;
    let platform = with_messages(SENT).await;
    let _ingest = platform.service("ingest");
    let failpoint = Failpoint { name: failpoint::BEFORE_REPLAY_SAVED, passes: 0 };
    let mut doomed = platform.doomed("bridge", failpoint);
    platform.succeed(&[&ALL[..], &["--detach"]].concat());
    doomed.died_at(failpoint).await;
    assert_eq!(shown(&platform, 1)["state"], "running");
    let _bridge = platform.service("bridge");
    let said = platform.succeed(&["replay", "follow", "1"]);
    assert!(said.contains("replay 1: done"), "{said}");
    holds(&platform, &mended(SENT)).await;
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}

#[tokio::test]
async fn stopped_it_rests_and_resumed_it_goes_on() {
    const SENT: u32 = 100;
    let platform = with_messages(SENT).await;
    let _ingest = platform.service("ingest");
    // No bridge runs: it waits for one.
    platform.succeed(&[&ALL[..], &["--detach"]].concat());
    assert!(platform.succeed(&["replay", "list"]).contains("waits for a bridge"));
    platform.succeed(&["replay", "stop", "1"]);
    let mut bridge = platform.service("bridge");
    bridge.says("subscribed").await;
    assert!(platform.succeed(&["replay", "list"]).contains("stopped"));
    holds(&platform, &by_first_version(SENT)).await;
    let said = platform.succeed(&["replay", "resume", "1"]);
    assert!(said.contains("replay 1: done"), "{said}");
    holds(&platform, &mended(SENT)).await;
    assert!(platform.fail(&["replay", "stop", "1"]).contains("over"));
    bridge.stop().await;
}

#[tokio::test]
async fn the_same_by_the_api_by_whom_it_is_allowed() {
    const SENT: u32 = 100;
    let platform = with_messages(SENT).await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let (reader, keeper) = (api.key(1, &["read"]).await, api.key(1, &["model"]).await);
    let stranger = api.key(api.org("other").await, &["admin"]).await;
    let by = |key: &str, method: Method, path: &str, body: &Value| {
        api.send(api.request(method, path, key).json(body))
    };
    let new = json!({ "org_id": 1, "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z",
        "device_type": "probe" });
    assert_eq!(by(&reader, Method::POST, "/replay", &new).await.status, 403);
    assert_eq!(by(&stranger, Method::POST, "/replay", &new).await.status, 404);
    let begun = by(&keeper, Method::POST, "/replay", &new).await;
    assert_eq!((begun.status, &begun.body["status"]), (201, &json!("running")), "{begun:?}");
    assert_eq!(by(&reader, Method::GET, "/replay/1", &Value::Null).await.status, 200);
    assert_eq!(by(&stranger, Method::GET, "/replay/1", &Value::Null).await.status, 404);
    assert_eq!(by(&stranger, Method::GET, "/replay", &Value::Null).await.body, json!([]));
    assert_eq!(by(&reader, Method::POST, "/replay/1/stop", &Value::Null).await.status, 403);
    assert_eq!(by(&keeper, Method::POST, "/replay/1/undo", &Value::Null).await.status, 409);
    for _ in 0..2 {
        let stopped = by(&keeper, Method::POST, "/replay/1/stop", &Value::Null).await;
        assert_eq!((stopped.status, &stopped.body["status"]), (200, &json!("stopped")));
    }
    let _bridge = platform.service("bridge");
    let resumed = by(&keeper, Method::POST, "/replay/1/resume", &Value::Null).await;
    assert_eq!(resumed.status, 200, "{resumed:?}");
    holds(&platform, &mended(SENT)).await;
    eventually("it is done", || async {
        let shown = api.get("/replay/1").await.body;
        if shown["status"] == "done" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(by(&keeper, Method::POST, "/replay/1/stop", &Value::Null).await.status, 409);
    assert_eq!(by(&keeper, Method::POST, "/replay/1/undo", &Value::Null).await.status, 201);
    holds(&platform, &by_first_version(SENT)).await;
}

/// A wrong scale is mended. A version that can't read the messages takes nothing away, and one that is not there is
/// refused.
#[tokio::test]
async fn a_wrong_scale_is_mended_and_what_can_not_be_read_stays() {
    const SENT: u32 = 50;
    let platform = Platform::start("").await;
    let level = |scale: &str| format!("  level: {{ pointer: /raw, kind: number{scale} }}\n");
    let rows = |by: fn(f64) -> f64| -> BTreeMap<(String, i64), f64> {
        (0..SENT).map(|n| (("level".to_owned(), i64::from(n)), by(f64::from(n)))).collect()
    };
    apply(&platform, &level(", scale: 10"));
    platform.succeed(&["device", "add", DEVICE, "--type", "probe"]);
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.publish(TOPIC, (0..SENT).map(message)).await;
    holds(&platform, &rows(|n| n * 10.0)).await;
    apply(&platform, &level(", scale: 0.5, offset: -4"));
    let told = platform.succeed(&[&ALL[..], &["--dry-run"]].concat());
    assert!(told.contains("10 → -3.5"), "{told}");
    platform.succeed(&ALL);
    let mended = rows(|n| n * 0.5 - 4.0);
    holds(&platform, &mended).await;

    apply(&platform, "  level: { pointer: /ts, kind: number }\n");
    let said = platform.succeed(&ALL);
    assert!(said.contains("0 readings, 0 removed, 50 failed"), "{said}");
    holds(&platform, &mended).await;
    let refused = platform.fail(&["replay", "undo", "2"]);
    assert!(refused.contains("replay 1 gave messages of that time"), "{refused}");
    platform.succeed(&["replay", "undo", "1"]);
    holds(&platform, &rows(|n| n * 10.0)).await;
    assert!(platform.fail(&["replay", "undo", "3"]).contains("itself takes replay 1 back"));
    assert!(platform.fail(&["replay", "resume", "1"]).contains("was taken back by replay 3"));
    platform.balances().await;

    let api = Api::start(&platform).await;
    let asked = |field: &str, value: Value| {
        let mut asked = json!({ "from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z",
            "device_type": "probe" });
        asked[field] = value;
        asked
    };
    for path in ["/replay", "/replay/preview"] {
        let wrong = api.post(path, &asked("version", json!(99))).await;
        assert_eq!((wrong.status, &wrong.body["errors"][0]["pointer"]), (422, &json!("/version")));
        let wrong = api.post(path, &asked("device_type", json!("nope"))).await;
        assert_eq!(wrong.status, 422, "{wrong:?}");
        assert_eq!(wrong.body["errors"][0]["pointer"], "/device_type");
    }
}

/// What `RAW` let go of while a replay rested is not passed over in silence.
#[tokio::test]
async fn a_replay_whose_messages_are_gone_says_so() {
    const SENT: u32 = 100;
    let platform = with_messages(SENT).await;
    let _ingest = platform.service("ingest");
    let failpoint = Failpoint { name: failpoint::BEFORE_REPLAY_SAVED, passes: 0 };
    let mut doomed = platform.doomed("bridge", failpoint);
    platform.succeed(&[&ALL[..], &["--detach"]].concat());
    doomed.died_at(failpoint).await;
    let wire = crate::ingest::connect(&platform.nats, "ingest").await;
    nats::retention::remove_up_to(&wire, nats::streams::RAW, 1).await.unwrap();
    let _bridge = platform.service("bridge");
    eventually("it fails", || async {
        let shown = platform.succeed(&["replay", "show", "1"]);
        if shown.contains("let go of the messages from 1 to 1") { Ok(()) } else { Err(shown) }
    })
    .await;
}

/// A fingerprint of the values, whatever their versions are.
async fn values(database: &Database) -> (i64, Option<i64>) {
    let mut connection = testkit::platform::connect(&database.superuser()).await.unwrap();
    let sql = "select count(*), bit_xor(hash_record_extended(\
               row(entity_id, ts, value_n, value_b, value_s, value_ts), 0)) from core.values_demo";
    sqlx::query_as(sql).fetch_one(&mut connection).await.unwrap()
}

/// As many messages of `RAW` as there are messages of the device: a replay has several pieces then.
async fn one_by_one(platform: &Platform, messages: std::ops::Range<u32>) {
    let wire = crate::ingest::connect(&platform.nats, "bridge").await;
    let profile = ProfileRef { id: "probe".parse().unwrap(), version: 1 };
    let (org, device) = ("demo".parse().unwrap(), DEVICE.parse().unwrap());
    let sender = Some(Sender { org, device, profile });
    for n in messages {
        let entry = RawMessage {
            name: DEVICE.into(),
            sender: sender.clone(),
            content_type: "application/json".into(),
            received_at: domain::Timestamp::from_micros(FIRST * 1_000_000).unwrap(),
            session: 1,
            packet_id: 1,
            number: n.into(),
            payload: message(n).into_bytes().into(),
        };
        let pack = envelope::encode(&Pack { entries: vec![entry] });
        publish(&wire, Outgoing::without_id("raw.mqtt.test", pack)).await.unwrap();
    }
}

/// Bridge, ingest and stream server die on the way, and live readings come beside it; then the same once more,
/// which changes nothing, and back.
#[tokio::test]
async fn killed_at_every_place_beside_live_readings_run_twice_and_undone() {
    const SENT: u32 = 400;
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    apply(&platform, FIRST_VERSION);
    platform.succeed(&["device", "add", DEVICE, "--type", "probe"]);
    let (mut bridge, mut ingest) = (platform.service("bridge"), platform.service("ingest"));
    one_by_one(&platform, 0..SENT).await;
    holds(&platform, &by_first_version(SENT)).await;
    // Also where history is compressed.
    for database in [&platform.primary, &platform.secondary] {
        testkit::platform::change(&database.superuser(), COMPRESS).await;
    }
    let before = values(&platform.primary).await;
    apply(&platform, MENDED);
    bridge.stop().await;
    ingest.stop().await;

    let (_, live) = platform.add_device("LIVE-1");
    let saved = Failpoint { name: failpoint::BEFORE_REPLAY_SAVED, passes: 2 };
    let mut doomed = platform.doomed("bridge", saved);
    let copied = Failpoint { name: failpoint::MID_COPY, passes: 1 };
    let mut doomed_ingest = platform.doomed("ingest", copied);
    platform.succeed(&[&ALL[..], &["--detach"]].concat());
    doomed.died_at(saved).await;
    doomed_ingest.died_at(copied).await;
    let acknowledged = Failpoint { name: failpoint::BEFORE_TELEMETRY_ACK, passes: 0 };
    let mut doomed_ingest = platform.doomed("ingest", acknowledged);
    let again = Failpoint { passes: 0, ..saved };
    let mut doomed = platform.doomed("bridge", again);
    doomed_ingest.died_at(acknowledged).await;
    doomed.died_at(again).await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.nats.restart9().await;
    platform.publish("devices/LIVE-1/telemetry", (0..200).map(testkit::judge::payload)).await;
    let said = platform.succeed(&["replay", "follow", "1"]);
    assert!(said.contains("replay 1: done"), "{said}");
    let readings =
        testkit::judge::Numbered { device: "LIVE-1".to_owned(), entity: live, sent: 200 };
    for database in [&platform.primary, &platform.secondary] {
        readings.arrives(database, "demo").await;
    }
    holds(&platform, &mended(SENT)).await;
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;

    let once = values(&platform.primary).await;
    platform.succeed(&ALL);
    platform.balances().await;
    holds(&platform, &mended(SENT)).await;
    assert_eq!(values(&platform.primary).await, once);
    assert_eq!(values(&platform.secondary).await, once);
    let refused = platform.fail(&["replay", "undo", "2"]);
    assert!(refused.contains("replay 1 gave messages of that time"), "{refused}");
    platform.succeed(&["replay", "undo", "2", "--to-the-first"]);
    holds(&platform, &by_first_version(SENT)).await;
    platform.balances().await;
    // Without what came live, every value column is as it was, to the last bit.
    let gone = format!("delete from core.values_demo where entity_id = {live}");
    for database in [&platform.primary, &platform.secondary] {
        testkit::platform::change(&database.superuser(), &gone).await;
        assert_eq!(values(database).await, before);
    }
}

/// Compresses all chunks of the org's table, where TimescaleDB is.
const COMPRESS: &str = "do $$ declare chunk regclass; begin \
    if exists (select from pg_extension where extname = 'timescaledb') then \
        for chunk in select public.show_chunks('core.values_demo') loop \
            perform public.compress_chunk(chunk, true); \
        end loop; \
    end if; end $$";

/// What a letter gave when it was redriven, an undo gives again: by the version that it was redriven by.
#[tokio::test]
async fn an_undo_gives_back_what_a_redrive_gave() {
    const SENT: u32 = 20;
    let platform = Platform::start("").await;
    apply(&platform, FIRST_VERSION);
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.publish(TOPIC, (0..SENT).map(message)).await;
    eventually("letters", || async {
        let listed = platform.succeed(&["dead-letters", "list", "--json"]);
        let letters: Value = serde_json::from_str(&listed).unwrap();
        if letters.as_array().unwrap().len() == SENT as usize { Ok(()) } else { Err(listed) }
    })
    .await;
    platform.succeed(&["device", "add", DEVICE, "--type", "probe"]);
    platform.succeed(&["dead-letters", "redrive", "--all"]);
    holds(&platform, &by_first_version(SENT)).await;
    let traced = platform.succeed(&["trace", "RAW-1-0"]);
    assert!(traced.contains("redrive") && traced.contains("committed"), "{traced}");
    apply(&platform, MENDED);
    platform.succeed(&ALL);
    holds(&platform, &mended(SENT)).await;
    platform.succeed(&["replay", "undo", "1"]);
    holds(&platform, &by_first_version(SENT)).await;
    assert!(platform.fail(&["replay", "undo", "1"]).contains("taken back by replay 2"));
    platform.balances().await;
}
