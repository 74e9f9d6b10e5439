//! What a target notes of the messages it applies, in the COMMIT that applies them: which they were, how many
//! readings they held, and what became of those.

use crate::{Batch, Position, Timestamp};
use std::{collections::BTreeMap, ops::AddAssign};

/// Sequences of a block: their bits stand in one row.
pub const BLOCK: u64 = 1_024;
/// Microseconds of an hour.
pub const HOUR: i64 = 3_600_000_000;

/// The hour (UTC) of a moment: its first moment.
pub fn hour_of(at: Timestamp) -> Timestamp {
    at.plus_micros(-at.micros().rem_euclid(HOUR))
}

/// What became of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fates {
    /// Written, where nothing or something older was.
    pub stored: u64,
    /// Something newer was there, or came with them.
    pub superseded: u64,
    /// The same was there already.
    pub duplicate: u64,
    /// A deletion that is newer covers them.
    pub deleted: u64,
    /// Refused: a letter says why. A message that can't be read counts as one reading.
    pub dead: u64,
}

impl Fates {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.stored + self.superseded + self.duplicate + self.deleted + self.dead
    }

    /// Takes readings out of a message that was there twice.
    fn met_themselves(&mut self, mut readings: u64) {
        for fate in [&mut self.superseded, &mut self.dead, &mut self.duplicate] {
            let taken = readings.min(*fate);
            *fate -= taken;
            readings -= taken;
        }
    }

    /// Takes at most `most` readings out, those stored first.
    fn take(&mut self, mut most: u64) -> Self {
        let mut of = |left: &mut u64| {
            let taken = most.min(*left);
            most -= taken;
            *left -= taken;
            taken
        };
        Self {
            stored: of(&mut self.stored),
            dead: of(&mut self.dead),
            superseded: of(&mut self.superseded),
            deleted: of(&mut self.deleted),
            duplicate: of(&mut self.duplicate),
        }
    }
}

impl AddAssign for Fates {
    fn add_assign(&mut self, more: Self) {
        self.stored += more.stored;
        self.superseded += more.superseded;
        self.duplicate += more.duplicate;
        self.deleted += more.deleted;
        self.dead += more.dead;
    }
}

/// A message of `TELEMETRY` that is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    position: Position,
    readings: u32,
}

/// What is to be noted with a piece of work. Empty: nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    messages: Vec<Message>,
    /// Messages of `RAW` from which something came, with the hour of each.
    origins: BTreeMap<(Timestamp, u64), [u64; WORDS]>,
    /// What became of readings that the work does not hold any more.
    pub before: Fates,
    /// So many of the rows that are inserted were counted when they were written first.
    pub recovered: u64,
}

const WORDS: usize = (BLOCK / 64) as usize;

/// Messages of one hour and block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The hour in which the stream stored them.
    pub hour: Timestamp,
    /// Their sequences divided by [`BLOCK`].
    pub block: u64,
    /// A bit for each sequence of the block.
    pub bits: Bits,
    /// What they held: the place in the block, and readings.
    pub messages: Vec<(u32, u32)>,
    /// What became of the readings.
    pub fates: Fates,
}

/// A block's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits([u64; WORDS]);

impl Bits {
    /// None of them.
    pub fn none() -> Self {
        Self([0; WORDS])
    }

    /// Sets one, by its place in the block.
    pub fn set(&mut self, at: u64) {
        set(&mut self.0, at);
    }

    /// Whether one is set.
    pub fn has(&self, at: u64) -> bool {
        let at = (at % BLOCK) as usize;
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    /// As PostgreSQL reads them: the bit of the lowest sequence first.
    pub fn text(&self) -> String {
        (0..BLOCK).map(|at| if self.has(at) { '1' } else { '0' }).collect()
    }
}

/// Sequences by block.
pub fn blocks(sequences: &[u64]) -> BTreeMap<u64, Bits> {
    let mut blocks = BTreeMap::new();
    for sequence in sequences {
        set(&mut blocks.entry(sequence / BLOCK).or_insert_with(Bits::none).0, *sequence);
    }
    blocks
}

fn set(words: &mut [u64; WORDS], sequence: u64) {
    let at = (sequence % BLOCK) as usize;
    words[at / 64] |= 1 << (at % 64);
}

impl Page {
    /// Whether nothing is to be noted.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Adds a message that was read.
    pub fn add(&mut self, batch: &Batch, position: Position) {
        let groups = batch.groups.iter().filter_map(|group| group.origin);
        let deletions = batch.deletions.iter().filter_map(|deletion| deletion.origin);
        let presences = batch.presences.iter().map(|presence| presence.origin);
        for origin in groups.chain(deletions).chain(presences) {
            if origin.stream == crate::OriginStream::Raw {
                let key = (hour_of(origin.accepted_at), origin.sequence / BLOCK);
                set(self.origins.entry(key).or_insert([0; WORDS]), origin.sequence);
            }
        }
        let readings = u32::try_from(batch.samples()).unwrap_or(u32::MAX);
        self.messages.push(Message { position, readings });
    }

    /// Adds a message that can't be read: it counts as one reading.
    pub fn add_unreadable(&mut self, position: Position) {
        self.messages.push(Message { position, readings: 1 });
        self.before.dead += 1;
    }

    /// What was added last can't be applied after all. What it came from is known all the same.
    pub fn last_can_not_be_read(&mut self) {
        if let Some(last) = self.messages.pop() {
            self.add_unreadable(last.position);
        }
    }

    /// Takes in another's messages.
    pub fn absorb(&mut self, other: Self) {
        self.messages.extend(other.messages);
        for (key, words) in other.origins {
            let kept = self.origins.entry(key).or_insert([0; WORDS]);
            kept.iter_mut().zip(words).for_each(|(kept, more)| *kept |= more);
        }
        self.before += other.before;
    }

