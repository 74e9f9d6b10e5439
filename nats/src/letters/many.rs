//! One letter that stands for many: what a sender has set aside past its quota.
//!
//! It lies under a subject of its own, is replaced as a whole by compare-and-set, and names each message that
//! it is about. What is put in twice is in it once.

use super::{DEAD, dead, later};
use crate::{
    PublishFault, Wire, envelope,
    publish::{self, Outgoing},
};
use async_nats::jetstream::stream::DirectGetErrorKind;
use domain::{
    Letter, failpoint,
    letter::{Place, place_of},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Header: how many messages the letter is about.
pub(super) const MANY: &str = "Haystack-Many";
/// Replaces all earlier messages of the subject.
const ROLLUP: (&str, &str) = ("Nats-Rollup", "sub");
/// Messages that one letter names; then it is closed, and another begins.
pub const MOST_PLACES: usize = 2_000;
/// Tries of a change, each lost to another writer.
const TRIES: u32 = 20;

/// The letter for many of a subject, and its number.
pub(super) async fn last(
    wire: &Wire,
    subject: &str,
) -> Result<Option<(u64, Letter)>, PublishFault> {
    match dead(wire).await?.direct_get_last_for_subject(subject).await {
        Ok(found) => {
            let letter = envelope::decode(&found.payload)
                .map_err(|why| later(format!("letter {}: {why}", found.sequence)))?;
            Ok(Some((found.sequence, letter)))
        }
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(later(error)),
    }
}

/// Puts letters of one subject into the one that stands for many. Fsynced when it returns.
pub async fn put_together(wire: &Wire, letters: &[Letter]) -> Result<(), PublishFault> {
    for some in letters.chunks(MOST_PLACES) {
        put_some(wire, some).await?;
    }
    Ok(())
}

async fn put_some(wire: &Wire, letters: &[Letter]) -> Result<(), PublishFault> {
    let Some(newest) = letters.last() else { return Ok(()) };
    let places: BTreeSet<Place> = letters.iter().filter_map(place_of).collect();
    if places.is_empty() {
        return Err(later("letters without a place can't be put together"));
    }
    let subject = newest.together(places.iter().copied().collect()).subject().to_string();
    for _ in 0..TRIES {
        let there = last(wire, &subject).await?;
        let number = there.as_ref().map_or(0, |(number, _)| *number);
        let mut first: BTreeSet<Place> =
            there.iter().flat_map(|(_, letter)| letter.many.iter().copied()).collect();
        let mut rest: Vec<Place> = places.difference(&first).copied().collect();
        first.extend(rest.drain(..rest.len().min(MOST_PLACES.saturating_sub(first.len()))));
        let mut open: Vec<Place> = first.into_iter().collect();
        if !rest.is_empty() {
            let full = newest.together(std::mem::take(&mut open));
            open = if close(wire, &subject, number, &full).await? {
                rest
            } else {
                places.iter().copied().collect()
            };
            failpoint::hit(failpoint::AFTER_MANY_CLOSED);
        }
        match replace(wire, &subject, number, &newest.together(open)).await {
            Err(PublishFault::Conflict) => {}
            done => return done,
        }
    }
    Err(later(format!("{subject} is written by too many at once")))
}

/// Puts a full letter where nothing is added any more: under the number of what it replaces. `false`: somebody did
/// before, with all that stood there, but maybe not with what was to be added. Whoever is faster in between has
/// its messages in both.
async fn close(
    wire: &Wire,
    subject: &str,
    number: u64,
    full: &Letter,
) -> Result<bool, PublishFault> {
    let stage = subject.split('.').nth(1).unwrap_or_default();
    let closed = subject.replacen(stage, &format!("{stage}-{number}"), 1);
    match replace(wire, &closed, 0, full).await {
        // Somebody who was cut off, or is as quick.
        Err(PublishFault::Conflict) => Ok(false),
        done => done.map(|()| true),
    }
}

async fn replace(
    wire: &Wire,
    subject: &str,
    number: u64,
    letter: &Letter,
) -> Result<(), PublishFault> {
    let message = Outgoing::expecting(subject, number, envelope::encode_named(letter))
        .header(ROLLUP.0, ROLLUP.1)
        .header(MANY, &letter.many.len().to_string());
    publish::publish(wire, message).await.map(drop)
}

/// Takes messages out of a letter that stands for many; its number if something is left.
pub async fn take_out(
    wire: &Wire,
    subject: &str,
    places: &[Place],
) -> Result<Option<u64>, PublishFault> {
    let places: BTreeSet<&Place> = places.iter().collect();
    for _ in 0..TRIES {
        let Some((number, mut letter)) = last(wire, subject).await? else { return Ok(None) };
        letter.many.retain(|place| !places.contains(place));
        if letter.many.is_empty() {
            publish::remove(wire, DEAD, &[number]).await?;
            return Ok(None);
        }
        match replace(wire, subject, number, &letter).await {
            Ok(()) => return Ok(last(wire, subject).await?.map(|(number, _)| number)),
            Err(PublishFault::Conflict) => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(later(format!("{subject} is written by too many at once")))
}

/// The number of what stands for many under a subject now; `None`: nothing is left there.
pub(super) async fn number_of(wire: &Wire, subject: &str) -> Result<Option<u64>, PublishFault> {
    Ok(last(wire, subject).await?.map(|(number, _)| number))
}

/// How many letters of their own a sender may have. A limit of size, not of right: it is looked at now and
/// then, and may be passed by some.
pub struct Quota {
    most: u64,
    counted: Mutex<HashMap<String, Counted>>,
}

/// A subject that this process has filed letters under.
#[derive(Default)]
struct Counted {
    letters: u64,
    /// Admitted since the stream was asked: it may not have them yet.
    fresh: u64,
    /// When the stream was asked how many there are.
    asked: Option<Instant>,
}

impl Counted {
    fn admit(&mut self, most: u64) -> bool {
        let admitted = self.letters <= most;
        self.fresh += u64::from(admitted);
        admitted
    }
}

/// From so many of one process on, the stream is asked how many there are, ...
const ASK_FROM: u64 = 100;
/// ... so often.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Senders that are remembered.
const MOST_SENDERS: usize = 50_000;

impl Quota {
    /// So many letters of each sender.
    pub fn new(most: u64) -> Self {
        Self { most, counted: Mutex::default() }
    }

    /// Whether a letter may lie by itself.
    pub async fn admits(&self, wire: &Wire, letter: &Letter) -> Result<bool, PublishFault> {
        let subject = letter.subject().to_string();
        let ask = {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            if counted.len() >= MOST_SENDERS && !counted.contains_key(&subject) {
                counted.clear();
            }
            let known = counted.entry(subject.clone()).or_default();
            known.letters += 1;
            let due = known.asked.is_none_or(|asked| asked.elapsed() >= ASK_EVERY);
            if known.letters < ASK_FROM.min(self.most + 1) || !due {
                return Ok(known.admit(self.most));
            }
            known.asked = Some(Instant::now());
            subject
        };
        let there = super::count(wire, &ask).await?;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = counted.get_mut(&ask) else { return Ok(there < self.most) };
        known.letters = there.max(known.fresh) + 1;
        known.fresh = 0;
        Ok(known.admit(self.most))
    }
}
