//! Outages: a database, the broker or the stream server away, a full stream, a revoked grant, a
//! third empty database. Each waits for its own and holds up nobody else.

use domain::failpoint;
use serde_json::Value;
use testkit::{
    Failpoint, Platform, eventually,
    judge::{Numbered, payload},
};

async fn with_device(extra: &str, device: &str, sent: u32) -> (Platform, Numbered) {
    let platform = Platform::start(extra).await;
    let (_, entity) = platform.add_device(device);
    (platform, Numbered { device: device.to_owned(), entity, sent })
}

fn status(platform: &Platform) -> Value {
    serde_json::from_str(&platform.succeed(&["status", "--json"])).expect("JSON")
}

/// The lag of one target's consumer of org `demo`.
fn lag(status: &Value, target: &str) -> u64 {
    let lines = status["targets"].as_array().expect("targets");
    let line = lines.iter().find(|line| line["target"] == target && line["org"] == "demo");
    line.expect("the target")["lag"].as_u64().expect("a consumer")
}

#[tokio::test]
async fn a_secondary_that_is_away_holds_up_nobody_and_catches_up() {
    let (platform, readings) = with_device("", "OUT-1", 5_000).await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    platform.publish("devices/OUT-1/telemetry", (0..100).map(payload)).await;
    Numbered { sent: 100, ..readings.clone() }.arrives(&platform.secondary, "demo").await;
    platform.secondary_cluster.stop().await;
    platform.publish("devices/OUT-1/telemetry", (100..readings.sent).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    eventually("the primary's lag to reach zero during the outage", || async {
        let status = status(&platform);
        match (lag(&status, "primary"), lag(&status, "secondary")) {
            (0, behind) if behind > 0 => Ok(()),
            lags => Err(format!("lags {lags:?}")),
        }
    })
    .await;
    platform.secondary_cluster.launch().await;
    readings.arrives(&platform.secondary, "demo").await;
    eventually("the secondary's lag to reach zero", || async {
        let behind = lag(&status(&platform), "secondary");
        if behind == 0 { Ok(()) } else { Err(format!("lag {behind}")) }
    })
    .await;
    platform.succeed(&["verify"]);
    platform.balances().await;
}

#[tokio::test]
async fn a_database_killed_in_the_middle() {
    let (platform, readings) = with_device("", "OUT-2", 20_000).await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    let kills = async {
        for _ in 0..2 {
            tokio::time::sleep(std::time::Duration::from_millis(600)).await;
            platform.primary_cluster.restart9().await;
        }
    };
    let lines = (0..readings.sent).map(payload);
    tokio::join!(platform.publish("devices/OUT-2/telemetry", lines), kills);
    readings.arrives(&platform.primary, "demo").await;
    readings.arrives(&platform.secondary, "demo").await;
}

#[tokio::test]
async fn a_full_stream_refuses_and_flows_again() {
    // So small that the readings do not fit while nothing may leave the stream.
    let full = "streams.readings_max_bytes = 300000";
    let (platform, readings) = with_device(full, "OUT-3", 20_000).await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    platform.publish("devices/OUT-3/telemetry", (0..readings.sent).map(payload)).await;
    eventually("the full stream to be named", || async {
        let held = status(&platform).to_string();
        if held.contains("maximum bytes") { Ok(()) } else { Err(held) }
    })
    .await;
    platform.configure("");
    platform.succeed(&["migrate"]);
    readings.arrives(&platform.primary, "demo").await;
    readings.arrives(&platform.secondary, "demo").await;
}

#[tokio::test]
async fn a_third_empty_database_fills_itself() {
    let (platform, readings) = with_device("", "OUT-4", 3_000).await;
    let _bridge = platform.service("bridge");
    let mut ingest = platform.service("ingest");
    platform.publish("devices/OUT-4/telemetry", (0..readings.sent).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    ingest.stop().await;
    let third = platform.secondary_cluster.database().await;
    platform.configure(&format!(
        "targets.third.url = {:?}\ntargets.third.owner_url = {:?}\n",
        third.ingest_url(),
        third.owner_url()
    ));
    platform.succeed(&["migrate"]);
    let _ingest = platform.service("ingest");
    readings.arrives(&third, "demo").await;
    let mut connection = testkit::platform::connect(&third.superuser()).await.unwrap();
    let sql =
        "select device_id from core.devices where device_type = 'temperature-sensor' order by 1";
    let devices: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
    assert_eq!(devices, ["OUT-4", "TS-001-2024"]);
    platform.succeed(&["verify"]);
    platform.balances().await;
}

#[tokio::test]
async fn verify_names_what_was_planted() {
    let (platform, readings) = with_device("", "OUT-5", 3_000).await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    platform.publish("devices/OUT-5/telemetry", (0..readings.sent).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    readings.arrives(&platform.secondary, "demo").await;
    platform.succeed(&["verify"]);
    platform.balances().await;
    let mut connection = testkit::platform::connect(&platform.secondary.superuser()).await.unwrap();
    let entity = readings.entity;
    for sql in [
        format!("delete from core.values_demo where entity_id = {entity} and value_n = 10"),
        format!(
            "update core.values_demo set value_n = -1 where entity_id = {entity} and value_n = 20"
        ),
        format!(
            "insert into core.values_demo (entity_id, ts, value_n, accepted_at, version) \
             select {entity}, ts + interval '1 ms', 0, accepted_at, version \
             from core.values_demo where entity_id = {entity} and value_n = 30"
        ),
    ] {
        let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
    let output = platform.command(&["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
    let hour = &verdict["compared"][0]["differing"][0];
    assert_eq!(hour["hour"], "2026-01-01T00:00:00Z");
    for change in ["missing", "extra", "changed"] {
        assert_eq!(hour[change], 1, "{hour}");
    }
}

#[tokio::test]
async fn a_table_that_refuses_every_row_is_an_outage_and_not_poison() {
    let (platform, readings) = with_device("", "OUT-6", 200).await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    platform.publish("devices/OUT-6/telemetry", (0..100).map(payload)).await;
    Numbered { sent: 100, ..readings.clone() }.arrives(&platform.secondary, "demo").await;
    let mut connection = testkit::platform::connect(&platform.secondary.superuser()).await.unwrap();
    let mut run = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    };
    // The class of an error that a bad value gives, for every row.
    run("create function core.refuse() returns trigger language plpgsql as $$ begin \
         raise exception 'every row' using errcode = '22003'; end $$; \
         create trigger refuse before insert on core.values_demo \
         for each row execute function core.refuse()")
    .await;
    platform.publish("devices/OUT-6/telemetry", (100..readings.sent).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    eventually("the secondary to be held", || async {
        let status = status(&platform);
        let held = status["services"].to_string();
        if held.contains("secondary/demo") { Ok(()) } else { Err(held) }
    })
    .await;
    run("drop trigger refuse on core.values_demo").await;
    readings.arrives(&platform.secondary, "demo").await;
    assert_eq!(status(&platform)["dead_letters"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn a_device_registered_right_after_a_restart_of_the_stream_server_is_known() {
    let (platform, _) = with_device("", "OUT-7", 0).await;
    let _bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    platform.publish("devices/OUT-7/telemetry", [payload(0)]).await;
    platform.nats.restart9().await;
    let (_, entity) = platform.add_device("OUT-8");
    let readings = Numbered { device: "OUT-8".to_owned(), entity, sent: 20 };
    platform.publish("devices/OUT-8/telemetry", (0..readings.sent).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    assert_eq!(status(&platform)["dead_letters"].as_array().unwrap().len(), 0);
}

/// A device type whose messages have no time of their own: each one stored is a row.
const UNTIMED: &str = "
device_type: untimed
processing_mode: endpoint
protocol_adapter: json
metrics:
  v: { pointer: /v, kind: number }
";

/// Values of all rows of the device's one point, in order.
async fn values(platform: &Platform) -> Result<Vec<f64>, String> {
    let mut connection = testkit::platform::connect(&platform.primary.superuser()).await?;
    let sql = "select value_n from core.values_demo join core.device_point using (entity_id) \
               where metric = 'v' order by ts";
    sqlx::query_scalar(sql).fetch_all(&mut connection).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_retained_message_is_one_reading_however_often_the_bridge_reconnects() {
    let platform = Platform::start("").await;
    let file = platform.config().with_file_name("untimed.yaml");
    std::fs::write(&file, UNTIMED).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    platform.succeed(&["device", "add", "OUT-9", "--type", "untimed"]);
    let mut bridge = platform.service("bridge");
    let _ingest = platform.service("ingest");
    let topic = "devices/OUT-9/telemetry";
    let message = |v: u32| [format!("{{\"v\":{v}}}")];
    platform.publish_with(&["-r"], topic, message(1)).await;
    // A copy at QoS 0 is owed no acknowledgement; one would end the connection, again and again.
    platform.publish_with(&["-r", "-q", "0"], "devices/OUT-0/telemetry", message(0)).await;
    for v in 2..5 {
        bridge.kill9().await;
        bridge = platform.service("bridge");
        // It comes behind the retained copy, and shows that the copy was seen.
        platform.publish(topic, message(v)).await;
        eventually("the message behind the copy", || async {
            let values = values(&platform).await?;
            if values.contains(&f64::from(v)) { Ok(()) } else { Err(format!("{values:?}")) }
        })
        .await;
    }
    assert_eq!(values(&platform).await.unwrap(), [1.0, 2.0, 3.0, 4.0]);
}

#[tokio::test]
async fn retained_messages_of_a_first_session_that_was_cut_off_are_not_lost() {
    const SENDERS: u32 = 80;
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    // Nobody is registered: each message is a letter. Retained, one a topic, while no session of
    // a bridge is there to keep them.
    platform.forget_bridge_session().await;
    let publishers = (0..8).map(|part| {
        let platform = &platform;
        async move {
            for sender in (part..SENDERS).step_by(8) {
                let topic = format!("devices/R-{sender}/telemetry");
                platform.publish_with(&["-r"], &topic, [payload(0)]).await;
            }
        }
    });
    futures_util::future::join_all(publishers).await;
    let failpoint = Failpoint { name: failpoint::BEFORE_PUBACK, passes: 0 };
    platform.doomed("bridge", failpoint).died_at(failpoint).await;
    let _bridge = platform.service("bridge");
    eventually("a letter from each sender", || async {
        let letters = status(&platform)["dead_letters"].as_array().unwrap().len();
        if letters as u32 == SENDERS { Ok(()) } else { Err(format!("{letters} letters")) }
    })
    .await;
}

async fn write_model(platform: &Platform, subject: &str, body: &'static [u8]) {
    let (url, user) = (platform.nats.url(), "operator".to_owned());
    let password = platform.nats.password(&user);
    let wire = nats::Wire::connect(&nats::Login { url, user, password }).await.unwrap();
    let message = nats::publish::Outgoing::expecting(subject, 0, body.into());
    nats::publish::publish(&wire, message).await.unwrap();
}

#[tokio::test]
async fn an_unreadable_record_stops_nobody_but_its_own_device() {
    let (platform, readings) = with_device("", "OUT-11", 50).await;
    let _ingest = platform.service("ingest");
    let _bridge = platform.service("bridge");
    // Ingest applies records in order: what the readings need is applied before.
    platform.publish("devices/OUT-11/telemetry", (0..1).map(payload)).await;
    Numbered { sent: 1, ..readings.clone() }.arrives(&platform.primary, "demo").await;
    // A MODEL record of a schema version that nobody knows yet.
    let strange = |subject| write_model(&platform, subject, &[0x92, 99, 0xa3, b'n', b'e', b'w']);
    strange("model.demo.entity.999999").await;
    platform.publish("devices/nobody/telemetry", [payload(0)]).await;
    platform.publish("devices/OUT-11/telemetry", (0..readings.sent).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    let told = status(&platform)["services"].to_string();
    assert!(told.contains("model.demo.entity.999999"), "{told}");
    // Whose own record can't be read is waited for, not set aside.
    strange("model._.device.OUT-12").await;
    platform.publish("devices/OUT-12/telemetry", [payload(0)]).await;
    eventually("the door to be held", || async {
        let told = status(&platform)["services"].to_string();
        if told.contains("record of device") { Ok(()) } else { Err(told) }
    })
    .await;
    let letters = status(&platform)["dead_letters"].to_string();
    assert!(!letters.contains("OUT-12"), "{letters}");
}

#[tokio::test]
async fn a_stranger_can_not_take_the_session_of_the_bridge() {
    let (platform, readings) = with_device("", "OUT-10", 50).await;
    let _ingest = platform.service("ingest");
    // The bridge is away; the broker keeps its messages.
    platform.publish("devices/OUT-10/telemetry", (0..readings.sent).map(payload)).await;
    for stranger in ["bridge-1", "haystack-bridge", "bridge"] {
        platform.publish_with(&["-i", stranger], "devices/x/status", ["hello".to_owned()]).await;
    }
    let _bridge = platform.service("bridge");
    readings.arrives(&platform.primary, "demo").await;
}
