//! Does the ledger balance? Every message of a stream was applied, is set aside, or is on its way; every reading
//! of an applied one has a fate; every target has as many rows as it wrote.

mod entries;
mod mend;

pub use entries::{Counts, Entries};
use mend::settle;
pub use mend::{apply_again, fold, restore};

use crate::{Fault, compare::Target};
use domain::{
    Clock, OrgId, OrgKey, SystemClock, TargetName, Timestamp,
    directory::Directory,
    ledger::Fates,
    raw::{Pack, RawMessage, STATUS, STATUS_KEPT},
    subject::Subject,
};
use nats::{
    Wire,
    consume::{read_placed, subject_of},
    envelope, history,
    inspect::{self, NORMALIZE},
    letters,
    retention::{self, applied},
    streams::{RAW, TELEMETRY},
    targets::Register,
};
use std::{collections::BTreeSet, time::Duration};
use store::{
    OrgRef,
    ledger::{self, Holes, Hour, Noted, Rows, Since, Span, Sums, Why},
};

/// An org's rows are counted without being asked where there are no more, over all orgs of a target.
pub const QUICK_ROWS: i64 = 2_000_000;
/// The same, of orgs.
const QUICK_ORGS: usize = 200;
/// Messages without a note of which it is told what they are.
const NAMED: usize = 5_000;
/// Looks at what is explained, each at some two hundred thousand messages.
const ROUNDS: u32 = 20;
/// Blocks are folded when they are so old, in microseconds: three hours.
const FOLDED_AFTER: i64 = 3 * 3_600_000_000;
/// Those of `RAW` without a letter that are read, to see whether they can give a reading.
const READ: usize = 10_000;
/// How long it is waited until what was normalized is applied, too: what is behind by more is on its way.
const CATCHING_UP: Duration = Duration::from_secs(2);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked.
pub struct Question<'a> {
    /// The stream server.
    pub wire: &'a Wire,
    /// The primary first.
    pub targets: &'a [Target<'a>],
    /// All orgs.
    pub orgs: &'a [OrgRef],
    /// Those that were let go are not looked at.
    pub register: &'a Register,
    /// Hours whose readings are told.
    pub hours: (Timestamp, Timestamp),
    /// Whether rows are counted; `None`: where that is quick.
    pub rows: Option<bool>,
    /// Whether packs are looked into; `None`: where that is quick.
    pub entries: Option<bool>,
}

/// The orgs that the platform knows.
pub fn orgs_of(directory: &Directory) -> Vec<OrgRef> {
    let orgs = directory.orgs();
    orgs.iter().map(|org| OrgRef { id: org.id, key: org.key.clone() }).collect()
}

/// Messages of a stream on their way through a hop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hop {
    /// The first sequence that counts.
    pub since: u64,
    /// Messages that were accepted from there on.
    pub accepted: u64,
    /// Of those, what was applied, or gave something that was.
    pub applied: u64,
    /// Of which nothing came: letters, and what has no reading.
    pub explained: u64,
    /// That somebody settled.
    pub settled: u64,
    /// On their way.
    pub in_flight: u64,
    /// Neither applied, nor set aside, nor on their way: sequences, and what is known of them.
    pub unaccounted: Vec<(u64, String)>,
    /// There may be more of those.
    pub more: bool,
}

/// The ledger of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    /// From `TELEMETRY`.
    pub hop: Hop,
    /// Everything up to this sequence is acknowledged: it is not delivered again.
    pub done: u64,
    /// Readings by hour and org.
    pub hours: Vec<Hour>,
    /// Hours of any time with readings that have no fate (or two), and how many.
    pub off: Vec<(OrgId, Timestamp, i64)>,
    /// Rows of each org.
    pub rows: Vec<(OrgRef, Rows)>,
}

/// The ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Ledger {
    /// From `RAW` to `TELEMETRY`, by the primary.
    pub raw: Hop,
    /// The same of each device message in them; `None`: not looked.
    pub entries: Option<Entries>,
    /// Each target that answers, the primary first.
    pub targets: Vec<(TargetName, Account)>,
    /// Those that do not, and why.
    pub away: Vec<(TargetName, String)>,
}

/// A kept status that was taken out of the broker says nothing.
fn says_nothing(entry: &RawMessage<'_>) -> bool {
    matches!(&*entry.content_type, STATUS | STATUS_KEPT) && entry.payload.is_empty()
}

fn now() -> Timestamp {
    SystemClock.now()
}

impl Hop {
    /// Where nothing is noted yet.
    fn all_in_flight(last: u64) -> Self {
        Self { since: 1, accepted: last, in_flight: last, ..Self::default() }
    }

    /// Whether nothing is missing.
    pub fn is_balanced(&self) -> bool {
        self.unaccounted.is_empty() && !self.more
    }
}

