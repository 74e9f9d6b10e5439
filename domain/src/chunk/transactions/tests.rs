//! Bridges that follow one stream, write ends by compare-and-set, crash anywhere and begin again:
//! each part is accounted for exactly once.

use super::{generation::MAX_COPIES, *};
use crate::chunk::part::Digest;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Message {
    Part(Name, u32, Facts),
    End(Name, End),
    Done(Name),
}

/// `CHUNKS`, and what was done about its ends.
#[derive(Debug, Default)]
struct Stream {
    messages: BTreeMap<u64, Message>,
    last: u64,
    parts: BTreeMap<u64, (Name, u32, Facts)>,
    /// Ends that were done, by sequence; done twice is the same.
    outcomes: BTreeMap<u64, (Name, End)>,
    strays: Vec<u64>,
}

impl Stream {
    fn put(&mut self, message: Message) -> u64 {
        self.last += 1;
        if let Message::Part(name, index, facts) = &message {
            self.parts.insert(self.last, (name.clone(), *index, *facts));
        }
        self.messages.insert(self.last, message);
        self.last
    }

    /// The last message of a name's end; 0: none.
    fn last_end(&self, of: &Name) -> u64 {
        let ends = self.messages.iter().rev().find(|(_, message)| match message {
            Message::End(name, _) | Message::Done(name) => name == of,
            Message::Part(..) => false,
        });
        ends.map_or(0, |(sequence, _)| *sequence)
    }

    fn remove_parts(&mut self, of: &Name, end: &End) {
        let named: BTreeSet<u64> = end.sequences().collect();
        let newest = *named.iter().max().unwrap();
        self.messages.retain(|sequence, message| match message {
            Message::Part(name, ..) if name == of && *sequence <= newest => {
                assert!(named.contains(sequence), "{sequence} is removed and not named: {end:?}");
                false
            }
            _ => true,
        });
    }
}

struct Bridge {
    transactions: Transactions,
    cursor: u64,
}

impl Bridge {
    fn new() -> Self {
        Self { transactions: Transactions::new(Limits::default()), cursor: 0 }
    }

    fn follow(&mut self, stream: &Stream, most: usize, clock: Duration) {
        let news: Vec<_> = stream.messages.range(self.cursor + 1..).take(most).collect();
        for (sequence, message) in news {
            self.cursor = *sequence;
            match message {
                Message::Part(name, index, facts) => {
                    let at = PartAt::new(*index, *sequence);
                    self.transactions.part(name, at, *facts, (10, Timestamp::EPOCH), clock);
                }
                Message::End(name, end) => {
                    self.transactions.end(name, *sequence, end.clone(), false, clock);
                }
                Message::Done(name) => self.transactions.done(name, *sequence, clock),
            }
        }
    }

    fn knows_all(&self, stream: &Stream) -> bool {
        stream.messages.range(self.cursor + 1..).next().is_none()
    }

    /// Does what is to be done, at most so many steps; `false`: it crashed there.
    fn work(&mut self, stream: &mut Stream, steps: &mut usize, clock: Duration) -> bool {
        let mut step = || {
            let left = *steps > 0;
            *steps = steps.saturating_sub(1);
            left
        };
        for wish in self.transactions.wishes(Timestamp::EPOCH, clock) {
            match wish {
                Wish::Remove(sequences) => {
                    for sequence in sequences {
                        if !step() {
                            return false;
                        }
                        if let Some(Message::Part(..)) = stream.messages.remove(&sequence) {
                            stream.strays.push(sequence);
                        }
                    }
                }
                Wish::End { name, end, before } => {
                    for sequence in &before {
                        if !step() {
                            return false;
                        }
                        stream.messages.remove(sequence);
                    }
                    if !before.is_empty() {
                        self.transactions.forgotten(&name);
                    }
                    if !step() {
                        return false;
                    }
                    if stream.last_end(&name) == 0 {
                        let sequence = stream.put(Message::End(name.clone(), end.clone()));
                        if !step() {
                            return false;
                        }
                        self.transactions.end(&name, sequence, end, true, clock);
                    }
                }
                Wish::Finish { name, sequence, end } => {
                    if !step() {
                        return false;
                    }
                    let whole =
                        end.sequences().all(|sequence| stream.messages.contains_key(&sequence));
                    if whole {
                        stream.outcomes.insert(sequence, (name.clone(), end.clone()));
                    }
                    if !step() {
                        return false;
                    }
                    stream.remove_parts(&name, &end);
                    if !step() {
                        return false;
                    }
                    if stream.last_end(&name) == sequence {
                        let mark = stream.put(Message::Done(name.clone()));
                        self.transactions.done(&name, mark, clock);
                    }
                }
            }
        }
        true
    }
}

fn name(number: u8) -> Name {
    Name {
        org: OrgKey::parse("demo").unwrap(),
        gateway: DeviceId::parse("G").unwrap(),
        transaction: number.to_string(),
    }
}

fn digest(number: u64) -> Digest {
    Digest::of(&number.to_be_bytes())
}

