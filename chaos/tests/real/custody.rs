//! Targets that somebody changed behind the platform's back, made equal again; targets filled from others.

use domain::{
    Batch, Clock, Deletion, DeviceId, EntityId, Origin, OriginStream, Revision, SystemClock,
    Timestamp,
    chunk::{Ended, Outcome},
    presence::Presence,
};
use nats::publish::Outgoing;
use serde_json::{Value, json};
use testkit::{
    Database, Platform, eventually,
    judge::{Numbered, payload},
    platform::change,
};

fn of(device: &str, entity: i32, sent: u32) -> Numbered {
    Numbered { device: device.to_owned(), entity, sent }
}

async fn everywhere(platform: &Platform, readings: &Numbered) {
    for database in [&platform.primary, &platform.secondary] {
        readings.arrives(database, "demo").await;
    }
}

async fn run(database: &Database, sql: &str) {
    change(&database.superuser(), sql).await;
}

fn verify(platform: &Platform, arguments: &[&str]) -> Value {
    let output = platform.command(&[&["verify", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let verdict: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(verdict["equal"], output.status.success(), "{verdict}");
    verdict
}

/// Fingerprint of an org's tables, leaving out what a test touched.
async fn fingerprint(database: &Database) -> (i64, i64, i64) {
    let mut connection = testkit::platform::connect(&database.superuser()).await.unwrap();
    sqlx::query_as(
        "select count(*), bit_xor(hash_record_extended(v, 0)), \
            (select bit_xor(hash_record_extended(c, 0)) from core.values_demo_current c) \
         from core.values_demo v",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

/// Rows deleted, changed and added, in either target, and current values too. The stream knows what is right.
#[tokio::test]
async fn what_somebody_changed_is_found_to_the_hour_and_repaired() {
    const SENT: u32 = 12_000;
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("CUST-1");
    platform.publish("devices/CUST-1/telemetry", (0..SENT).map(payload)).await;
    everywhere(&platform, &of("CUST-1", entity, SENT)).await;
    assert_eq!(verify(&platform, &["--org", "demo"])["equal"], true);
    let listed = platform.succeed(&["targets", "list"]);
    assert!(listed.contains("not compared yet"), "one org is not all: {listed}");
    assert_eq!(verify(&platform, &[])["equal"], true);
    let (primary, secondary) = (&platform.primary, &platform.secondary);
    let before = fingerprint(primary).await;
    assert_eq!(before, fingerprint(secondary).await);

    let table = "core.values_demo";
    let of_entity = format!("entity_id = {entity} and value_n");
    run(secondary, &format!("delete from {table} where {of_entity} between 10 and 19")).await;
    run(secondary, &format!("update {table} set value_n = -1 where {of_entity} = 5000")).await;
    run(primary, &format!("update {table} set value_n = -2 where {of_entity} = 5001")).await;
    run(primary, &format!("delete from {table} where {of_entity} = 9000")).await;
    // With a version that nothing can beat.
    let higher = "version = version + 5, accepted_at = accepted_at + interval '3 days'";
    run(primary, &format!("update {table} set value_n = -3, {higher} where {of_entity} = 7")).await;
    run(secondary, &format!("update {table}_current set value_n = 77 where entity_id = {entity}"))
        .await;
    run(primary, &format!("delete from {table}_current where entity_id = {entity}")).await;
    let plant = |value: i32| {
        format!(
            "insert into {table} (entity_id, ts, value_n, accepted_at, version) \
             select entity_id, ts + interval '1 ms', {value}, accepted_at, version + 1 \
             from {table} where {of_entity} = 42"
        )
    };
    run(secondary, &plant(666)).await;

    // Also where history is compressed.
    let compress = "do $$ declare chunk regclass; begin \
        if exists (select from pg_extension where extname = 'timescaledb') then \
          for chunk in select public.show_chunks('core.values_demo') loop \
            perform public.compress_chunk(chunk, true); \
          end loop; \
        end if; end $$";
    run(primary, compress).await;
    run(secondary, compress).await;
    let found = verify(&platform, &[]);
    let differing = found["compared"][0]["differing"].as_array().unwrap();
    let sum = |what: &str| differing.iter().map(|hour| hour[what].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("missing"), sum("extra"), sum("changed")), (10, 2, 3), "{found}");
    let hours: Vec<&str> = differing.iter().map(|hour| hour["hour"].as_str().unwrap()).collect();
    let expected = ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"];
    assert_eq!(hours, expected, "{found}");
    assert_eq!(found["stale"].as_array().unwrap().len(), 2, "{found}");

    let repaired = verify(&platform, &["--repair"]);
    let told = &repaired["repaired"][0];
    assert_eq!(told["unexplained"]["count"], 1, "{repaired}");
    assert_eq!(repaired["equal"], false, "what nothing explains is left");
    let pruned = verify(&platform, &["--repair", "--prune"]);
    assert_eq!((&pruned["equal"], &pruned["repaired"][0]["pruned"]), (&true.into(), &1.into()));
    for database in [primary, secondary] {
        assert_eq!(fingerprint(database).await, before, "the rest is as it was");
    }
    let listed = platform.succeed(&["targets", "list"]);
    let line = listed.lines().find(|line| line.starts_with("secondary")).unwrap();
    assert!(line.contains("yes, at "), "{listed}");
}

/// The stream does not reach back: the higher version counts, and of equal ones the primary's. A row that one
/// target refused is explained.
#[tokio::test]
async fn where_the_stream_does_not_reach_versions_decide() {
    let limits = "streams.readings_max_bytes = 2000000\nretention.high_water_percent = 1\n";
    let platform = Platform::start(limits).await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("CUST-2");
    let low = "alter table core.values_demo add constraint low check (value_n <> 11)";
    change(&platform.secondary.owner(), low).await;
    platform.publish("devices/CUST-2/telemetry", (0..1_000).map(payload)).await;
    let readings = of("CUST-2", entity, 1_000);
    readings.arrives(&platform.primary, "demo").await;
    eventually("the letter", || async {
        let letters = platform.succeed(&["dead-letters", "list", "--json"]);
        let status: Value = serde_json::from_str(&platform.succeed(&["status", "--json"])).unwrap();
        let telemetry = status["streams"][2]["messages"].as_u64();
        if letters.contains("low") && telemetry == Some(0) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let explained = verify(&platform, &[]);
    assert_eq!(
        (&explained["equal"], &explained["compared"][0]["refused"]),
        (&true.into(), &1.into())
    );

    let of_entity = format!("entity_id = {entity} and value_n");
    let table = "core.values_demo";
    run(&platform.secondary, &format!("delete from {table} where {of_entity} = 20")).await;
    run(&platform.secondary, &format!("update {table} set value_n = -1 where {of_entity} = 30"))
        .await;
    run(&platform.primary, &format!("delete from {table} where {of_entity} = 40")).await;
    let repaired = verify(&platform, &["--repair"]);
    assert_eq!(repaired["equal"], true, "{repaired}");
    let told = &repaired["repaired"][0];
    assert_eq!((&told["settled"]["count"], &told["unexplained"]["count"]), (&1.into(), &0.into()));
    assert_eq!(told["rows"], json!({ "primary": 1, "secondary": 2 }));
    readings.arrives(&platform.primary, "demo").await;
    assert_eq!(repaired["compared"][0]["refused"], 1, "{repaired}");
}

/// A third database under load: the stream gives what it still has, the primary the rest; killed twice.
#[tokio::test]
async fn a_third_target_is_filled_from_the_primary_while_readings_flow() {
    const OLD: u32 = 30_000;
    const NEW: u32 = 6_000;
    let limits = "streams.readings_max_bytes = 4000000\nretention.high_water_percent = 1\n";
    let platform = Platform::start(limits).await;
    let (_bridge, mut ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("CUST-3");
    platform.publish("devices/CUST-3/telemetry", (0..OLD).map(payload)).await;
    everywhere(&platform, &of("CUST-3", entity, OLD)).await;
    // What was deleted must not come back: the first thousand.
    let wire = crate::ingest::connect(&platform.nats, "bridge").await;
    let deletion = Deletion {
        origin: None,
        revision: Revision(0),
        entities: vec![EntityId(entity)],
        from: Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap(),
        to: Timestamp::parse_rfc3339("2026-01-01T00:16:40Z").unwrap(),
    };
    let batch = Batch { deletions: vec![deletion], ..Batch::default() };
    let message = Outgoing::without_id("telemetry.demo.test", nats::envelope::encode(&batch));
    nats::publish::publish(&wire, message).await.unwrap();
    let rows = async |database: &Database| {
        let mut connection = testkit::platform::connect(&database.superuser()).await.unwrap();
        let sql = format!("select count(*) from core.values_demo where entity_id = {entity}");
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(sql)).fetch_one(&mut connection).await
    };
    for database in [&platform.primary, &platform.secondary] {
        eventually("the deletion", || async {
            match rows(database).await {
                Ok(count) if count == i64::from(OLD) - 1_000 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    eventually("the stream is empty", || async {
        let status: Value = serde_json::from_str(&platform.succeed(&["status", "--json"])).unwrap();
        let bytes = status["streams"][2]["bytes"].as_u64().unwrap();
        if bytes < 40_000 { Ok(()) } else { Err(bytes.to_string()) }
    })
    .await;
    ingest.stop().await;
    let third = platform.secondary_cluster.database().await;
    platform.configure(&format!(
        "{limits}targets.third.url = {:?}\ntargets.third.owner_url = {:?}\n",
        third.ingest_url(),
        third.owner_url()
    ));
    platform.succeed(&["migrate"]);
    let _ingest = platform.service("ingest");
    platform.publish("devices/CUST-3/telemetry", (OLD..OLD + NEW).map(payload)).await;
    let backfill = ["targets", "backfill", "third", "--from", "primary"];
    eventually("the third has tables", || async {
        rows(&third).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    for _ in 0..2 {
        let mut child = platform.begin(&backfill);
        let before = rows(&third).await.unwrap();
        eventually("it has begun", || async {
            match rows(&third).await.unwrap() {
                more if more > before + 100 => Ok(()),
                same => Err(same.to_string()),
            }
        })
        .await;
        let _ = child.kill().await;
    }
    let told = platform.succeed(&backfill);
    assert!(told.contains("done in"), "{told}");
    let again = platform.succeed(&backfill);
    assert!(again.contains(" 0 new in third"), "{again}");
    eventually("all of it", || async {
        match rows(&third).await.unwrap() {
            count if count == i64::from(OLD + NEW) - 1_000 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    assert_eq!(verify(&platform, &[])["equal"], true);
}

/// Runs `trace`; what it tells, and whether it found everything.
fn trace(platform: &Platform, arguments: &[&str]) -> (Vec<Value>, bool) {
    let output = platform.command(&[&["trace", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Vec<Value> = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (told, output.status.success())
}

fn fates(reading: &Value) -> [&str; 2] {
    ["primary", "secondary"].map(|target| reading["targets"][target]["fate"].as_str().unwrap())
}

#[tokio::test]
async fn a_reading_is_followed_to_its_rows_and_to_what_became_of_it_instead() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("TRACE-1");
    let topic = "devices/TRACE-1/telemetry";
    platform.publish(topic, (0..10).map(payload)).await;
    everywhere(&platform, &of("TRACE-1", entity, 10)).await;
    let at = ["--device", "TRACE-1", "--metric", "temperature", "--at"];
    let moment = |second: u32| format!("2026-01-01T00:00:{second:02}Z");
    let ask = |second: u32| trace(&platform, &[&at[..], &[&moment(second)]].concat());
    let (told, found) = ask(3);
    assert!(found && told.len() == 1, "{told:?}");
    let reading = &told[0]["readings"][0];
    assert_eq!((fates(reading), &reading["value_n"]), (["stored"; 2], &3.0.into()), "{told:?}");
    assert!(reading["targets"]["secondary"]["committed_at"].is_string(), "{reading}");
    assert_eq!(told[0]["received"]["device_type"], "temperature-sensor");
    let (raw, telemetry) =
        (told[0]["received"]["message"].clone(), told[0]["published"][0]["message"].clone());
    let text = platform.succeed(&["trace", raw.as_str().unwrap()]);
    for part in ["received ", "RAW ", "TELEMETRY ", "temperature) at", "secondary"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (all, _) = trace(&platform, &[telemetry.as_str().unwrap()]);
    let all = all[0]["readings"].as_array().unwrap();
    assert!(all.iter().any(|other| other["ts"] == reading["ts"]), "{all:?}");

    // Corrected: the first one was superseded by the second.
    platform.publish(topic, [payload(3).replace(":3}", ":0.5}")]).await;
    eventually("the correction", || async {
        let (told, _) = ask(3);
        let reading = &told[0]["readings"][0];
        let done = reading["value_n"] == 0.5 && fates(reading) == ["stored"; 2];
        if done { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let (told, found) = trace(&platform, &[raw.as_str().unwrap()]);
    let by = told[0]["readings"][0]["targets"]["primary"]["by"].as_str().unwrap();
    assert!(found && by.starts_with("RAW-"), "{told:?}");
    assert_eq!(fates(&told[0]["readings"][0]), ["superseded"; 2], "{told:?}");

    // Behind the platform's back.
    let at_4 = format!("where entity_id = {entity} and value_n = 4");
    run(&platform.primary, &format!("update core.values_demo set value_n = 9 {at_4}")).await;
    run(&platform.secondary, &format!("delete from core.values_demo {at_4}")).await;
    let (told, found) = ask(4);
    let reading = &told[0]["readings"][0];
    assert!(!found && fates(reading) == ["stored", "lost"], "{told:?}");
    assert_eq!(reading["targets"]["primary"]["changed"], true, "{told:?}");

    // A stranger's, and one whose database is away.
    platform.publish("devices/NOBODY/telemetry", [payload(1)]).await;
    let letter = eventually("a letter", || async {
        let letters = platform.succeed(&["dead-letters", "list", "--json"]);
        let letters: Value = serde_json::from_str(&letters).unwrap();
        letters.get(0).cloned().ok_or_else(|| "none".to_owned())
    })
    .await;
    let source = format!("RAW-{}-{}", letter["source"]["sequence"], letter["source"]["row"]);
    let (told, _) = trace(&platform, &[&source]);
    assert_eq!(told[0]["letters"][0]["number"], letter["number"], "{told:?} {letter}");
    platform.secondary_cluster.stop().await;
    platform.publish(topic, [payload(20)]).await;
    eventually("the primary has it", || async {
        let (told, _) = ask(20);
        let Some(story) = told.first() else { return Err("nothing".to_owned()) };
        let reading = &story["readings"][0];
        if fates(reading) == ["stored", "unknown"] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    platform.secondary_cluster.launch().await;
    assert!(!trace(&platform, &["RAW-999999-0"]).1);
}

#[tokio::test]
async fn what_a_request_brought_is_found_by_its_id() {
    let platform = Platform::start("").await;
    let ingest = platform.service("ingest");
    let api = crate::api::Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let value = crate::api::number(point, "2026-01-01T00:00:00Z", 12.0);
    let body = json!({ "org_id": 1, "values": [value] });
    let answer = api.post("/bulk/value", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.request_id;
    let (told, found) = trace(&platform, &["--request-id", &id]);
    assert!(found, "{told:?}");
    assert_eq!(told[0]["published"][0]["request_id"], id.as_str());
    assert_eq!(told[0]["readings"][0]["entity_id"], point);
    // A device's message by HTTP.
    let bridge = platform.service("bridge");
    let device = json!({ "ts": "2026-01-01T00:00:00Z", "temperature": 21.5 });
    let sent = api.post("/api/v1/telemetry?device_id=TS-001-2024", &json!([device])).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    eventually("its row", || async {
        let (told, found) = trace(&platform, &["--request-id", &sent.request_id]);
        let reading = told.first().map(|story| &story["readings"][0]);
        match reading {
            Some(reading) if found && reading["value_n"] == 21.5 => {
                if fates(reading) == ["stored"; 2] { Ok(()) } else { Err(format!("{told:?}")) }
            }
            _ => Err(format!("{told:?}")),
        }
    })
    .await;
    drop(bridge);
    // The same by the API.
    let same = api.get(&format!("/trace?request_id={id}")).await;
    let log = ingest.log_tail();
    assert_eq!((same.status, &same.body), (200, &Value::Array(told)), "{log}");
    let same = api.get(&format!("/trace/{point}?at=2026-01-01T00:00:00Z")).await;
    assert_eq!(same.body[0]["readings"][0]["value_n"], 12.0, "{same:?}");
    assert_eq!(api.get("/trace?message_id=TELEMETRY").await.status, 422);
    assert_eq!(api.get("/trace").await.status, 422);
    let gaps = api.get("/gap?org_id=1").await;
    assert_eq!((gaps.status, &gaps.body), (200, &Value::Array(Vec::new())));
    let listed = api.get("/target").await;
    let names: Vec<_> = listed.body.as_array().unwrap().iter().map(|it| &it["target"]).collect();
    assert_eq!(names, ["primary", "secondary"], "{listed:?}");
    let empty = Value::Null;
    assert_eq!(api.post("/target/primary/detach", &empty).await.status, 409);
    assert_eq!(api.post("/target/third/detach", &empty).await.status, 404);
    let detached = api.post("/target/secondary/detach", &empty).await;
    assert!(detached.status == 200 && detached.body["detached_by"].is_string(), "{detached:?}");
    let attached = api.post("/target/secondary/attach", &empty).await;
    assert!(attached.status == 200 && attached.body["detached_by"].is_null(), "{attached:?}");
    let none = "00000000-0000-4000-8000-000000000000";
    assert!(!trace(&platform, &["--request-id", none]).1);
}

fn gaps(platform: &Platform, arguments: &[&str]) -> Vec<Value> {
    let output = platform.command(&[&["gaps", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    told["gaps"].as_array().unwrap().clone()
}

/// Each gap says where it stopped.
#[tokio::test]
async fn what_is_missing_is_named_with_where_it_stopped() {
    let platform = Platform::start("").await;
    let (mut bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "device_type: ticker\nprocessing_mode: endpoint\nprotocol_adapter: json\n\
         metrics:\n  level: { pointer: /level, kind: number, unit: m, \
         tags: { point: M, hisCollectInterval: { value: 1, unit: s } } }\n",
    )
    .unwrap();
    platform.succeed(&["device-type", "apply", file.path().to_str().unwrap()]);
    for device in ["TICK-1", "TICK-2", "TICK-3"] {
        platform.succeed(&["device", "add", device, "--type", "ticker"]);
    }
    let none = gaps(&platform, &[]);
    assert_eq!(none.len(), 3, "{none:?}");
    assert!(none.iter().all(|gap| gap["after"].is_null() && gap["until"].is_null()), "{none:?}");
    let send = async |device: &str, text: &str| {
        platform.publish(&format!("devices/{device}/telemetry"), [text.to_owned()]).await;
    };
    let of = |device: &str| {
        gaps(&platform, &[]).into_iter().filter(|gap| gap["device"] == device).collect::<Vec<_>>()
    };
    let good = "{\"level\": 1}";
    for device in ["TICK-1", "TICK-2", "TICK-3"] {
        send(device, good).await;
    }
    eventually("each has a reading", || async {
        let all = gaps(&platform, &[]);
        let begun = all.iter().all(|gap| !gap["after"].is_null());
        if begun { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    // 1 goes on, 2 is silent, 3 sends what can't be read.
    eventually("2 is silent, 3 sends rubbish", || async {
        send("TICK-1", good).await;
        send("TICK-3", "rubbish").await;
        let (two, three) = (of("TICK-2"), of("TICK-3"));
        let why = |gaps: &[Value]| gaps.last().map(|gap| gap["why"].clone());
        let expected = (Some("device_silent".into()), Some("dead_letters".into()));
        let found = (why(&two), why(&three));
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    // Nobody is heard.
    bridge.stop().await;
    eventually("nothing comes", || async {
        let found = of("TICK-1");
        match found.last() {
            Some(gap) if gap["why"] == "nothing_came" && gap["until"].is_null() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let _bridge = platform.service("bridge");
    send("TICK-1", good).await;
    eventually("the gap has an end", || async {
        let ended = of("TICK-1").into_iter().filter(|gap| !gap["until"].is_null());
        match ended.max_by_key(|gap| gap["missing"].as_u64()) {
            Some(gap) if gap["missing"].as_u64() >= Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// An org that a target has no tables for yet is said, and neither an outage nor equal.
#[tokio::test]
async fn an_org_that_a_target_does_not_know_yet_is_named() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    eventually("the first org is everywhere", || async {
        let output = platform.command(&["verify"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    let mut holder = testkit::platform::connect(&platform.secondary.superuser()).await.unwrap();
    let hold = "begin; lock table core.org in share mode";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();
    platform.succeed(&["org", "add", "late"]);
    eventually("the primary has it", || async {
        let verdict = verify(&platform, &["--repair"]);
        let unknown = json!([{ "org": "late", "target": "secondary" }]);
        if verdict["unknown"] == unknown { Ok(()) } else { Err(verdict.to_string()) }
    })
    .await;
    let output = platform.command(&["verify"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("no tables of org late"), "{said}");
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    eventually("both have it", || async {
        let output = platform.command(&["verify"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
}

/// What stands beside readings: deleted, changed, and missing, in either target; and brought to one that has none.
#[tokio::test]
async fn presences_and_ends_of_transactions_are_compared_repaired_and_brought() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let wire = crate::ingest::connect(&platform.nats, "bridge").await;
    let at = SystemClock.now().plus_micros(-3_600_000_000);
    let device = |name: &str| DeviceId::parse(name).unwrap();
    let presence = |(sequence, name): (u64, &str)| Presence {
        device: device(name),
        online: true,
        at,
        kept: false,
        origin: Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at: at },
    };
    let end = |sequence: u64| Ended {
        gateway: device("G-1"),
        transaction: "report".to_owned(),
        sequence,
        expected: 3,
        seen: 2,
        missing: "2".to_owned(),
        outcome: Outcome::Expired,
        reason: "a part did not come".to_owned(),
        sha256: None,
        began_at: at,
        ended_at: at,
    };
    let presences = (1..).zip(["a", "B", "c"]).map(presence).collect();
    let batch = Batch { presences, transactions: (1..4).map(end).collect(), ..Batch::default() };
    let message = Outgoing::without_id("telemetry.demo.test", nats::envelope::encode(&batch));
    nats::publish::publish(&wire, message).await.unwrap();
    let told = |verdict: &Value| {
        let it = &verdict["compared"][0];
        (it["presences"].as_u64().unwrap(), it["transactions"].as_u64().unwrap())
    };
    let texts = async |database: &Database| {
        let mut connection = testkit::platform::connect(&database.superuser()).await.unwrap();
        let sql = "select t::text from core.device_presence t union all \
                   select t::text from core.telemetry_transactions t order by 1";
        let rows: Vec<String> =
            sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap_or_default();
        rows
    };
    let everywhere = async || {
        eventually("both have all of it", || async {
            let both = [texts(&platform.primary).await, texts(&platform.secondary).await];
            if both[0].len() == 6 && both[0] == both[1] { Ok(()) } else { Err(format!("{both:?}")) }
        })
        .await;
        texts(&platform.primary).await
    };
    let right = everywhere().await;
    assert_eq!(told(&verify(&platform, &[])), (0, 0));

    let (presence, transactions) = ("core.device_presence", "core.telemetry_transactions");
    run(&platform.primary, &format!("delete from {presence} where device_id = 'c'")).await;
    run(&platform.secondary, &format!("delete from {presence} where device_id = 'a'")).await;
    run(&platform.secondary, &format!("update {presence} set online = false")).await;
    run(&platform.primary, &format!("delete from {transactions} where end_sequence = 1")).await;
    run(&platform.secondary, &format!("delete from {transactions} where end_sequence = 2")).await;
    run(&platform.secondary, &format!("update {transactions} set parts_seen = 9")).await;
    let verdict = verify(&platform, &[]);
    assert_eq!((told(&verdict), &verdict["equal"]), ((3, 3), &false.into()));
    let verdict = verify(&platform, &["--repair"]);
    assert_eq!((told(&verdict), &verdict["equal"]), ((0, 0), &true.into()));
    let repaired = &verdict["repaired"][0];
    assert_eq!((&repaired["presences"], &repaired["transactions"]), (&3.into(), &3.into()));
    // The primary's counted where both had one version; what it had lost came from the other as it was there.
    let mended = everywhere().await;
    let as_before = mended.iter().filter(|row| right.contains(row)).count();
    assert_eq!(as_before, 4, "{mended:?}");

    // One that ended just now may be on its way to the other.
    let just_now = format!(
        "insert into {transactions} select org_id, gateway_id, transaction_id, 9, parts_expected, parts_seen, \
         parts_missing, outcome, reason, sha256, began_at, now() from {transactions} limit 1"
    );
    run(&platform.primary, &just_now).await;
    let verdict = verify(&platform, &[]);
    assert_eq!((told(&verdict), &verdict["equal"]), ((0, 0), &true.into()));
    run(&platform.primary, &format!("delete from {transactions} where end_sequence = 9")).await;

    for table in [presence, transactions] {
        run(&platform.secondary, &format!("delete from {table}")).await;
    }
    let filled = platform.succeed(&["targets", "backfill", "secondary", "--from", "primary"]);
    assert!(filled.contains("3 presences, 3 transactions"), "{filled}");
    assert_eq!(everywhere().await, mended);
    let again = platform.succeed(&["targets", "backfill", "secondary", "--from", "primary"]);
    assert!(again.contains("0 presences, 0 transactions"), "{again}");
    assert_eq!(told(&verify(&platform, &[])), (0, 0));
}
