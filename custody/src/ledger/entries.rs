//! Device messages one by one: each entry of a pack in `RAW` gave readings in `TELEMETRY`, or a letter says why not.
//! The bits of whole packs do not tell that; the streams do, as far back as they hold both.

use super::{NAMED, Question, says_nothing};
use crate::{Fault, compare::Target};
use domain::{
    Batch, OrgKey, OriginStream, Timestamp,
    ledger::{Bits, HOUR, hour_of},
    raw::{MAX_PACK_ENTRIES, Pack},
};
use futures_util::{StreamExt, stream};
use nats::{
    consume::read_placed,
    envelope,
    history::{self, Range},
    letters,
    publish::sequence_since,
    retention,
    streams::{RAW, TELEMETRY},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::{ControlFlow, RangeInclusive},
};
use store::ledger::{Noted, Span};

/// Packs that are looked into without being asked, ...
const QUICK_PACKS: u64 = 5_000;
/// ... if there are no more messages of `TELEMETRY` behind them, ...
const QUICK_MESSAGES: u64 = 20_000;
/// ... nor more bytes of either: that is a fraction of a second.
const QUICK_BYTES: u64 = 32 << 20;
/// Most that are looked into at once: of each a bit an entry is in memory.
const MOST_PACKS: u64 = 2_000_000;

/// Those that are asked for at once: each may have some megabytes.
const AHEAD: usize = 8;

/// What became of device messages of an org in an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// That were accepted.
    pub accepted: u64,
    /// That gave readings, or a presence.
    pub normalized: u64,
    /// That are letters.
    pub dead: u64,
    /// That can give nothing, or were settled by hand.
    pub explained: u64,
    /// That are on their way.
    pub in_flight: u64,
    /// Of which `TELEMETRY` may have let go.
    pub let_go: u64,
    /// None of these.
    pub unaccounted: u64,
}

/// What became of device messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries {
    /// By the hour in which `RAW` stored them, and org; `None`: nobody knew whose they are.
    pub hours: BTreeMap<(Timestamp, Option<OrgKey>), Counts>,
    /// The first that are unaccounted for: sequence and place in the pack.
    pub missing: Vec<(u64, u16)>,
}

impl Entries {
    /// Whether nothing is missing.
    pub fn is_balanced(&self) -> bool {
        self.hours.values().all(|counts| counts.unaccounted == 0)
    }
}

/// What is known of packs.
struct Known {
    letters: BTreeSet<(u64, u32)>,
    /// Entries from which something came.
    origins: HashMap<u64, Bits>,
    settled: BTreeSet<u64>,
    /// Everything up to this sequence was normalized.
    normalized: u64,
    /// `TELEMETRY` has let go of nothing since.
    whole: bool,
}