    /// Readings of all messages.
    pub fn readings(&self) -> u64 {
        self.messages.iter().map(|message| u64::from(message.readings)).sum()
    }

    /// By hour and block, with what became of the work's own readings. Where one piece of work spans several
    /// hours, it is not known which of them the superseded were of: the first ones.
    pub fn entries(&self, fates: Fates) -> Vec<Entry> {
        let mut all = self.before;
        all += fates;
        let mut messages = self.messages.clone();
        messages.sort_by_key(|message| message.position.sequence);
        // One that was delivered twice counts once. Its readings met themselves.
        messages.dedup_by(|again, first| {
            let same = again.position.sequence == first.position.sequence;
            if same {
                all.met_themselves(again.readings.into());
            }
            same
        });
        let mut sorted: BTreeMap<(Timestamp, u64), Vec<Message>> = BTreeMap::new();
        for message in messages {
            let key = (hour_of(message.position.stored_at), message.position.sequence / BLOCK);
            sorted.entry(key).or_default().push(message);
        }
        // The newest first: what was delivered again, and was stored before, is older.
        let entry = |(at, ((hour, block), messages)): (usize, (_, Vec<Message>))| {
            let mut bits = Bits([0; WORDS]);
            for message in &messages {
                set(&mut bits.0, message.position.sequence);
            }
            let place = |message: &Message| (message.position.sequence % BLOCK) as u32;
            let messages: Vec<_> =
                messages.iter().map(|message| (place(message), message.readings)).collect();
            let readings = messages.iter().map(|(_, readings)| u64::from(*readings)).sum();
            // The oldest takes what is left, too: a sum that is wrong must not look right.
            let fates = if at == 0 { all } else { all.take(readings) };
            Entry { hour, block, bits, messages, fates }
        };
        let sorted: Vec<_> = sorted.into_iter().enumerate().collect();
        let mut entries: Vec<Entry> = sorted.into_iter().rev().map(entry).collect();
        entries.reverse();
        entries
    }

    /// Messages of `RAW` from which something came: hour, block, bits.
    pub fn origins(&self) -> impl Iterator<Item = (Timestamp, u64, Bits)> + '_ {
        self.origins.iter().map(|(&(hour, block), &words)| (hour, block, Bits(words)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntityId, Group, Origin, OriginStream, Revision, Sample, Values};

    fn at(hours: i64) -> Timestamp {
        Timestamp::EPOCH.plus_micros(hours * HOUR + 7)
    }

    fn batch(raw: u64, readings: usize) -> Batch {
        let origin =
            Origin { stream: OriginStream::Raw, sequence: raw, index: 0, accepted_at: at(1) };
        let sample = Sample { entity: EntityId(1), ts: at(0), values: Values::number(1.0) };
        let group = Group {
            origin: Some(origin),
            revision: Revision(0),
            device: None,
            profile_version: 1,
            samples: vec![sample; readings],
        };
        Batch { groups: vec![group], ..Batch::default() }
    }

    fn page(messages: &[(u64, i64, usize)]) -> Page {
        let mut page = Page::default();
        for &(sequence, hour, readings) in messages {
            page.add(&batch(sequence + 5, readings), Position { sequence, stored_at: at(hour) });
        }
        page
    }

    #[test]
    fn messages_are_noted_by_hour_and_block_with_a_bit_each() {
        let page = page(&[(1_025, 2, 3), (1_023, 2, 1), (1_024, 2, 2), (1_026, 3, 4)]);
        let entries = page.entries(Fates { stored: 9, superseded: 1, ..Fates::default() });
        let told: Vec<_> = entries
            .iter()
            .map(|entry| (entry.hour.micros() / HOUR, entry.block, entry.messages.clone()))
            .collect();
        let expected =
            [(2, 0, vec![(1_023, 1)]), (2, 1, vec![(0, 2), (1, 3)]), (3, 1, vec![(2, 4)])];
        assert_eq!(told, expected);
        assert_eq!(entries[1].bits.text(), format!("11{}", "0".repeat(1_022)));
        let sums: Vec<_> = entries.iter().map(|entry| entry.fates.sum()).collect();
        assert_eq!((sums, entries[0].fates.superseded), (vec![1, 5, 4], 1));
        let origins: Vec<_> = page.origins().map(|(_, block, bits)| (block, bits.text())).collect();
        assert_eq!(origins.len(), 1);
        assert_eq!(origins[0].1.matches('1').count(), 4);
    }

    #[test]
    fn a_message_that_came_twice_counts_once() {
        let page = page(&[(1, 2, 3), (2, 2, 1), (1, 2, 3)]);
        let entries = page.entries(Fates { stored: 4, superseded: 3, ..Fates::default() });
        assert_eq!(entries[0].messages, [(1, 3), (2, 1)]);
        assert_eq!(entries[0].fates, Fates { stored: 4, ..Fates::default() });
        let mut page = Page::default();
        let position = Position { sequence: 9, stored_at: at(1) };
        page.add_unreadable(position);
        page.add_unreadable(position);
        assert_eq!(page.entries(Fates::default())[0].fates.sum(), 1);
    }

    #[test]
    fn what_is_not_accounted_for_is_not_made_up() {
        let page = page(&[(1, 2, 3), (2, 3, 3)]);
        let entries = page.entries(Fates { stored: 5, ..Fates::default() });
        let sums: Vec<_> = entries.iter().map(|entry| entry.fates.sum()).collect();
        assert_eq!(sums, [2, 3]);
        let more = page.entries(Fates { stored: 7, ..Fates::default() });
        assert_eq!(more[0].fates.sum(), 4);
    }
}
