//! Messages of one org on their way into one target, as one piece of work.

use crate::{batching::Size, bisect::Part, letter};
use domain::{
    Batch, Row, RowVersion, Work,
    ledger::{Fates, Page},
    merge::Key,
    subject::API,
};
use nats::{
    Delivery, envelope,
    letters::{RETRIED, Retried},
};
use std::collections::BTreeMap;
use tokio::sync::OwnedSemaphorePermit;

/// A delivered message, read.
pub(crate) struct Message {
    pub(crate) delivery: Delivery,
    pub(crate) size: Size,
    /// Its sender is answered when the primary has it.
    pub(crate) waited_for: bool,
    /// Of which refused row it is another attempt.
    pub(crate) retried: Option<Retried>,
    /// What it asks for, or why it can't be read.
    pub(crate) content: Result<Batch, String>,
}

impl Message {
    /// Reads a message and lets go of its bytes.
    pub(crate) fn read(mut delivery: Delivery) -> Self {
        let retried = delivery.header(RETRIED).and_then(Retried::parse);
        let payload = delivery.take_payload();
        let waited_for = letter::producer(&delivery) == API;
        let content: Result<Batch, String> =
            envelope::decode(&payload).map_err(|fault| fault.to_string());
        let rows = content.as_ref().map_or(0, |batch| {
            batch.samples() + batch.deletions.iter().map(|d| d.entities.len()).sum::<usize>()
        });
        let size = Size { rows, bytes: payload.len(), messages: 1 };
        Self { delivery, size, waited_for, retried, content }
    }
}

/// Which message brought rows of a version: kept for the day when one of them is refused.
#[derive(Debug, Clone, Copy)]
struct Brought {
    version: RowVersion,
    message: u32,
}

/// A batch: what its messages ask for, and the messages, to be acknowledged.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) size: Size,
    /// Some sender is answered when the primary has it.
    pub(crate) waited_for: bool,
    /// Messages (by their place in `deliveries`) that are another attempt, and of what.
    pub(crate) retried: BTreeMap<usize, Retried>,
    /// Unsorted until [`Gathered::finish`].
    pub(crate) work: Work,
    /// A copy of the work's page, which is lost where the work has to be divided.
    page: Page,
    /// Rows for which the batch has a higher version. They count again where that is refused.
    superseded: Vec<Row>,
    brought: Vec<Brought>,
    /// Messages (by their place in `deliveries`) that can't be read, and why.
    pub(crate) unreadable: Vec<(usize, String)>,
    /// The batch's share of the memory, given back with it.
    pub(crate) room: Vec<OwnedSemaphorePermit>,
}

impl Gathered {
    /// Adds a message.
    pub(crate) fn add(&mut self, message: Message) {
        let Message { delivery, size, waited_for, retried, content } = message;
        let ordinal = self.deliveries.len();
        let before = self.work.rows.len();
        let added = match content {
            Ok(batch) => {
                self.work.add(batch, delivery.position()).map_err(|fault| fault.to_string())
            }
            Err(why) => {
                self.work.page.add_unreadable(delivery.position());
                Err(why)
            }
        };
        match added {
            Ok(()) => {
                let new = self.work.rows[before..].chunk_by(|a, b| a.version == b.version);
                let brought =
                    new.map(|rows| Brought { version: rows[0].version, message: ordinal as u32 });
                self.brought.extend(brought);
            }
            Err(why) => self.unreadable.push((ordinal, why)),
        }
        self.size = self.size.plus(size);
        self.waited_for |= waited_for;
        self.retried.extend(retried.map(|retried| (ordinal, retried)));
        self.deliveries.push(delivery);
    }

    /// Makes keys unique and sorted.
    pub(crate) fn finish(mut self) -> Self {
        self.superseded = tidy_apart(&mut self.work.rows);
        self.page = self.work.page.clone();
        self.work.page.before.superseded = self.superseded.len() as u64;
        self
    }

    /// The page, where the work was written in parts: it comes last, when all is decided.
    pub(crate) fn closing_page(&mut self, parts: Fates) -> Page {
        let mut page = std::mem::take(&mut self.page);
        page.before += parts;
        page.before.superseded += self.superseded.len() as u64;
        page
    }

    /// Takes in another batch's messages; gives back its work, without its page.
    pub(crate) fn absorb(&mut self, mut other: Self) -> Work {
        self.page.absorb(std::mem::take(&mut other.page));
        other.work.page = Page::default();
        let shift = self.deliveries.len();
        self.deliveries.extend(other.deliveries);
        self.size = self.size.plus(other.size);
        self.retried.extend(other.retried.into_iter().map(|(at, it)| (at + shift, it)));
        self.superseded.extend(other.superseded);
        self.brought.extend(
            other.brought.into_iter().map(|b| Brought { message: b.message + shift as u32, ..b }),
        );
        self.unreadable.extend(other.unreadable.into_iter().map(|(at, why)| (at + shift, why)));
        self.room.extend(other.room);
        other.work
    }

