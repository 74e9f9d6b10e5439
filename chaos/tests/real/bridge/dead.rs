//! What can't be processed is set aside with its reason, and its neighbours are stored.

use super::{DEVICE, Stage, number, reading};
use async_nats::jetstream::stream::Config;
use domain::{
    DeviceId, OrgKey, Reason, Stage as At, Timestamp, TypeId,
    raw::{Pack, ProfileRef, RawMessage, Sender},
};
use nats::{
    envelope,
    publish::{Outgoing, publish},
};
use std::collections::BTreeMap;
use testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Waits for so many letters.
async fn letters(stage: &Stage, count: usize) -> Vec<domain::Letter> {
    eventually(&format!("{count} letters"), || async {
        let letters = stage.letters().await;
        if letters.len() == count { Ok(letters) } else { Err(format!("{letters:#?}")) }
    })
    .await
}

/// Waits until just these readings are in `TELEMETRY`: they are stored beside the letters, not before.
async fn stored(stage: &Stage, wanted: &[u32]) {
    eventually("the neighbours", || async {
        let found: Vec<u32> = stage.temperatures().await.into_keys().collect();
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn each_reason_is_named_and_the_neighbours_are_stored() {
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    stage.publish("stranger", [reading(0)]).await;
    let ts = "\"ts\":\"2026-01-01T00:00:00Z\"";
    let bad = [
        ("no json".to_owned(), Reason::NotJson),
        (format!("{{{ts},\"temperature\":\"warm\"}}"), Reason::WrongType),
        (format!("{{{ts},\"other\":1}}"), Reason::NothingMapped),
        (format!("{{{ts},\"unmapped\":1}}"), Reason::NothingMapped),
        ("{\"ts\":\"2036-01-01T00:00:00Z\",\"temperature\":1}".to_owned(), Reason::TimeOutOfRange),
        (format!("{{{ts},\"temperature\":70,\"humidity\":true}}"), Reason::WrongType),
    ];
    let neighbours = (0..).map(reading);
    let lines = bad.iter().zip(neighbours).flat_map(|((bad, _), good)| [bad.clone(), good]);
    stage.publish(DEVICE, lines).await;
    let letters = letters(&stage, bad.len() + 1).await;

    let mut wanted: Vec<_> = bad.iter().map(|(_, reason)| *reason).collect();
    wanted.push(Reason::UnknownDevice);
    let mut found: Vec<_> = letters.iter().map(|letter| letter.reason).collect();
    wanted.sort_by_key(|reason| reason.as_str());
    found.sort_by_key(|reason| reason.as_str());
    assert_eq!(found, wanted);
    for letter in &letters {
        let known = letter.reason != Reason::UnknownDevice;
        assert_eq!(letter.org.is_some(), known, "{letter:?}");
        assert_eq!(letter.sender, if known { DEVICE } else { "stranger" });
        assert_eq!((letter.stage, letter.source.stream.as_str()), (At::Normalize, "RAW"));
        let origin = letter.origin.unwrap();
        assert_eq!(letter.source.sequence, origin.sequence);
        assert_eq!(letter.source.row, u32::from(origin.index));
    }
    // The neighbours, and the good half of the last one.
    stored(&stage, &[0, 1, 2, 3, 4, 5, 70]).await;
    stage.counts("letters", letters.len() as u64).await;
    bridge.stop().await;
}

/// A PUBLISH of QoS 1 as bytes (MQTT 3.1.1): client libraries refuse what a hostile client sends.
fn publish_packet(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    body.extend([0, 1]);
    body.extend(payload);
    let (mut packet, mut left) = (vec![0x32], body.len());
    while left > 127 {
        packet.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    packet.push(left as u8);
    packet.extend(body);
    packet
}

/// Sends a packet on a connection of its own. `true`: the broker said yes to it; `false`: it ended the
/// connection.
async fn send_bytes(stage: &Stage, packet: &[u8]) -> bool {
    const CONNECT: &[u8] = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02hx";
    let port = stage.mosquitto.port();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(CONNECT).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    // It may end the connection before it has read all of a packet that is too large.
    let sent = stream.write_all(packet).await;
    let answered = stream.read_exact(&mut answer).await;
    sent.is_ok() && answered.is_ok() && answer[0] == 0x40
}

#[tokio::test]
async fn hostile_messages_are_refused_at_the_broker_or_set_aside_and_the_next_is_unharmed() {
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    let topic = format!("devices/{DEVICE}/telemetry");
    let ts = "\"ts\":\"2026-01-01T00:00:00Z\"";
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    let spaces = |bytes: usize| vec![b' '; 8 * 1024 * 1024 + bytes];
    let aside: [(&str, Vec<u8>, Reason); 10] = [
        (&topic, spaces(1), Reason::TooLarge),
        (&topic, Vec::new(), Reason::NotJson),
        (&topic, b"\xff\xfe".to_vec(), Reason::NotJson),
        (&topic, deep, Reason::NotJson),
        (&topic, format!("{{{ts},\"temperature\":NaN}}").into(), Reason::NotJson),
        (&topic, format!("{{{ts},\"temperature\":1e999}}").into(), Reason::NotJson),
        (&topic, format!("[{}]", "0,".repeat(300_000) + "0").into(), Reason::TooComplex),
        // Names that would be wildcards, separators or another protocol's topic, were they subjects.
        ("devices/a.b*c> d/telemetry", reading(900).into(), Reason::UnknownDevice),
        (
            "devices/spBv1.0%2Fgroup%2FNDATA%2Fnode/telemetry",
            reading(900).into(),
            Reason::UnknownDevice,
        ),
        ("devices//telemetry", reading(900).into(), Reason::UnknownDevice),
    ];
    let mut next = 0;
    for (topic, payload, reason) in aside {
        let before = stage.letters().await.len();
        assert!(send_bytes(&stage, &publish_packet(topic, &payload)).await, "{reason}");
        let letter = letters(&stage, before + 1).await.pop().unwrap();
        assert_eq!((letter.reason, letter.stage), (reason, At::Normalize), "{topic}: {letter:?}");
        stage.publish(DEVICE, [reading(next)]).await;
        next += 1;
    }
    for (topic, payload) in [
        (topic.as_str(), spaces(70_000)),
        ("devices/a+b/telemetry", Vec::new()),
        ("devices/a#/telemetry", Vec::new()),
        ("devices/a\0b/telemetry", Vec::new()),
    ] {
        let before = stage.raw().await.len();
        assert!(!send_bytes(&stage, &publish_packet(topic, &payload)).await, "{topic}");
        assert_eq!(stage.raw().await.len(), before);
        stage.publish(DEVICE, [reading(next)]).await;
        next += 1;
    }
    // Of a key that is there twice the last counts.
    let twice = format!("{{{ts},\"temperature\":1,\"temperature\":{next}}}");
    stage.publish(DEVICE, [twice]).await;
    stored(&stage, &(0..=next).collect::<Vec<_>>()).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_foreign_pack_and_an_unknown_profile_are_set_aside() {
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    let entry = |version, n| RawMessage {
        name: DEVICE.into(),
        sender: Some(Sender {
            org: OrgKey::parse("demo").unwrap(),
            device: DeviceId::parse(DEVICE).unwrap(),
            profile: ProfileRef { id: TypeId::parse("sensor").unwrap(), version },
        }),
        content_type: "application/json".into(),
        received_at: Timestamp::parse_rfc3339("2026-01-02T00:00:00Z").unwrap(),
        session: 1,
        packet_id: 0,
        number: u64::from(n),
        payload: reading(n).into_bytes().into(),
    };
    let pack = envelope::encode(&Pack { entries: vec![entry(1, 0), entry(99, 1), entry(1, 2)] });
    for (id, body) in [("junk", "junk".into()), ("newer", b"\x92\x63\x90"[..].into()), ("p", pack)]
    {
        publish(&stage.admin, Outgoing::new("raw.mqtt.other", id, body)).await.unwrap();
    }
    let letters = letters(&stage, 3).await;
    let mut reasons = BTreeMap::<_, usize>::new();
    for letter in &letters {
        *reasons.entry(letter.reason.as_str()).or_default() += 1;
    }
    assert_eq!(reasons, BTreeMap::from([("undecodable", 2), ("unknown_profile", 1)]));
    let unknown = letters.iter().find(|letter| letter.reason == Reason::UnknownProfile).unwrap();
    assert_eq!(unknown.source.row, 1);
    stored(&stage, &[0, 2]).await;
    bridge.stop().await;
}

#[tokio::test]
async fn a_full_dead_stream_holds_and_loses_no_letter() {
    let stage = Stage::start().await;
    let bridge = stage.bridge().await;
    limit(&stage, "DEAD", 1).await;
    stage.publish(DEVICE, [reading(0), "poison".to_owned(), reading(1)]).await;
    let why = bridge.held("normalize/DEAD").await;
    assert!(why.contains("maximum bytes"), "{why}");
    stage.all_normalized(2).await;
    let waiting = stage.admin.jetstream.get_stream("RAW").await.unwrap();
    let consumer = waiting.consumer_info("normalize").await.unwrap();
    assert!(consumer.num_ack_pending > 0, "RAW is not acknowledged before the letter is stored");
    limit(&stage, "DEAD", 1 << 20).await;
    assert_eq!(letters(&stage, 1).await[0].reason, Reason::NotJson);
    bridge.flows().await;
    let once: Vec<u32> =
        stage.raw_of_device().await.iter().filter(|p| *p != "poison").map(|p| number(p)).collect();
    assert_eq!(once, [0, 1]);
    bridge.stop().await;
}

/// Sets how many bytes a stream may hold.
pub(crate) async fn limit(stage: &Stage, stream: &str, max_bytes: i64) {
    let found = stage.admin.jetstream.get_stream(stream).await.unwrap();
    let config = Config { max_bytes, ..found.cached_info().config.clone() };
    stage.admin.jetstream.update_stream(config).await.unwrap();
}
