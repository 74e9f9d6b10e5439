//! The wire: streams, permissions, packs, readers, the model's writers.

use domain::{
    Holds, OrgKey, Timestamp,
    model::{Org, Record},
    raw::RawMessage,
};
use futures_util::future::join_all;
use nats::{
    CancellationToken, Login, Reader, Wire,
    consume::Durable,
    counter::{Counter, allocate},
    envelope,
    model::{self, ModelFault, put},
    pack,
    publish::{Outgoing, Patience, PublishFault, publish, until_stored},
    streams::{self, Limits},
};
use std::{collections::BTreeSet, time::Duration};
use testkit::{Nats, eventually};

async fn wire(server: &Nats, user: &str) -> Wire {
    let (url, password) = (server.url(), server.password(user));
    Wire::connect(&Login { url, user: user.to_owned(), password }).await.expect("it runs")
}

/// A server with the platform's streams, and an administrator's connection.
async fn declared() -> (Nats, Wire) {
    let server = Nats::start().await;
    let admin = wire(&server, "admin").await;
    streams::declare(&admin, &Limits::default()).await.expect("new streams");
    (server, admin)
}

fn patience(what: &str) -> Patience {
    Patience { holds: Holds::default(), what: what.to_owned(), shutdown: CancellationToken::new() }
}

fn org(id: i32, key: &str) -> Record {
    let key = OrgKey::parse(key).expect("a key");
    Record::Org(Org { id: domain::OrgId(id), key, name: String::new() })
}

#[tokio::test]
async fn streams_are_declared_again_and_never_deleted() {
    let (_server, admin) = declared().await;
    let stored = publish(&admin, Outgoing::new("raw.mqtt.x", "1", "a".into())).await.unwrap();
    assert_eq!(stored.sequence(), 1);
    let larger = Limits { readings: 1 << 30, others: 1 << 20, ..Limits::default() };
    streams::declare(&admin, &larger).await.expect("limits may change");
    assert_eq!(nats::inspect::stream(&admin, "RAW").await.unwrap().max_bytes, 1 << 30);
    // As an earlier release declared it.
    let mut dead = admin.jetstream.get_stream("DEAD").await.unwrap().cached_info().config.clone();
    assert!(dead.allow_rollup);
    dead.allow_rollup = false;
    if admin.jetstream.update_stream(dead).await.is_ok() {
        streams::declare(&admin, &larger).await.expect("it may change");
    }
    assert!(admin.jetstream.get_stream("DEAD").await.unwrap().cached_info().config.allow_rollup);
    let mut raw = admin.jetstream.get_stream("RAW").await.unwrap().cached_info().config.clone();
    raw.subjects.push("elsewhere".to_owned());
    admin.jetstream.update_stream(raw).await.unwrap();
    let fault = streams::declare(&admin, &larger).await.unwrap_err().to_string();
    assert!(fault.contains("RAW") && fault.contains("subjects"), "{fault}");
    assert_eq!(nats::inspect::stream(&admin, "RAW").await.unwrap().messages, 1);
}

#[tokio::test]
async fn the_server_says_that_it_fsyncs() {
    let (server, admin) = declared().await;
    let doctor = wire(&server, "doctor").await;
    assert!(nats::inspect::syncs_always(&doctor).await.unwrap());
    assert!(nats::inspect::server_time(&admin).await.unwrap().is_some());
}

#[tokio::test]
async fn a_wrong_password_and_nobody_at_all_are_refused() {
    let (server, _admin) = declared().await;
    for (user, password) in [("admin", "wrong"), ("nobody", "x"), ("", "")] {
        let login =
            Login { url: server.url(), user: user.to_owned(), password: password.to_owned() };
        assert!(Wire::connect(&login).await.is_err(), "{user:?}");
    }
}

fn message(number: u64, payload: &str) -> RawMessage<'static> {
    RawMessage {
        name: "d".into(),
        sender: None,
        content_type: "".into(),
        received_at: Timestamp::EPOCH,
        session: 1,
        packet_id: 0,
        number,
        payload: payload.as_bytes().to_vec().into(),
    }
}

/// Numbers of the messages in `RAW`, in the stream's order, once each time they are stored.
async fn stored_numbers(wire: &Wire) -> Vec<u64> {
    let stream = wire.jetstream.get_stream("RAW").await.unwrap();
    let mut numbers = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        let pack: domain::raw::Pack<'_> = envelope::decode_borrowed(&message.payload).unwrap();
        numbers.extend(pack.entries.iter().map(|entry| entry.number));
    }
    numbers
}