    /// The messages that brought rows of this version, by their places in `deliveries`.
    pub(crate) fn brought(&self, version: RowVersion) -> impl Iterator<Item = usize> {
        let of = move |brought: &&Brought| brought.version == version;
        self.brought.iter().filter(of).map(|brought| brought.message as usize)
    }

    /// Where a row was refused, the highest version below it of what it superseded: what the
    /// target would hold had the refused row never come.
    pub(crate) fn fall_back(&mut self, refused: &Row) -> Option<Row> {
        let key: Key = (refused.entity, refused.ts);
        let below = |row: &Row| (row.entity, row.ts) == key && row.version < refused.version;
        let candidates = self.superseded.iter().enumerate().filter(|(_, row)| below(row));
        let (at, _) = candidates.max_by_key(|(_, row)| row.version)?;
        Some(self.superseded.swap_remove(at))
    }
}

/// [`domain::merge::tidy`], which also gives back the rows that it drops.
fn tidy_apart(rows: &mut Vec<Row>) -> Vec<Row> {
    let key = |row: &Row| (row.entity, row.ts);
    rows.sort_by_key(|row| (row.entity, row.ts, row.version));
    if rows.windows(2).all(|pair| key(&pair[0]) != key(&pair[1])) {
        return Vec::new();
    }
    let mut dropped = Vec::new();
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows.drain(..) {
        match kept.last_mut().filter(|last| key(last) == key(&row)) {
            Some(last) => dropped.push(std::mem::replace(last, row)),
            None => kept.push(row),
        }
    }
    *rows = kept;
    dropped
}

impl Part for Work {
    /// Deletions apart from rows, then rows by halves. Deletions are never divided. The page is taken out: its
    /// messages are not applied before all parts are.
    fn halves(mut self) -> Result<(Self, Self), Self> {
        self.page = Page::default();
        // What is no row is never refused for what it says: it goes first and alone.
        let apart = !(self.deletions.is_empty()
            && self.transactions.is_empty()
            && self.presences.is_empty());
        if apart && !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            return Ok((self, Self { rows, ..Self::default() }));
        }
        if self.rows.len() < 2 {
            return Err(self);
        }
        let rows = self.rows.split_off(self.rows.len() / 2);
        Ok((self, Self { rows, ..Self::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EntityId, Origin, OriginStream, Revision, Timestamp, Values, merge::tidy};
    use proptest::prelude::*;

    fn row(entity: i32, ts: i64, sequence: u64, n: f64) -> Row {
        let accepted_at = Timestamp::EPOCH;
        let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at };
        Row {
            entity: EntityId(entity),
            ts: Timestamp::EPOCH.plus_micros(ts),
            version: RowVersion::new(&origin, Revision(0)).unwrap(),
            values: Values::number(n),
        }
    }

    proptest! {
        #[test]
        fn tidying_apart_keeps_what_tidy_keeps_and_loses_nothing(
            drafts in prop::collection::vec((0..4i32, 0..4i64, 0..4u64), 0..60),
        ) {
            let rows: Vec<Row> = drafts.iter().enumerate()
                .map(|(n, &(entity, ts, sequence))| row(entity, ts, sequence, n as f64)).collect();
            let (mut expected, mut kept) = (rows.clone(), rows.clone());
            tidy(&mut expected);
            let dropped = tidy_apart(&mut kept);
            prop_assert_eq!(&kept, &expected);
            let mut all: Vec<_> =
                kept.iter().chain(&dropped).map(|row| row.values.n.unwrap() as usize).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn behind_a_refused_row_the_next_lower_version_counts() {
        let mut work = Work { rows: vec![row(1, 1, 1, 1.0), row(1, 1, 3, 3.0)], ..Work::default() };
        work.rows.extend([row(1, 1, 2, 2.0), row(1, 2, 9, 9.0)]);
        let mut batch = Gathered { work, ..Gathered::default() }.finish();
        let refused = batch.work.rows[0].clone();
        assert_eq!(refused, row(1, 1, 3, 3.0));
        let next = batch.fall_back(&refused).unwrap();
        assert_eq!(next, row(1, 1, 2, 2.0));
        assert_eq!(batch.fall_back(&next), Some(row(1, 1, 1, 1.0)));
        assert_eq!(batch.fall_back(&next), None);
    }
}
