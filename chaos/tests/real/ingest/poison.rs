//! What can never be stored is set aside, row by row, and nothing else with it.

use super::house::{House, at, batch, group, held, origin, reading, until};
use domain::{EntityId, Reason, Revision, RowVersion, Values, letter::Source};
use std::collections::BTreeSet;

/// A text that no PostgreSQL takes.
fn nul() -> Values {
    Values::text("a\0b")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poison_row_and_an_unreadable_message_are_dead_and_their_neighbours_live() {
    let house = House::new().await;
    let good = |n: i64| (n as i32 % 10, n, Values::number(n as f64));
    let before = batch(vec![group(Some(origin(7)), vec![(3, 555, Values::number(1.0))])]);
    house.publish("demo", &before).await;
    let mut samples: Vec<_> = (0..500).map(good).collect();
    samples.insert(123, (3, 555, nul()));
    let first = group(Some(origin(8)), vec![good(900), good(901)]);
    let poisoned = batch(vec![first, group(Some(origin(9)), samples)]);
    let sequence = house.publish("demo", &poisoned).await;
    let garbage = house.publish_bytes("demo", "not an envelope".into()).await;
    let newer = house.publish_bytes("demo", vec![0x92, 0x63, 0x90].into()).await;
    house.publish("demo", &reading(1, 5_000, 1.0)).await;

    let instance = house.start().await;
    let mut expected = house.expected("demo").await;
    // Behind the poison its key has what an older version gave.
    let version = RowVersion::new(&origin(7), Revision(0)).unwrap();
    expected.values.insert((EntityId(3), at(555)), (version, Values::number(1.0)));
    for name in ["primary", "secondary"] {
        house.drained(name, "demo").await;
        assert_eq!(house.tables(name, "demo").await, expected, "{name}");
    }
    let letters = house.letters().await;
    assert_eq!(letters.len(), 6, "{letters:#?}");
    let about = |letter: &domain::Letter| {
        (letter.target.clone().unwrap().to_string(), letter.source.clone(), letter.reason)
    };
    let found: BTreeSet<_> = letters.iter().map(|letter| format!("{:?}", about(letter))).collect();
    let mut wanted = BTreeSet::new();
    for name in ["primary", "secondary"] {
        for (sequence, row, reason) in [
            (sequence, 2 + 123, Reason::RefusedByDatabase),
            (garbage, 0, Reason::Undecodable),
            (newer, 0, Reason::Undecodable),
        ] {
            let source = Source { stream: "TELEMETRY".to_owned(), sequence, row };
            wanted.insert(format!("{:?}", (name.to_owned(), source, reason)));
        }
    }
    assert_eq!(found, wanted);
    let refused = letters.iter().find(|l| l.reason == Reason::RefusedByDatabase).unwrap();
    assert_eq!(refused.sender, "TS-1");
    assert_eq!(refused.origin, Some(origin(9)));
    assert!(refused.detail.contains("22021"), "{}", refused.detail);
    let row: serde_json::Value = serde_json::from_str(refused.row.as_ref().unwrap()).unwrap();
    assert_eq!((&row["entity_id"], &row["value_s"]), (&3.into(), &"a\0b".into()));
    assert!(letters.iter().any(|l| l.detail.contains("schema version 99")), "{letters:#?}");
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_again_a_poison_row_gives_the_same_letter() {
    let house = House::new().await;
    let instance = house.start().await;
    for n in 0..20 {
        let poison = batch(vec![group(None, vec![(1, n, nul()), (2, n, Values::number(0.5))])]);
        house.publish("demo", &poison).await;
    }
    house.drained("primary", "demo").await;
    house.drained("secondary", "demo").await;
    assert_eq!(house.letters().await.len(), 40);
    assert!(instance.stop().await, "it drains");
    house.forget("primary", "demo").await;
    let instance = house.start().await;
    house.publish("demo", &reading(3, 1, 1.0)).await;
    house.drained("primary", "demo").await;
    house.drained("secondary", "demo").await;
    assert_eq!(house.letters().await.len(), 40);
    assert_eq!(house.tables("primary", "demo").await.values.len(), 21);
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_refuses_everything_holds_until_a_neighbour_shows_who_is_to_blame() {
    let house = House::new().await;
    let instance = house.start().await;
    house.publish("demo", &reading(1, 1, 1.0)).await;
    house.drained("primary", "demo").await;
    let constraint =
        "alter table core.values_demo add constraint small check (value_n < 100) not valid";
    house.base("primary").owner.run(constraint).await.unwrap();

    house.publish("demo", &reading(1, 2, 1_000.0)).await;
    let why = held(&instance, "primary/demo").await;
    assert!(why.contains("small") && why.contains("23514"), "{why}");
    house.drained("secondary", "demo").await;
    assert!(house.letters().await.is_empty(), "no witness, no letter");

    house.publish("demo", &reading(1, 3, 3.0)).await;
    house.drained("primary", "demo").await;
    let letters = house.letters().await;
    assert_eq!(letters.len(), 1, "{letters:#?}");
    assert_eq!(letters[0].source.sequence, 2);
    assert_eq!(house.tables("primary", "demo").await.values.len(), 2);

    // The same, but this time the constraint goes away: nothing is dead.
    house.publish("demo", &reading(1, 4, 1_000.0)).await;
    held(&instance, "primary/demo").await;
    let gone = "alter table core.values_demo drop constraint small";
    house.base("primary").owner.run(gone).await.unwrap();
    house.drained("primary", "demo").await;
    assert_eq!(house.letters().await.len(), 1);
    assert!(instance.stop().await, "it drains");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_dead_holds_the_poison_and_not_its_neighbours() {
    let house = House::new().await;
    let set = async |bytes: i64| {
        let found = house.admin.jetstream.get_stream("DEAD").await.unwrap();
        let mut config = found.cached_info().config.clone();
        config.max_bytes = bytes;
        house.admin.jetstream.update_stream(config).await.unwrap();
    };
    set(10).await;
    house.publish("demo", &batch(vec![group(None, vec![(1, 1, nul())])])).await;
    house.publish("demo", &reading(1, 2, 2.0)).await;
    let instance = house.start().await;
    let why = held(&instance, "primary/demo").await;
    assert!(why.contains("DEAD"), "{why}");
    until("the neighbour", async || {
        house.lag("primary", "demo").await == Some(1)
            && house.tables("primary", "demo").await.values.len() == 1
    })
    .await;
    set(1 << 20).await;
    house.drained("primary", "demo").await;
    house.drained("secondary", "demo").await;
    assert_eq!(house.letters().await.len(), 2);
    assert!(instance.stop().await, "it drains");
}