impl Question<'_> {
    /// Looks into the packs of the hours that are asked about; `None`: there are too many to do so unasked.
    pub(super) async fn entries(
        &self,
        primary: Target<'_>,
        normalized: u64,
    ) -> Result<Option<Entries>, Fault> {
        let (from, to) = (self.hours.0, self.hours.1.plus_micros(HOUR));
        let held = retention::held(self.wire, RAW).await?;
        let since = async |moment| sequence_since(self.wire, RAW, "raw.>", moment).await;
        let Some(first) = since(from).await? else { return Ok(Some(Entries::default())) };
        let last = since(to).await?.map_or(held.last, |next| next - 1);
        let packs = (last + 1).saturating_sub(first);
        match self.entries {
            Some(false) => return Ok(None),
            None if packs > QUICK_PACKS || held.bytes_behind(first - 1) > QUICK_BYTES => {
                return Ok(None);
            }
            None if !self.is_quick(from).await? => return Ok(None),
            _ if packs > MOST_PACKS => {
                return Err(Fault::Refused(format!(
                    "RAW has {packs} packs of that time, at most {MOST_PACKS} are looked into at once: \
                     name an hour"
                )));
            }
            _ => {}
        }
        let range = first..=last;
        // Letters first: what leaves them meanwhile is in TELEMETRY then.
        let letters = letters::places(self.wire, RAW, &range).await?;
        let (origins, whole) = self.origins(from, &range).await?;
        let made = history::made(self.wire, RAW).await?;
        let span = Span { stream: Noted::Raw, first, last, made };
        let settled = span.settled(primary.database).await.map_err(primary.fault())?;
        let known = Known { letters, origins, settled, normalized, whole };
        let mut entries = Entries::default();
        let wire = self.wire.clone();
        let packs = stream::iter(range).map(|sequence| {
            let wire = wire.clone();
            async move { read_placed(&wire, RAW, sequence).await }
        });
        let mut packs = std::pin::pin!(packs.buffered(AHEAD));
        while let Some(found) = packs.next().await {
            if let Some((position, body)) = found? {
                entries.add(position.sequence, position.stored_at, &body, &known);
            }
        }
        Ok(Some(entries))
    }

    /// Whether what stands in `TELEMETRY` since a moment is soon read.
    async fn is_quick(&self, from: Timestamp) -> Result<bool, Fault> {
        let held = retention::held(self.wire, TELEMETRY).await?;
        let first = sequence_since(self.wire, TELEMETRY, "telemetry.>", from).await?;
        let first = first.unwrap_or(held.last + 1);
        Ok((held.last + 1).saturating_sub(first) <= QUICK_MESSAGES
            && held.bytes_behind(first.saturating_sub(1)) <= QUICK_BYTES)
    }

    /// Entries of packs from which something stands in `TELEMETRY`, and whether that has all since a moment.
    async fn origins(
        &self,
        from: Timestamp,
        packs: &RangeInclusive<u64>,
    ) -> Result<(HashMap<u64, Bits>, bool), Fault> {
        let mut origins = HashMap::new();
        let held = retention::held(self.wire, TELEMETRY).await?;
        // What came of a message stands behind it.
        let first = sequence_since(self.wire, TELEMETRY, "telemetry.>", from).await?;
        let Some(first) = first else { return Ok((origins, held.first <= 1)) };
        let gone = retention::taken_out(self.wire, TELEMETRY).await?;
        let whole = (held.first <= 1 || held.first < first) && gone.iter().all(|it| *it < first);
        let (stream, filter, last) = (TELEMETRY, "telemetry.>", u64::MAX);
        let range = Range { stream, filter, first, last, headers_only: false };
        history::read(self.wire, &range, |message| {
            let Ok(batch) = envelope::decode::<Batch>(&message.body) else {
                return ControlFlow::Continue(());
            };
            let groups = batch.groups.iter().filter_map(|group| group.origin);
            let deletions = batch.deletions.iter().filter_map(|deletion| deletion.origin);
            let presences = batch.presences.iter().map(|presence| presence.origin);
            for origin in groups.chain(deletions).chain(presences) {
                if origin.stream == OriginStream::Raw && packs.contains(&origin.sequence) {
                    origins
                        .entry(origin.sequence)
                        .or_insert_with(Bits::none)
                        .set(origin.index.into());
                }
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok((origins, whole))
    }
}

impl Entries {
    fn add(&mut self, sequence: u64, stored_at: Timestamp, body: &[u8], known: &Known) {
        let hour = hour_of(stored_at);
        let pack = envelope::decode_borrowed::<Pack<'_>>(body).ok();
        let Some(pack) = pack.filter(|pack| pack.entries.len() <= MAX_PACK_ENTRIES) else {
            // It is one message to whoever can't read it.
            let counts = self.hours.entry((hour, None)).or_default();
            counts.accepted += 1;
            if !known.settle(counts, sequence, 0) {
                self.miss(sequence, 0);
            }
            return;
        };
        for (index, entry) in (0u16..).zip(&pack.entries) {
            let org = entry.sender.as_ref().map(|sender| sender.org.clone());
            let counts = self.hours.entry((hour, org)).or_default();
            counts.accepted += 1;
            if says_nothing(entry) {
                counts.explained += 1;
            } else if !known.settle(counts, sequence, index) {
                self.miss(sequence, index);
            }
        }
    }

    fn miss(&mut self, sequence: u64, index: u16) {
        if self.missing.len() < NAMED {
            self.missing.push((sequence, index));
        }
    }
}

impl Known {
    /// Counts an entry by what became of it; `false`: nobody knows.
    fn settle(&self, counts: &mut Counts, sequence: u64, index: u16) -> bool {
        let came = self.origins.get(&sequence).is_some_and(|bits| bits.has(index.into()));
        let place = if came {
            &mut counts.normalized
        } else if self.letters.contains(&(sequence, index.into())) {
            &mut counts.dead
        } else if sequence > self.normalized {
            &mut counts.in_flight
        } else if self.settled.contains(&sequence) {
            &mut counts.explained
        } else if !self.whole {
            &mut counts.let_go
        } else {
            counts.unaccounted += 1;
            return false;
        };
        *place += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_became_of_it() {
        let mut came = Bits::none();
        came.set(3);
        let known = |whole| Known {
            letters: [(7, 4), (9, 0)].into(),
            origins: [(7, came)].into(),
            settled: [8].into(),
            normalized: 9,
            whole,
        };
        let counts = |whole| {
            let mut counts = Counts::default();
            let all = [(7, 3), (7, 4), (7, 5), (8, 0), (9, 0), (9, 1), (10, 0)];
            let missing: Vec<_> = all
                .into_iter()
                .filter(|(sequence, index)| !known(whole).settle(&mut counts, *sequence, *index))
                .collect();
            (counts, missing)
        };
        let right =
            Counts { normalized: 1, dead: 2, explained: 1, in_flight: 1, ..Counts::default() };
        assert_eq!(counts(true), (Counts { unaccounted: 2, ..right }, vec![(7, 5), (9, 1)]));
        assert_eq!(counts(false), (Counts { let_go: 2, ..right }, vec![]));
    }
}