#[tokio::test]
async fn group_commit_keeps_the_order_and_never_says_yes_early() {
    const MESSAGES: u64 = 20_000;
    let (server, admin) = declared().await;
    let (door, packer) = pack::door(admin.clone(), "mqtt", "p", patience("raw"));
    let producer = tokio::spawn(async move {
        for number in 0..MESSAGES {
            assert!(door.accept(message(number, "x"), number).await);
        }
    });
    let looker = admin.clone();
    let packs = std::sync::Mutex::new((0_u64, 0_u64));
    let packing = packer.run(|tickets, stored| {
        let (looker, packs) = (looker.clone(), &packs);
        async move {
            // At the moment of the yes, the pack is in the stream, with just these messages.
            let stream = looker.jetstream.get_stream_no_info("RAW").await.unwrap();
            // The kill can swallow the question or its answer: it is asked until it is answered.
            let found = eventually("the pack to be read", || async {
                let found = stream.get_raw_message(stored.sequence()).await;
                found.map_err(|error| error.to_string())
            })
            .await;
            let pack: domain::raw::Pack<'_> = envelope::decode_borrowed(&found.payload).unwrap();
            let numbers: Vec<u64> = pack.entries.iter().map(|entry| entry.number).collect();
            assert_eq!(numbers, tickets);
            let mut packs = packs.lock().unwrap();
            assert_eq!(packs.1, numbers[0], "yes is said in the order of arrival");
            *packs = (packs.0 + 1, packs.1 + numbers.len() as u64);
        }
    });
    let restart = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.restart9().await;
    };
    tokio::join!(packing, restart);
    producer.await.unwrap();
    let (packs, confirmed) = *packs.lock().unwrap();
    assert_eq!(confirmed, MESSAGES);
    assert!(packs < MESSAGES / 10, "{packs} packs: many messages share an fsync");
    let numbers = stored_numbers(&admin).await;
    let mut in_order = numbers.clone();
    in_order.dedup();
    assert_eq!(in_order, (0..MESSAGES).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_idle_door_does_not_wait_and_a_large_message_travels_alone() {
    let (_server, admin) = declared().await;
    let (door, packer) = pack::door(admin.clone(), "mqtt", "p", patience("raw"));
    let (confirmed, mut confirmations) = tokio::sync::mpsc::channel(8);
    let packing = tokio::spawn(packer.run(move |tickets, stored| {
        let confirmed = confirmed.clone();
        async move { confirmed.send((tickets, stored.sequence())).await.unwrap() }
    }));
    door.accept(message(0, "x"), 0).await;
    assert_eq!(confirmations.recv().await, Some((vec![0], 1)));
    let large = "x".repeat(domain::raw::MAX_PAYLOAD);
    for (number, payload) in [(1, "a"), (2, &large[..]), (3, "b")] {
        door.accept(message(number, payload), number).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let (tickets, _) = confirmations.recv().await.unwrap();
        assert!(!tickets.contains(&2) || tickets.len() == 1, "{tickets:?}");
        seen.extend(tickets);
    }
    assert_eq!(seen, [1, 2, 3]);
    drop(door);
    packing.await.unwrap();
}

#[tokio::test]
async fn a_reader_survives_restarts_and_deletion_of_its_consumer() {
    let (server, admin) = declared().await;
    let durable = Durable::new("TELEMETRY", "reader".to_owned(), "telemetry.>".to_owned());
    let mut reader = Reader::new(admin.clone(), durable, patience("reader"));
    let send = async |n: u64| {
        let id = n.to_string();
        let message = Outgoing::new("telemetry.demo.x", &id, id.clone().into());
        until_stored(&admin, message, &patience("send")).await.unwrap()
    };
    let mut seen = BTreeSet::new();
    let mut read = async |reader: &mut Reader, until: u64| {
        while !seen.contains(&until) {
            let delivery = reader.next().await.expect("not stopped");
            seen.insert(delivery.position().sequence);
            // Its text is its number: the proof is the message's own storage.
            let stored = publish(&admin, Outgoing::new("event.x", "e", "".into())).await.unwrap();
            delivery.ack(&stored).await;
        }
    };
    send(1).await;
    read(&mut reader, 1).await;
    server.restart9().await;
    send(2).await;
    read(&mut reader, 2).await;
    let stream = admin.jetstream.get_stream("TELEMETRY").await.unwrap();
    stream.delete_consumer("reader").await.unwrap();
    send(3).await;
    read(&mut reader, 3).await;
}

#[tokio::test]
async fn a_consumer_that_is_just_being_made_is_not_shown_as_done() {
    let (server, admin) = declared().await;
    publish(&admin, Outgoing::new("telemetry.demo.x", "1", "a".into())).await.unwrap();
    let stream = admin.jetstream.get_stream("TELEMETRY").await.unwrap();
    let making = async {
        for number in 0..200 {
            let durable = Durable::new("TELEMETRY", format!("c{number}"), "telemetry.>".to_owned());
            let mut reader = Reader::new(admin.clone(), durable, patience("reader"));
            reader.next().await.expect("not stopped");
            stream.delete_consumer(&format!("c{number}")).await.unwrap();
        }
    };
    let looker = wire(&server, "operator").await;
    let looking = async {
        loop {
            for consumer in nats::inspect::consumers(&looker, "TELEMETRY").await.unwrap().values() {
                assert_eq!(consumer.lag(), 1, "{consumer:?}");
            }
        }
    };
    tokio::select! {
        () = making => {}
        () = looking => {}
    }
}

#[tokio::test]
async fn of_two_writers_of_one_record_one_wins() {
    let (_server, admin) = declared().await;
    let first = put(&admin, &org(1, "a"), 0).await.unwrap();
    // The same again (its answer may have been lost) is a success; another is a conflict.
    assert_eq!(put(&admin, &org(1, "a"), 0).await.unwrap(), first);
    let lost = put(&admin, &org(2, "a"), 0).await.unwrap_err();
    assert!(matches!(lost, ModelFault::Conflict(_)), "{lost}");
    put(&admin, &org(3, "a"), first).await.unwrap();
    let directory = model::load(&admin).await.unwrap();
    assert_eq!(directory.orgs()[0].id, domain::OrgId(3));
}

#[tokio::test]
async fn a_model_whose_last_record_was_deleted_is_read_to_its_end() {
    let (_server, admin) = declared().await;
    put(&admin, &org(1, "a"), 0).await.unwrap();
    let last = put(&admin, &org(2, "b"), 0).await.unwrap();
    let stream = admin.jetstream.get_stream("MODEL").await.unwrap();
    stream.delete_message(last).await.unwrap();
    let directory = model::load(&admin).await.unwrap();
    assert_eq!(directory.orgs().len(), 1);
    let mut followed = model::follow(admin.clone(), patience("model")).await.unwrap();
    assert!(followed.caught_up(&admin, &patience("model")).await);
    assert_eq!(followed.read().orgs().len(), 1);
}

#[tokio::test]
async fn a_record_that_no_database_can_hold_is_not_written() {
    let (_server, admin) = declared().await;
    let key = OrgKey::parse("a").unwrap();
    let bad = Record::Org(Org { id: domain::OrgId(1), key, name: "a\0b".to_owned() });
    let fault = put(&admin, &bad, 0).await.unwrap_err();
    assert!(matches!(fault, ModelFault::Unkeepable(..)), "{fault}");
    assert_eq!(model::load(&admin).await.unwrap().orgs().len(), 0);
}

#[tokio::test]
async fn ids_are_given_once_whoever_asks() {
    let (_server, admin) = declared().await;
    let ranges = join_all((0..20).map(|n| allocate(&admin, Counter::Entity, n % 3 + 1))).await;
    let ids: Vec<i32> = ranges.into_iter().flat_map(Result::unwrap).collect();
    let unique: BTreeSet<i32> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    assert_eq!(unique, (1..=ids.len() as i32).collect());
    assert_eq!(allocate(&admin, Counter::Org, 1).await.unwrap(), 1..2);
}

#[tokio::test]
async fn a_message_larger_than_the_server_takes_is_named() {
    let (_server, admin) = declared().await;
    let huge = vec![0_u8; 13 << 20];
    let fault = publish(&admin, Outgoing::new("raw.mqtt.x", "1", huge.into())).await.unwrap_err();
    assert!(matches!(fault, PublishFault::TooLarge), "{fault}");
}