fn facts(total: u32, whole: Option<u64>, content: u64) -> Facts {
    Facts { total, digest: whole.map(digest), content: digest(content) }
}

#[derive(Debug, Clone)]
enum Op {
    /// A part: name, index, total, version of the whole, version of the content.
    Part(u8, u32, u32, u8, u8),
    Follow(usize, usize),
    /// Works, and crashes after so many steps where there are more.
    Work(usize, usize),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3_u8, 0..4_u32, prop_oneof![9 => Just(4_u32), 1 => Just(5)], 0..3_u8, 0..8_u8)
            .prop_map(|(name, index, total, whole, content)| {
                // Contradicting contents are rare.
                Op::Part(name, index, total, whole, u8::from(content == 0))
            }),
        4 => (0..2_usize, 1..5_usize).prop_map(|(bridge, most)| Op::Follow(bridge, most)),
        3 => (0..2_usize, 0..12_usize).prop_map(|(bridge, steps)| Op::Work(bridge, steps)),
        1 => (1..40_u64).prop_map(Op::Wait),
    ]
}

fn settle(stream: &mut Stream, bridges: &mut [Bridge], clock: &mut Duration) {
    for _ in 0..400 {
        *clock += Duration::from_secs(10);
        for bridge in bridges.iter_mut() {
            bridge.follow(stream, usize::MAX, *clock);
            assert!(bridge.work(stream, &mut usize::MAX.clone(), *clock));
        }
        if stream.messages.is_empty() {
            return;
        }
    }
    panic!("it never ends: {:?}", stream.messages);
}

/// Every part is in exactly one end, or was a late copy of a complete transaction.
fn accounted(stream: &Stream) {
    let mut named: BTreeMap<u64, usize> = BTreeMap::new();
    for (name, end) in stream.outcomes.values() {
        let mut contents = BTreeMap::new();
        for part in &end.parts {
            let (of, index, facts) = &stream.parts[&part.sequence];
            assert_eq!((of, *index, facts.total), (name, part.index, end.total));
            assert_eq!(facts.digest.map(|digest| digest.to_string()), end.digest);
            contents.insert(*index, facts.content);
        }
        if end.outcome == Outcome::Complete {
            assert!(contents.keys().copied().eq(0..end.total), "{end:?}");
        }
        for sequence in end.sequences() {
            *named.entry(sequence).or_default() += 1;
        }
    }
    for sequence in stream.parts.keys() {
        let times = named.get(sequence).copied().unwrap_or_default();
        let stray = usize::from(stream.strays.contains(sequence));
        assert_eq!(times + stray, 1, "part {sequence} of {:?}", stream.parts[sequence]);
    }
}

proptest! {
    #[test]
    fn each_part_is_accounted_for_once(ops in proptest::collection::vec(op(), 1..80)) {
        let mut stream = Stream::default();
        let mut bridges = [Bridge::new(), Bridge::new()];
        let mut clock = Duration::ZERO;
        for op in ops {
            match op {
                Op::Part(number, index, total, whole, content) => {
                    let whole = (whole > 0).then(|| u64::from(whole));
                    let facts = facts(total, whole, u64::from(content) * 100 + u64::from(index));
                    stream.put(Message::Part(name(number), index, facts));
                }
                Op::Follow(bridge, most) => bridges[bridge].follow(&stream, most, clock),
                Op::Work(bridge, mut steps) => {
                    let bridge = &mut bridges[bridge];
                    if bridge.knows_all(&stream) && !bridge.work(&mut stream, &mut steps, clock) {
                        *bridge = Bridge::new();
                    }
                }
                Op::Wait(seconds) => clock += Duration::from_secs(seconds),
            }
        }
        settle(&mut stream, &mut bridges, &mut clock);
        accounted(&stream);
    }

    #[test]
    fn what_does_not_contradict_is_complete_once_in_any_order(
        order in Just((0..12_usize).chain(0..12).collect::<Vec<_>>()).prop_shuffle(),
        crashes in proptest::collection::vec((0..2_usize, 0..10_usize), 0..12),
    ) {
        let mut stream = Stream::default();
        let mut bridges = [Bridge::new(), Bridge::new()];
        let mut clock = Duration::ZERO;
        let mut crashes = crashes.into_iter();
        // Three transactions of four parts, interleaved; some parts come twice.
        for part in order {
            let (number, index) = ((part % 3) as u8, (part / 3) as u32);
            let facts = facts(4, Some(u64::from(number)), part as u64);
            stream.put(Message::Part(name(number), index, facts));
            if let Some((bridge, mut steps)) = crashes.next() {
                let bridge = &mut bridges[bridge];
                bridge.follow(&stream, usize::MAX, clock);
                if !bridge.work(&mut stream, &mut steps, clock) {
                    *bridge = Bridge::new();
                }
            }
        }
        settle(&mut stream, &mut bridges, &mut clock);
        accounted(&stream);
        let complete: Vec<_> = stream
            .outcomes
            .values()
            .map(|(name, end)| (name.transaction.as_str(), end.outcome))
            .collect();
        for number in ["0", "1", "2"] {
            let of = complete.iter().filter(|(name, _)| *name == number);
            // A copy that comes late is known as one: nothing expires.
            prop_assert_eq!(of.collect::<Vec<_>>(), [&(number, Outcome::Complete)]);
        }
    }
}

