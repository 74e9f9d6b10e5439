//! The ledger: what somebody took, added or acknowledged in silence is found; what a crash leaves half done is
//! not.

use async_nats::jetstream::consumer::PullConsumer;
use domain::{
    Batch, DeviceId, EntityId, Group, Origin, OriginStream, Revision, Sample, Timestamp, Values,
    failpoint,
    raw::{Pack, RawMessage},
};
use futures_util::StreamExt;
use serde_json::Value;
use testkit::{
    Failpoint, Platform, eventually,
    judge::{FIRST, Numbered, payload},
    platform::change,
};

fn ledger(platform: &Platform, arguments: &[&str]) -> Value {
    let output = platform.command(&[&["ledger", "--json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let ledger: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(ledger["balanced"], output.status.success(), "{ledger}");
    ledger
}

fn at(n: u32) -> Timestamp {
    Timestamp::from_micros((FIRST + i64::from(n)) * 1_000_000).unwrap()
}

fn of(device: &str, entity: i32, sent: u32) -> Numbered {
    Numbered { device: device.to_owned(), entity, sent }
}

async fn everywhere(platform: &Platform, readings: &Numbered) {
    for database in [&platform.primary, &platform.secondary] {
        readings.arrives(database, "demo").await;
    }
}

/// Takes the next messages out of a stream's consumer and says they are done.
async fn acknowledge_in_silence(platform: &Platform, user: &str, consumer: (&str, &str)) -> u64 {
    let wire = crate::ingest::connect(&platform.nats, user).await;
    let stream = wire.jetstream.get_stream_no_info(consumer.0).await.unwrap();
    let consumer: PullConsumer = stream.get_consumer(consumer.1).await.unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    message.double_ack().await.unwrap();
    message.info().unwrap().stream_sequence
}

#[tokio::test]
async fn rows_that_went_or_came_behind_its_back_unbalance_it() {
    const SENT: u32 = 3_000;
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("LEDGER-1");
    platform.publish("devices/LEDGER-1/telemetry", (0..SENT).map(payload)).await;
    everywhere(&platform, &of("LEDGER-1", entity, SENT)).await;
    platform.balances().await;
    let told = ledger(&platform, &[]);
    let hours = told["targets"][0]["hours"].as_array().unwrap();
    let stored: u64 = hours.iter().map(|hour| hour["stored"].as_u64().unwrap()).sum();
    let readings: u64 = hours.iter().map(|hour| hour["readings"].as_u64().unwrap()).sum();
    assert_eq!((stored, readings), (SENT.into(), SENT.into()), "{told}");

    let lost = format!("delete from core.values_demo where entity_id = {entity} and value_n = 77");
    change(&platform.primary.superuser(), &lost).await;
    // One that no target has any more: the stream still does.
    let everywhere_gone =
        format!("delete from core.values_demo where entity_id = {entity} and value_n = 99");
    change(&platform.primary.superuser(), &everywhere_gone).await;
    change(&platform.secondary.superuser(), &everywhere_gone).await;
    let twice = format!(
        "insert into core.values_demo select entity_id, ts + interval '1 microsecond', value_n, \
         value_b, value_s, value_ts, accepted_at, version from core.values_demo \
         where entity_id = {entity} and value_n in (5, 6)"
    );
    change(&platform.secondary.superuser(), &twice).await;
    let told = ledger(&platform, &[]);
    let found = |at: usize| {
        let rows = &told["targets"][at]["rows"][0];
        rows["found"].as_i64().unwrap() - rows["counted"].as_i64().unwrap()
    };
    assert_eq!((&told["balanced"], found(0), found(1)), (&false.into(), -2, 1), "{told}");
    let text = String::from_utf8(platform.command(&["ledger"]).stdout).unwrap();
    assert!(text.contains("2 rows are missing of 3000"), "{text}");
    assert!(text.contains("1 rows more are there than 3000") && text.contains("NOT"), "{text}");

    platform.succeed(&["verify", "--repair", "--prune"]);
    platform.balances().await;
    everywhere(&platform, &of("LEDGER-1", entity, SENT)).await;
}

/// Somebody says a message is done that was never applied: found, and mended by applying it.
#[tokio::test]
async fn a_message_that_was_dropped_in_silence_is_found_and_applied_again() {
    let platform = Platform::start("").await;
    let (mut bridge, mut ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("LEDGER-2");
    let topic = "devices/LEDGER-2/telemetry";
    platform.publish(topic, (0..100).map(payload)).await;
    everywhere(&platform, &of("LEDGER-2", entity, 100)).await;
    platform.balances().await;
    ingest.stop().await;
    platform.publish(topic, (100..200).map(payload)).await;
    eventually("readings wait", || async {
        let told = ledger(&platform, &[]);
        let waiting = told["targets"][0]["hop"]["in_flight"].as_u64().unwrap();
        if waiting > 0 { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    let consumer = ("TELEMETRY", "ingest-primary-demo");
    let dropped = acknowledge_in_silence(&platform, "ingest", consumer).await;
    let _ingest = platform.service("ingest");
    of("LEDGER-2", entity, 200).arrives(&platform.secondary, "demo").await;
    eventually("it is found", || async {
        let told = ledger(&platform, &[]);
        let hop = &told["targets"][0]["hop"];
        if hop["in_flight"] == 0 { Ok(told) } else { Err(told.to_string()) }
    })
    .await;
    let told = ledger(&platform, &[]);
    let unaccounted = told["targets"][0]["hop"]["unaccounted"].as_array().unwrap();
    assert_eq!(unaccounted.len(), 1, "{told}");
    assert_eq!(unaccounted[0]["sequence"], dropped);
    assert_eq!(told["targets"][1]["balanced"], true, "{told}");
    platform.succeed(&["verify", "--repair"]);
    everywhere(&platform, &of("LEDGER-2", entity, 200)).await;
    platform.balances().await;

    // The same between RAW and TELEMETRY: nothing is left of it but its number.
    bridge.stop().await;
    let wire = crate::ingest::connect(&platform.nats, "bridge").await;
    let rubbish = nats::publish::Outgoing::without_id("raw.mqtt.test", "rubbish".into());
    let sent = nats::publish::publish(&wire, rubbish).await.unwrap().sequence();
    let dropped = acknowledge_in_silence(&platform, "bridge", ("RAW", "normalize")).await;
    assert_eq!(sent, dropped);
    let told = ledger(&platform, &[]);
    assert_eq!(told["normalize"]["unaccounted"][0]["sequence"], dropped, "{told}");
    assert_eq!(told["balanced"], false);
    platform.succeed(&["ledger", "--rows", "--settle"]);
    platform.balances().await;
}

/// Letters, readings that come twice, later ones and deleted ones: each has a fate, and those that can't be
/// stored do not hold the others, whenever the service dies.
#[tokio::test]
async fn every_reading_has_one_fate_whatever_becomes_of_it() {
    let platform = Platform::start("").await;
    let _bridge = platform.service("bridge");
    let (_, entity) = platform.add_device("LEDGER-3");
    let topic = "devices/LEDGER-3/telemetry";
    let low = "alter table core.values_demo add constraint low check (value_n <> 11)";
    for database in [&platform.primary, &platform.secondary] {
        let mut ready = platform.service("ingest");
        eventually("tables", || async {
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let there =
                sqlx::query("select 1 from core.values_demo").execute(&mut connection).await;
            there.map(drop).map_err(|error| error.to_string())
        })
        .await;
        ready.stop().await;
        change(&database.owner(), low).await;
    }
    let failpoint = Failpoint { name: failpoint::BEFORE_LEDGER, passes: 0 };
    let mut doomed = platform.doomed("ingest", failpoint);
    let twice = (0..50).chain(40..60).map(payload);
    let rubbish = ["no json", "{\"ts\":\"2026-01-01T00:00:01Z\",\"temperature\":\"warm\"}"];
    platform.publish(topic, twice.chain(rubbish.map(str::to_owned))).await;
    platform.publish("devices/NOBODY/telemetry", [payload(1)]).await;
    doomed.died_at(failpoint).await;
    let _ingest = platform.service("ingest");
    platform.balances().await;
    let told = ledger(&platform, &[]);
    for target in told["targets"].as_array().unwrap() {
        let hours = target["hours"].as_array().unwrap();
        let sum = |of: &str| hours.iter().map(|hour| hour[of].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("readings"), sum("dead")), (70, 1), "{target}");
        assert_eq!(target["rows"][0]["found"], 59, "entity {entity}: {target}");
    }
    assert!(told["normalize"]["explained"].as_u64().unwrap() >= 1, "{told}");
}

/// One device's message of a pack is dropped, the others of it come through: the bits of packs do not show it.
#[tokio::test]
async fn one_message_of_a_pack_that_was_dropped_in_silence_is_found() {
    let platform = Platform::start("").await;
    let (mut bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("LEDGER-4");
    platform.publish("devices/LEDGER-4/telemetry", [payload(0)]).await;
    everywhere(&platform, &of("LEDGER-4", entity, 1)).await;
    platform.balances().await;
    let told = ledger(&platform, &[]);
    let hours = &told["device_messages"]["hours"];
    assert_eq!((&hours[0]["accepted"], &hours[0]["normalized"]), (&1.into(), &1.into()), "{told}");
    assert_eq!(hours[0]["org"], "demo");
    bridge.stop().await;

    // What a bridge would do that forgets the second of three.
    let wire = crate::ingest::connect(&platform.nats, "bridge").await;
    let (_, first) = nats::consume::read_placed(&wire, "RAW", 1).await.unwrap().unwrap();
    let pack: Pack<'_> = nats::envelope::decode_borrowed(&first).unwrap();
    let mut entries = Vec::new();
    for n in 1..4 {
        let payload = payload(n).into_bytes().into();
        entries.push(RawMessage { payload, ..pack.entries[0].clone() });
    }
    let body = nats::envelope::encode(&Pack { entries });
    let sent = nats::publish::Outgoing::without_id("raw.mqtt.test", body);
    let sequence = nats::publish::publish(&wire, sent).await.unwrap().sequence();
    assert_eq!(acknowledge_in_silence(&platform, "bridge", ("RAW", "normalize")).await, sequence);
    let (position, _) = nats::consume::read_placed(&wire, "RAW", sequence).await.unwrap().unwrap();
    let group = |index: u16| Group {
        origin: Some(Origin {
            stream: OriginStream::Raw,
            sequence,
            index,
            accepted_at: position.stored_at,
        }),
        revision: Revision::default(),
        device: Some(DeviceId::parse("LEDGER-4").unwrap()),
        profile_version: 1,
        samples: vec![Sample {
            entity: EntityId(entity),
            ts: at(u32::from(index) + 1),
            values: Values::number(f64::from(index) + 1.0),
        }],
    };
    let batch = Batch { groups: vec![group(0), group(2)], ..Batch::default() };
    let sent =
        nats::publish::Outgoing::without_id("telemetry.demo.test", nats::envelope::encode(&batch));
    nats::publish::publish(&wire, sent).await.unwrap();
    eventually("it is found", || async {
        let told = ledger(&platform, &[]);
        let flying =
            told["targets"].as_array().unwrap().iter().any(|it| it["hop"]["in_flight"] != 0);
        if flying || told["normalize"]["in_flight"] != 0 { Err(told.to_string()) } else { Ok(()) }
    })
    .await;
    let told = ledger(&platform, &[]);
    assert_eq!(
        told["normalize"]["unaccounted"],
        Value::Array(Vec::new()),
        "packs all came through"
    );
    assert_eq!(told["balanced"], false, "{told}");
    let missing = &told["device_messages"]["unaccounted"];
    assert_eq!(missing, &Value::from(vec![format!("RAW-{sequence}-1")]), "{told}");
    let text = String::from_utf8(platform.command(&["ledger"]).stdout).unwrap();
    assert!(text.contains(&format!("RAW-{sequence}-1 is unaccounted for")), "{text}");

    let _bridge = platform.service("bridge");
    platform.succeed(&["replay", "--from", "2020-01-01", "--to", "2100-01-01"]);
    everywhere(&platform, &of("LEDGER-4", entity, 4)).await;
    platform.balances().await;
}