impl Account {
    /// Whether nothing is missing and nothing too much.
    pub fn is_balanced(&self) -> bool {
        let rows = |(_, rows): &(OrgRef, Rows)| rows.found.is_none_or(|it| it == rows.counted);
        self.hop.is_balanced() && self.off.is_empty() && self.rows.iter().all(rows)
    }

    /// Sums of the hours.
    pub fn sums(&self) -> (u64, u64, Fates) {
        let mut fates = Fates::default();
        self.hours.iter().for_each(|hour| fates += hour.fates);
        let sum = |of: fn(&Hour) -> u64| self.hours.iter().map(of).sum();
        (sum(|hour| hour.messages), sum(|hour| hour.readings), fates)
    }
}

impl Ledger {
    /// Whether everything is accounted for.
    pub fn is_balanced(&self) -> bool {
        self.raw.is_balanced()
            && self.entries.as_ref().is_none_or(Entries::is_balanced)
            && self.targets.iter().all(|(_, account)| account.is_balanced())
    }
}

impl Question<'_> {
    /// Asks the streams how far everybody is, then the targets what they have noted: in that order, so that what
    /// somebody said to be done with is noted by then.
    pub async fn ask(&self) -> Result<Ledger, Fault> {
        let consumer = inspect::consumer(self.wire, RAW, NORMALIZE).await?;
        let normalized = consumer.map_or(0, |consumer| consumer.done);
        let raw_last = retention::held(self.wire, RAW).await?.last;
        let behind = retention::held(self.wire, TELEMETRY).await?.last;
        let (mut raw, mut entries) = (Hop::all_in_flight(raw_last), None);
        let (mut targets, mut away) = (Vec::new(), Vec::new());
        for (at, target) in self.targets.iter().enumerate() {
            let asked = async {
                let since = ledger::since(target.database).await.map_err(target.fault())?;
                let raw = if at == 0 && since.is_some() {
                    let seen = self.catches_up(target, behind).await?;
                    Some(self.raw(target, since, (normalized, raw_last), seen).await?)
                } else {
                    None
                };
                let entries = if at == 0 { self.entries(*target, normalized).await? } else { None };
                Ok((raw, entries, self.account(target, since).await?))
            };
            match asked.await {
                Ok((found, looked, account)) => {
                    raw = found.unwrap_or(raw);
                    entries = looked.or(entries);
                    targets.push((target.name.clone(), account));
                }
                // One that is away keeps nobody from seeing the others.
                Err(Fault::Target(name, fault)) => away.push((name, fault.to_string())),
                Err(fault) => return Err(fault),
            }
        }
        Ok(Ledger { raw, entries, targets, away })
    }

    /// Takes what is there as right; the ledger as it is then.
    pub async fn settle(&self, ledger: &Ledger) -> Result<Ledger, Fault> {
        if let Some((name, why)) = ledger.away.first() {
            return Err(Fault::Refused(format!(
                "nothing was settled: {name} can't be asked ({why})"
            )));
        }
        for (at, target) in self.targets.iter().enumerate() {
            let Some((_, account)) = ledger.targets.iter().find(|(name, _)| name == target.name)
            else {
                continue;
            };
            let raw = (at == 0).then(|| {
                let missing = ledger.entries.iter().flat_map(|entries| &entries.missing);
                let hop = ledger.raw.unaccounted.iter().map(|(sequence, _)| *sequence);
                hop.chain(missing.map(|(sequence, _)| *sequence)).collect::<BTreeSet<u64>>()
            });
            settle(self.wire, *target, raw.as_ref(), account).await?;
        }
        self.ask().await
    }

    /// Up to which sequence a target has applied everything.
    async fn applied(&self, target: &Target<'_>) -> Result<(u64, u64), Fault> {
        let held = retention::held(self.wire, TELEMETRY).await?;
        let keys: Vec<OrgKey> = self.orgs.iter().map(|org| org.key.clone()).collect();
        let alone = self.register.iter().filter(|(name, _)| *name == target.name);
        let alone: Register = alone.map(|(name, it)| (name.clone(), it.clone())).collect();
        let known = !alone.is_empty();
        let applied = applied(self.wire, TELEMETRY, &held, &alone, &keys).await?;
        Ok((if known { applied.done.min(held.last) } else { 0 }, held.last))
    }

    /// Whether a target has applied all that was there before, within a moment.
    async fn catches_up(&self, target: &Target<'_>, until: u64) -> Result<bool, Fault> {
        let begun = std::time::Instant::now();
        loop {
            if self.applied(target).await?.0 >= until {
                return Ok(true);
            }
            if begun.elapsed() >= CATCHING_UP {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn raw(
        &self,
        target: &Target<'_>,
        since: Option<Since>,
        (normalized, last): (u64, u64),
        seen: bool,
    ) -> Result<Hop, Fault> {
        let Some(Since { raw: since, .. }) = since else { return Ok(Hop::all_in_flight(last)) };
        let (fault, done) = (target.fault(), if seen { normalized } else { 0 });
        let made = history::made(self.wire, RAW).await?;
        // A stream that was made anew counts anew.
        let first = if since > last + 1 { 1 } else { since };
        let span = Span { stream: Noted::Raw, first, last: done, made };
        let mut rounds = 0;
        let holes = loop {
            let mut holes = span.holes(target.database).await.map_err(&fault)?;
            let explained = self.explain(&holes.sequences).await?;
            if !explained.is_empty() {
                let (found, now): (Vec<u64>, _) = (explained.iter().copied().collect(), now());
                let noted = span.settle(target.database, &found, Why::Explained, now).await;
                noted.map_err(&fault)?;
            }
            holes.sequences.retain(|sequence| !explained.contains(sequence));
            rounds += 1;
            // What was explained makes room for more to be looked at.
            if !holes.cut || explained.is_empty() || rounds >= ROUNDS {
                break holes;
            }
        };
        self.hop(target, Span { last, ..span }, holes).await
    }

    /// Messages of `RAW` of which nothing comes, and rightly so.
    async fn explain(&self, sequences: &[u64]) -> Result<BTreeSet<u64>, Fault> {
        let asked = sequences.iter().copied().collect();
        let mut found = letters::about(self.wire, RAW, &asked).await?;
        let silent: Vec<u64> = asked.difference(&found).copied().take(READ).collect();
        for sequence in silent {
            let Some((_, body)) = read_placed(self.wire, RAW, sequence).await? else { continue };
            let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(&body) else { continue };
            if pack.entries.iter().all(says_nothing) {
                found.insert(sequence);
            }
        }
        Ok(found)
    }

    async fn account(&self, target: &Target<'_>, since: Option<Since>) -> Result<Account, Fault> {
        let fault = target.fault();
        let (done, last) = self.applied(target).await?;
        let hop = match since {
            None => Hop::all_in_flight(last),
            Some(Since { telemetry: since, .. }) => {
                let made = history::made(self.wire, TELEMETRY).await?;
                let first = if since > last + 1 { 1 } else { since };
                let span = Span { stream: Noted::Telemetry, first, last: done, made };
                let holes = span.holes(target.database).await.map_err(&fault)?;
                self.hop(target, Span { last, ..span }, holes).await?
            }
        };
        let hours = ledger::hours(target.database, self.hours).await.map_err(&fault)?;
        let off = ledger::unbalanced(target.database).await.map_err(&fault)?;
        let rows = self.rows(target).await?;
        Ok(Account { hop, done, hours, off, rows })
    }

    async fn rows(&self, target: &Target<'_>) -> Result<Vec<(OrgRef, Rows)>, Fault> {
        let counted = ledger::counted(target.database).await.map_err(target.fault())?;
        let quick = counted.values().sum::<i64>() <= QUICK_ROWS && counted.len() <= QUICK_ORGS;
        let mut rows = Vec::with_capacity(self.orgs.len());
        for org in self.orgs {
            let found = if self.rows.unwrap_or(quick) {
                ledger::rows(target.database, org).await.map_err(target.fault())?
            } else {
                Rows { counted: counted.get(&org.id).copied().unwrap_or(0), found: None }
            };
            rows.push((org.clone(), found));
        }
        Ok(rows)
    }

    async fn hop(&self, target: &Target<'_>, span: Span, holes: Holes) -> Result<Hop, Fault> {
        let Sums { applied, explained, settled } =
            span.sums(target.database).await.map_err(target.fault())?;
        let mut unaccounted = Vec::with_capacity(holes.sequences.len());
        for (at, sequence) in holes.sequences.into_iter().enumerate() {
            let what = if at < NAMED {
                self.what(span.stream, sequence).await?
            } else {
                Some(String::new())
            };
            unaccounted.extend(what.map(|what| (sequence, what)));
        }
        let since = span.first;
        let accepted = (span.last + 1).saturating_sub(since);
        let done = applied + explained + settled + unaccounted.len() as u64;
        let in_flight = accepted.saturating_sub(done);
        let more = holes.cut;
        Ok(Hop { since, accepted, applied, explained, settled, in_flight, unaccounted, more })
    }

    /// What is known of a message that nobody has noted; `None`: it is of an org that is not known here yet, so
    /// nobody reads it yet.
    async fn what(&self, stream: Noted, sequence: u64) -> Result<Option<String>, Fault> {
        let name = match stream {
            Noted::Raw => RAW,
            Noted::Telemetry => TELEMETRY,
        };
        let Some(subject) = subject_of(self.wire, name, sequence).await? else {
            return Ok(Some("the stream has it no more".to_owned()));
        };
        let Some(Subject::Telemetry { org, source }) = Subject::parse(&subject) else {
            return Ok(Some(subject));
        };
        let known = self.orgs.iter().any(|it| it.key.as_str() == org);
        Ok(known.then(|| format!("from {source}, of org {org}")))
    }
}
