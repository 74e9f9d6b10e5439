//! The merge rule as SQL: whatever order, repetition, cut and interleaving, the tables are those of
//! [`domain::merge::Tables`].

use super::{Target, at};
use domain::{
    Batch, Deletion, EntityId, Group, Origin, Position, Revision, Sample, Timestamp, Values, Work,
    merge::{Tables, tidy},
};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestCaseResult, TestRunner},
};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};
use store::{
    WritePath, Writer,
    ledger::{self, Hour, Noted, Span},
    read,
};

/// Histories that each way of writing is put through; `PROPTEST_CASES` sets another number.
const CASES: u32 = 16;
/// Connections that write at once.
const WORKERS: usize = 3;

/// A message of `TELEMETRY`.
#[derive(Debug, Clone)]
struct Message {
    batch: Batch,
    position: Position,
}

/// A message delivered to a worker; it commits what it has after a cut.
#[derive(Debug, Clone)]
struct Delivery {
    message: usize,
    worker: usize,
    cut: bool,
}

#[derive(Debug, Clone)]
struct Draft {
    accepted: i64,
    replay_of: Option<Index>,
    samples: Vec<(i32, i64, Values)>,
    deletion: Option<(Vec<i32>, i64, i64)>,
}

fn values() -> impl Strategy<Value = Values> {
    prop_oneof![
        4 => any::<i32>().prop_map(|n| Values::number(f64::from(n) / 8.0)),
        1 => any::<bool>().prop_map(Values::boolean),
        1 => "[a-zäß☃ \\\\\n\t'\"]{0,6}".prop_map(Values::text),
        1 => (0..9i64).prop_map(|micros| Values::time(at(micros))),
        1 => Just(Values::default()),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let entity = 1..4i32;
    let samples = prop::collection::vec((entity.clone(), 0..8i64, values()), 0..7);
    let range = (prop::collection::vec(entity, 1..3), 0..8i64, 1..5i64);
    let deletion = prop::option::weighted(0.3, range);
    let replay_of = prop::option::weighted(0.3, any::<Index>());
    (0..4i64, replay_of, samples, deletion).prop_map(|(accepted, replay_of, samples, deletion)| {
        Draft { accepted, replay_of, samples, deletion }
    })
}

/// The stream that drafts become: a replay carries an earlier message's origin and a revision of
/// its own; removals and tombstones differ in their range only.
fn stream(drafts: &[Draft]) -> Vec<Message> {
    let mut stream: Vec<Message> = Vec::new();
    let mut origins: Vec<Origin> = Vec::new();
    for (i, draft) in drafts.iter().enumerate() {
        let position = Position { sequence: i as u64 + 1, stored_at: at(draft.accepted) };
        let replayed = draft.replay_of.filter(|_| i > 0).map(|index| *index.get(&origins));
        let revision = Revision(if replayed.is_some() { i as u16 } else { 0 });
        origins.push(replayed.unwrap_or_else(|| position.as_origin()));
        let samples = draft.samples.iter().map(|(entity, ts, values)| Sample {
            entity: EntityId(*entity),
            ts: at(*ts),
            values: values.clone(),
        });
        let group = Group {
            origin: replayed,
            revision,
            device: None,
            profile_version: 0,
            samples: samples.collect(),
        };
        let deletion = draft.deletion.clone().map(|(entities, from, length)| Deletion {
            origin: replayed,
            revision,
            entities: entities.into_iter().map(EntityId).collect(),
            from: at(from),
            to: at(from + length),
        });
        let batch = Batch {
            groups: vec![group],
            deletions: deletion.into_iter().collect(),
            ..Batch::default()
        };
        stream.push(Message { batch, position });
    }
    stream
}

/// Every message at least once, in any order, some again.
fn history() -> impl Strategy<Value = (Vec<Message>, Vec<Delivery>)> {
    let drafts = prop::collection::vec(draft(), 1..16);
    let again = prop::collection::vec(any::<Index>(), 0..10);
    (drafts, again).prop_flat_map(|(drafts, again)| {
        let stream = stream(&drafts);
        let again = again.iter().map(|index| index.index(stream.len()));
        let messages: Vec<usize> = (0..stream.len()).chain(again).collect();
        let ways = prop::collection::vec((0..WORKERS, any::<bool>()), messages.len());
        (Just(stream), Just(messages).prop_shuffle(), ways).prop_map(|(stream, messages, ways)| {
            let delivery = |(message, (worker, cut))| Delivery { message, worker, cut };
            (stream, messages.into_iter().zip(ways).map(delivery).collect())
        })
    })
}

/// What each worker commits, in its order.
fn work(stream: &[Message], deliveries: &[Delivery], worker: usize) -> Vec<Work> {
    let mut all = vec![Work::default()];
    for delivery in deliveries.iter().filter(|delivery| delivery.worker == worker) {
        let Message { batch, position } = stream[delivery.message].clone();
        all.last_mut().unwrap().add(batch, position).unwrap();
        if delivery.cut {
            all.push(Work::default());
        }
    }
    for work in &mut all {
        let offered = work.rows.len();
        tidy(&mut work.rows);
        work.page.before.superseded = (offered - work.rows.len()) as u64;
    }
    all
}

/// The ledger has each message once, a fate for each reading, and as many rows as there are.
async fn balanced(target: &Target, stream: &[Message]) -> TestCaseResult {
    let all = (Timestamp::MIN, Timestamp::MAX);
    let hours = ledger::hours(&target.ingest, all).await.unwrap();
    let sum = |of: fn(&Hour) -> u64| hours.iter().map(of).sum::<u64>();
    let readings: usize = stream.iter().map(|message| message.batch.samples()).sum();
    prop_assert_eq!(sum(|hour| hour.messages), stream.len() as u64);
    prop_assert_eq!(sum(|hour| hour.readings), readings as u64);
    prop_assert_eq!(sum(|hour| hour.fates.sum()), readings as u64);
    prop_assert!(ledger::unbalanced(&target.ingest).await.unwrap().is_empty());
    let last = stream.len() as u64;
    let span = Span { stream: Noted::Telemetry, first: 1, last, made: Timestamp::MIN };
    let holes = span.holes(&target.ingest).await.unwrap();
    prop_assert!(holes.sequences.is_empty(), "{:?}", holes);
    prop_assert_eq!(span.sums(&target.ingest).await.unwrap().applied, last);
    let rows = ledger::rows(&target.ingest, &target.org).await.unwrap();
    prop_assert_eq!(Some(rows.counted), rows.found);
    Ok(())
}

/// The tables that the rule gives, from the messages once and in their order.
fn expected(stream: &[Message]) -> Tables {
    let mut tables = Tables::default();
    for Message { batch, position } in stream.iter().cloned() {
        let mut work = Work::default();
        work.add(batch, position).unwrap();
        tidy(&mut work.rows);
        tables.apply(&work);
    }
    tables
}

async fn write_all(target: &Target, writer: &Arc<Writer>, parts: Vec<Vec<Work>>) {
    let workers = parts.into_iter().map(|part| {
        let (writer, org) = (writer.clone(), target.org.clone());
        tokio::spawn(async move {
            for work in part {
                let _committed = writer.write(&org, &work).await.unwrap();
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

async fn check(
    target: &Target,
    writer: &Arc<Writer>,
    (stream, deliveries): (Vec<Message>, Vec<Delivery>),
) -> TestCaseResult {
    target.clear().await;
    let parts = (0..WORKERS).map(|worker| work(&stream, &deliveries, worker)).collect();
    write_all(target, writer, parts).await;
    let expected = expected(&stream);
    prop_assert_eq!(&read::tables(&target.ingest, &target.org).await.unwrap(), &expected);
    let current = read::current(&target.ingest, &target.org).await.unwrap();
    let current = current.into_iter().map(|row| (row.entity, (row.ts, row.version, row.values)));
    prop_assert_eq!(current.collect::<std::collections::BTreeMap<_, _>>(), expected.current());
    balanced(target, &stream).await?;
    // Folded it says the same.
    while ledger::fold(&target.ingest, (1 << 20, 1 << 20), Timestamp::MAX).await.unwrap() {}
    balanced(target, &stream).await
}

/// `HAYSTACK_TEST_SEED` repeats a run.
fn seed() -> u64 {
    let given = std::env::var("HAYSTACK_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

fn run(writer: impl FnOnce(&Target) -> Writer) {
    let seed = seed();
    println!("HAYSTACK_TEST_SEED={seed}");
    let defaults = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { defaults.cases } else { CASES };
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..defaults
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let target = runtime.block_on(Target::fresh());
    let writer = Arc::new(writer(&target));
    TestRunner::new(config)
        .run(&history(), |case| runtime.block_on(check(&target, &writer, case)))
        .unwrap_or_else(|failure| panic!("HAYSTACK_TEST_SEED={seed}: {failure}"));
}

#[test]
fn any_history_gives_the_same_tables_straight_into_the_table() {
    run(|target| Writer::always(target.ingest.clone(), WritePath::Optimistic));
}

#[test]
fn any_history_gives_the_same_tables_through_staging() {
    run(|target| Writer::always(target.ingest.clone(), WritePath::Staging));
}

#[test]
fn any_history_gives_the_same_tables_when_the_writer_chooses() {
    run(|target| Writer::new(target.ingest.clone()));
}
