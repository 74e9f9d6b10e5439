//! Device messages as they came: on record once each, whoever dies, and not to be changed.

use domain::failpoint;
use sqlx::{AssertSqlSafe, Row as _};
use std::collections::BTreeMap;
use testkit::{
    Database, Failpoint, Platform, eventually,
    judge::{Numbered, payload},
};

const DEVICE: &str = "AR-1";
const TOPIC: &str = "devices/AR-1/telemetry";

/// Payloads of a device in the archive, and how often each is there.
async fn archived(database: &Database, name: &str) -> Result<BTreeMap<String, usize>, String> {
    let sql = "select payload from core.telemetry_raw where name = $1 order by sequence, index";
    let mut connection = testkit::platform::connect(&database.superuser()).await?;
    let rows = sqlx::query(sql).bind(name).fetch_all(&mut connection).await;
    let mut found = BTreeMap::new();
    for row in rows.map_err(|error| error.to_string())? {
        let payload: Vec<u8> = row.get(0);
        *found.entry(String::from_utf8_lossy(&payload).into_owned()).or_default() += 1;
    }
    Ok(found)
}

/// One value that a query gives.
async fn value<T>(database: &Database, sql: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let mut connection = testkit::platform::connect(&database.superuser()).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap()
}

/// What the writing role is told.
async fn as_writer(database: &Database, sql: &str) -> Result<(), String> {
    let mut connection = testkit::platform::connect(&database.superuser()).await?;
    let sql = format!("set role haystack_ingest; {sql}");
    let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
    done.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn every_message_is_on_record_once_as_it_came() {
    const SENT: u32 = 2_000;
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    let (_, entity) = platform.add_device(DEVICE);
    let readings = Numbered { device: DEVICE.to_owned(), entity, sent: SENT };
    let _bridge = platform.service("bridge");
    let mut ingest = platform.service("ingest");
    platform.publish(TOPIC, (0..500).map(payload)).await;
    ingest.kill9().await;
    platform.publish(TOPIC, (500..1_000).map(payload)).await;
    let mut ingest = platform.service("ingest");
    platform.primary_cluster.kill9().await;
    platform.publish(TOPIC, (1_000..SENT).map(payload)).await;
    // What no device type reads, of a stranger, is on record like all else.
    platform.publish("devices/NOBODY/telemetry", ["{ no json".to_owned()]).await;
    platform.primary_cluster.launch().await;
    readings.arrives(&platform.primary, "demo").await;
    eventually("all in the archive", || async {
        let found = archived(&platform.primary, DEVICE).await?;
        let once = found.values().all(|times| *times == 1);
        assert!(once, "no message is there twice");
        let all = (0..SENT).all(|n| found.contains_key(&payload(n)));
        if all { Ok(()) } else { Err(format!("{} of {SENT}", found.len())) }
    })
    .await;
    let stranger = archived(&platform.primary, "NOBODY").await.unwrap();
    assert_eq!(stranger, [("{ no json".to_owned(), 1)].into());
    // A row of a values table names its message.
    let named: bool = value(
        &platform.primary,
        &format!(
            "select bool_and(exists (select from core.telemetry_raw r \
             where r.accepted_at = v.accepted_at and r.sequence = v.version >> 24 \
             and r.index = v.version >> 14 & 1023 and r.device_id = '{DEVICE}')) \
             from core.values_demo v where v.entity_id = {entity}"
        ),
    )
    .await;
    assert!(named);
    // The secondary keeps none, unless it is told to.
    let rows: i64 = value(&platform.secondary, "select count(*) from core.telemetry_raw").await;
    assert_eq!(rows, 0);
    let status = platform.succeed(&["status"]);
    assert!(status.contains("archive of primary"), "{status}");
    ingest.stop().await;
}

#[tokio::test]
async fn the_writing_role_adds_and_never_changes_and_the_policy_is_the_owners() {
    let platform = Platform::start("archive.keep_days = 7").await;
    let database = &platform.primary;
    let row = |days: u32, n: u32| {
        format!(
            "insert into core.telemetry_raw values (now() - interval '{days} days', {n}, 0, now(), \
             null, null, null, null, 'x', '', 0, 0, 0, '')"
        )
    };
    for (days, n) in [(6, 1), (8, 2), (400, 3)] {
        as_writer(database, &row(days, n)).await.unwrap();
    }
    for refused in [
        "update core.telemetry_raw set name = 'y'",
        "delete from core.telemetry_raw",
        "truncate core.telemetry_raw",
        "update core.archive_policy set keep_days = 1",
        "alter table core.telemetry_raw add column z integer",
        "drop table core.telemetry_raw cascade",
    ] {
        let said = as_writer(database, refused).await.unwrap_err();
        assert!(said.contains("permission denied") || said.contains("must be owner"), "{said}");
    }
    // What is older than the policy goes, by the service itself, and nothing else.
    let mut ingest = platform.service("ingest");
    eventually("the old ones to go", || async {
        let mut connection = testkit::platform::connect(&database.superuser()).await?;
        let sql =
            "select array_agg(sequence order by sequence) from core.telemetry_raw where name = 'x'";
        let left: Vec<i64> =
            sqlx::query_scalar(sql).fetch_one(&mut connection).await.map_err(|e| e.to_string())?;
        if left == [1] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    ingest.stop().await;
}

#[tokio::test]
async fn history_shows_values_with_their_devices() {
    let platform = Platform::start("").await;
    let (_, entity) = platform.add_device(DEVICE);
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.publish(TOPIC, (0..10).map(payload)).await;
    let readings = Numbered { device: DEVICE.to_owned(), entity, sent: 10 };
    readings.arrives(&platform.secondary, "demo").await;
    let found: String = value(
        &platform.secondary,
        &format!(
            "select concat_ws(' ', org_id, org_key, device_type, metric, count(*)) \
             from core.telemetry_history where device_id = '{DEVICE}' and entity_id = {entity} \
             group by org_id, org_key, device_type, metric"
        ),
    )
    .await;
    assert_eq!(found, "1 demo temperature-sensor temperature 10");
    // Another org's values are there as soon as the org is.
    platform.succeed(&["org", "add", "other"]);
    eventually("the org's table in the view", || async {
        let sql = "select pg_get_viewdef('core.telemetry_history'::regclass)";
        let view: String = value(&platform.secondary, sql).await;
        if view.contains("values_other") { Ok(()) } else { Err(view) }
    })
    .await;
}

#[tokio::test]
async fn dead_after_commit_before_raw_is_acknowledged() {
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    platform.add_device(DEVICE);
    let _bridge = platform.service("bridge");
    let failpoint = Failpoint { name: failpoint::BEFORE_ARCHIVE_ACK, passes: 0 };
    let mut doomed = platform.doomed("ingest", failpoint);
    platform.publish(TOPIC, (0..200).map(payload)).await;
    doomed.died_at(failpoint).await;
    let before = archived(&platform.primary, DEVICE).await.unwrap().len();
    assert!(before > 0, "it was committed");
    platform.publish(TOPIC, (200..400).map(payload)).await;
    // What is no pack is kept as one message, and holds nobody up.
    let login = nats::Login {
        url: platform.nats.url(),
        user: "admin".to_owned(),
        password: platform.nats.password("admin"),
    };
    let admin = nats::Wire::connect(&login).await.unwrap();
    let junk = nats::publish::Outgoing::new("raw.mqtt.other", "junk", "no pack".into());
    nats::publish::publish(&admin, junk).await.unwrap();
    let _ingest = platform.service("ingest");
    eventually("each once", || async {
        let found = archived(&platform.primary, DEVICE).await?;
        assert!(found.values().all(|times| *times == 1), "no message is there twice");
        let junk = archived(&platform.primary, "raw.mqtt.other").await?;
        let all = found.len() == 400 && junk == [("no pack".to_owned(), 1)].into();
        if all { Ok(()) } else { Err(format!("{} {junk:?}", found.len())) }
    })
    .await;
}

#[tokio::test]
async fn a_long_look_at_history_holds_nothing_up() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let mut reader = testkit::platform::connect(&platform.secondary.superuser()).await.unwrap();
    let look = "begin; select count(*) from core.telemetry_history";
    sqlx::raw_sql(look).execute(&mut reader).await.unwrap();
    platform.succeed(&["org", "add", "other"]);
    let (_, entity) = platform.add_device(DEVICE);
    platform.publish(TOPIC, (0..10).map(payload)).await;
    let readings = Numbered { device: DEVICE.to_owned(), entity, sent: 10 };
    readings.arrives(&platform.secondary, "demo").await;
    let known = async || {
        let sql = "select pg_get_viewdef('core.telemetry_history'::regclass) like '%values_other%'";
        value::<bool>(&platform.secondary, sql).await
    };
    assert!(!known().await, "the view waits for its reader");
    sqlx::raw_sql("commit").execute(&mut reader).await.unwrap();
    eventually("the org in the view", || async {
        if known().await { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
}