/// The wishes of one who knows these parts of a name with four, at that time of its clock.
fn wishes_at(transactions: &mut Transactions, seconds: u64) -> Vec<Wish> {
    transactions.wishes(Timestamp::EPOCH, Duration::from_secs(seconds))
}

#[test]
fn only_time_in_which_parts_could_come_ends_a_transaction() {
    let mut transactions = Transactions::new(Limits::default());
    let at = PartAt { index: 2, sequence: 7 };
    let told = (10, Timestamp::EPOCH);
    transactions.part(&name(0), at, facts(4, None, 2), told, Duration::from_secs(100));
    assert_eq!(wishes_at(&mut transactions, 159), []);
    let [Wish::End { end, .. }] = &wishes_at(&mut transactions, 160)[..] else { panic!() };
    assert_eq!((end.outcome, end.missing()), (Outcome::Expired, "0-1, 3".to_owned()));
    assert_eq!(wishes_at(&mut transactions, 999), [], "it is asked for once");
}

#[test]
fn past_its_limits_the_oldest_gives_way() {
    let limits = Limits { gateway_open: 3, ..Limits::default() };
    let mut transactions = Transactions::new(limits);
    for number in 0..5 {
        let at = PartAt { index: 0, sequence: 10 - u64::from(number) };
        let told = (10, Timestamp::EPOCH);
        transactions.part(&name(number), at, facts(4, None, 0), told, Duration::ZERO);
    }
    let wishes = wishes_at(&mut transactions, 1);
    let names: Vec<_> = wishes
        .iter()
        .map(|wish| match wish {
            Wish::End { name, end, .. } if end.outcome == Outcome::Expired => &*name.transaction,
            other => panic!("{other:?}"),
        })
        .collect();
    // The oldest in the stream.
    assert_eq!(names, ["3", "4"]);
    assert_eq!(wishes_at(&mut transactions, 1), [], "they are asked for once");
}

#[test]
fn copies_are_no_part_of_the_report_and_past_a_number_they_go_at_once() {
    let mut transactions = Transactions::new(Limits::default());
    let part = |transactions: &mut Transactions, index, sequence| {
        let at = PartAt::new(index, sequence);
        let told = (10, Timestamp::EPOCH);
        transactions.part(&name(0), at, facts(2, None, u64::from(index)), told, Duration::ZERO);
    };
    let copies = MAX_COPIES as u64 + 3;
    for sequence in 1..=copies + 1 {
        part(&mut transactions, 0, sequence);
    }
    let [Wish::Remove(gone)] = &wishes_at(&mut transactions, 0)[..] else { panic!() };
    assert_eq!(gone.len(), 3);
    assert_eq!(transactions.size(), (1, (MAX_COPIES + 1) * 10));
    part(&mut transactions, 1, copies + 2);
    let [Wish::End { name, end, .. }] = &wishes_at(&mut transactions, 0)[..] else { panic!() };
    assert_eq!((end.outcome, end.bytes, end.copies.len()), (Outcome::Complete, 20, MAX_COPIES));
    transactions.end(name, copies + 3, end.clone(), true, Duration::ZERO);
    assert_eq!(transactions.size(), (0, 0));
}

#[test]
fn a_flood_gives_way_in_passes_and_is_not_remembered() {
    let mut transactions = Transactions::new(Limits { gateway_open: 3, ..Limits::default() });
    let flood = |number: u64| Name { transaction: number.to_string(), ..name(0) };
    for number in 0..1_000 {
        let (at, told) = (PartAt::new(0, number + 1), (10, Timestamp::EPOCH));
        transactions.part(&flood(number), at, facts(4, None, 0), told, Duration::ZERO);
    }
    assert_eq!(transactions.overrun().len(), 1);
    let mut passes = 0;
    let mut sequence = 1_000;
    loop {
        let wishes = wishes_at(&mut transactions, 1);
        if wishes.is_empty() {
            break;
        }
        passes += 1;
        assert!(wishes.len() <= MAX_GIVE_WAY);
        for wish in wishes {
            let Wish::End { name, end, .. } = wish else { panic!("{wish:?}") };
            sequence += 2;
            transactions.end(&name, sequence, end, true, Duration::from_secs(1));
            transactions.done(&name, sequence + 1, Duration::from_secs(1));
        }
    }
    assert_eq!((passes, transactions.size().0), (4, 3));
    assert!(transactions.overrun().is_empty());
    // Nothing of them can be known again: what is left of them goes after a short while.
    let removed: Vec<_> = wishes_at(&mut transactions, 6);
    assert_eq!(removed.len(), 997);
}
