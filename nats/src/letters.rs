//! Letters in `DEAD`: found by number or filter, filed, taken out.

mod kept;
mod many;

pub use kept::{Original, forget, keep, keep_part, original};
pub use many::{MOST_PLACES, Quota, put_together, take_out};

use crate::{
    Fsynced, PublishFault, Wire, envelope, history,
    micro::{self, AGAIN, Refusal},
    model::ModelFault,
    publish::{self, Outgoing},
    streams::DEAD,
};
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use domain::{
    Letter, OrgKey, Reason, Stage,
    letter::{Source, is_filed},
    recall::{Ask, Redriven, SERVICE, Told},
    subject::{decode, encode},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeSet,
    ops::{ControlFlow, RangeInclusive},
    time::Duration,
};

/// Header: a row that is tried again because of a letter. See [`Retried`].
pub const RETRIED: &str = "Haystack-Letter";

/// Of which row, refused before, a message of `TELEMETRY` is another attempt: a letter about it is the
/// same letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retried {
    /// How often it was tried before.
    pub attempts: u32,
    /// The message in which it came first.
    pub sequence: u64,
    /// Its place there.
    pub row: u32,
    /// Its device or producer.
    pub sender: String,
}

impl Retried {
    /// What a letter is about.
    pub fn of(letter: &Letter) -> Self {
        let Source { sequence, row, .. } = letter.source;
        Self { attempts: letter.attempts, sequence, row, sender: letter.sender.clone() }
    }

    /// The header's value.
    pub fn value(&self) -> String {
        format!("{} {} {} {}", self.attempts, self.sequence, self.row, encode(&self.sender))
    }

    /// Reads the header's value.
    pub fn parse(value: &str) -> Option<Self> {
        let parts: Vec<&str> = value.split(' ').collect();
        let [attempts, sequence, row, sender] = parts[..] else { return None };
        Some(Self {
            attempts: attempts.parse().ok()?,
            sequence: sequence.parse().ok()?,
            row: row.parse().ok()?,
            sender: decode(sender)?,
        })
    }
}

/// A letter and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct Filed {
    /// Its number: the sequence in `DEAD`.
    pub number: u64,
    /// The letter; `Err`: a later release wrote it.
    pub letter: Result<Letter, String>,
}

/// Which letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// Where processing gave up.
    pub stage: Option<Stage>,
    /// Whose; `Some(None)`: of no known org.
    pub org: Option<Option<OrgKey>>,
    /// Device or producer.
    pub sender: Option<String>,
    /// Why.
    pub reason: Option<Reason>,
}

impl Filter {
    /// The stage is no part of it: a letter that stands for many has a token of its own there.
    fn subject(&self) -> String {
        let org = match &self.org {
            None => "*".to_owned(),
            Some(None) => domain::subject::NONE.to_owned(),
            Some(Some(org)) => encode(org.as_str()),
        };
        let sender = self.sender.as_deref().map_or_else(|| "*".to_owned(), encode);
        format!("dead.*.{org}.{sender}")
    }

    fn takes(&self, filed: &Filed) -> bool {
        match &filed.letter {
            Ok(letter) => {
                self.reason.is_none_or(|reason| reason == letter.reason)
                    && self.stage.is_none_or(|stage| stage == letter.stage)
            }
            Err(_) => self.reason.is_none() && self.stage.is_none(),
        }
    }
}

fn later(error: impl std::fmt::Display) -> PublishFault {
    PublishFault::Later(format!("{DEAD}: {error}"))
}

async fn dead(wire: &Wire) -> Result<Stream<()>, PublishFault> {
    wire.jetstream.get_stream_no_info(DEAD).await.map_err(later)
}

/// The letter of a number; `None` where none lies there.
pub async fn get(wire: &Wire, number: u64) -> Result<Option<Filed>, PublishFault> {
    if number == 0 {
        return Ok(None);
    }
    match dead(wire).await?.direct_get(number).await {
        // What was dropped is on record, and no letter any more.
        Ok(message) if !is_filed(&message.subject) => Ok(None),
        Ok(message) => Ok(Some(filed(number, &message.payload))),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(later(error)),
    }
}

fn filed(number: u64, body: &[u8]) -> Filed {
    Filed { number, letter: envelope::decode(body).map_err(|fault| fault.to_string()) }
}

/// The number of the newest letter; 0 where there never was one.
pub async fn newest(wire: &Wire) -> Result<u64, PublishFault> {
    match dead(wire).await?.direct_get_last_for_subject("dead.>").await {
        Ok(message) => Ok(message.sequence),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(0),
        Err(error) => Err(later(error)),
    }
}

/// A part of the letters that a filter takes, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The letters.
    pub letters: Vec<Filed>,
    /// Where to go on: behind this number; `None`: that was all.
    pub next: Option<u64>,
}

/// Letters behind a number and up to another, `most` at most; `looks` bounds what is looked at.
pub async fn page(
    wire: &Wire,
    filter: &Filter,
    (after, until): (u64, u64),
    (most, looks): (usize, usize),
) -> Result<Page, PublishFault> {
    let (stream, subject) = (dead(wire).await?, filter.subject());
    let mut page = Page { letters: Vec::new(), next: Some(after) };
    for _ in 0..looks {
        if page.letters.len() == most {
            return Ok(page);
        }
        let from = page.next.unwrap_or_default().saturating_add(1);
        let found = match stream.direct_get_next_for_subject(subject.as_str(), Some(from)).await {
            Ok(found) if found.sequence <= until => found,
            Err(error) if error.kind() != DirectGetErrorKind::NotFound => return Err(later(error)),
            _ => return Ok(Page { next: None, ..page }),
        };
        page.next = Some(found.sequence);
        if !is_filed(&found.subject) {
            continue;
        }
        let filed = filed(found.sequence, &found.payload);
        page.letters.extend(filter.takes(&filed).then_some(filed));
    }
    Ok(page)
}

/// Times that letters which came while others were read are read, too.
const PASSES: u32 = 5;

/// Which messages of a stream letters are about, of those that are asked for.
pub async fn about(
    wire: &Wire,
    stream: &str,
    sequences: &BTreeSet<u64>,
) -> Result<BTreeSet<u64>, ModelFault> {
    let (Some(first), Some(last)) = (sequences.first(), sequences.last()) else {
        return Ok(BTreeSet::new());
    };
    let places = places(wire, stream, &(*first..=*last)).await?;
    let about = places.into_iter().map(|(sequence, _)| sequence);
    Ok(about.filter(|sequence| sequences.contains(sequence)).collect())
}

/// What letters are about in some messages of a stream: sequence, and what in the message. A letter that was
/// dropped is one, too.
pub async fn places(
    wire: &Wire,
    stream: &str,
    messages: &RangeInclusive<u64>,
) -> Result<BTreeSet<(u64, u32)>, ModelFault> {
    let (mut found, mut many, mut seen) = (BTreeSet::new(), BTreeSet::new(), 0);
    for _ in 0..PASSES {
        let first = seen + 1;
        let range = history::Range {
            stream: DEAD,
            filter: "dead.>",
            first,
            last: u64::MAX,
            headers_only: true,
        };
        // Told by their ids alone.
        history::read(wire, &range, |message| {
            seen = message.position.sequence;
            if message.headers.contains_key(many::MANY) {
                many.insert(message.subject);
            }
            let id = message.headers.get("Nats-Msg-Id").map(String::as_str);
            let about = id.and_then(domain::letter::about_of);
            let told =
                about.filter(|(of, sequence, _)| *of == stream && messages.contains(sequence));
            found.extend(told.map(|(_, sequence, row)| (sequence, row)));
            ControlFlow::Continue(())
        })
        .await?;
        if seen < first && first > 1 {
            break;
        }
        // One that stands for many is replaced as others join it, and may be opened meanwhile: what it stood for
        // is filed behind what was read then.
        for subject in &many {
            let letter = many::last(wire, subject).await;
            let letter = letter.map_err(|fault| ModelFault::Server(fault.to_string()))?;
            let Some((_, letter)) = letter.filter(|(_, letter)| letter.source.stream == stream)
            else {
                continue;
            };
            let places = letter.many.iter().map(|(sequence, row, _)| (*sequence, *row));
            found.extend(places.filter(|(sequence, _)| messages.contains(sequence)));
        }
    }
    Ok(found)
}

/// Files a letter; its number. The same letter, filed twice within minutes, is one.
pub async fn file(wire: &Wire, letter: &Letter) -> Result<Fsynced, PublishFault> {
    let body = envelope::encode_named(letter);
    let mut message = Outgoing::new(letter.subject().to_string(), &letter.id(), body);
    if !letter.many.is_empty() {
        message = message.header(many::MANY, &letter.many.len().to_string());
    }
    publish::publish(wire, message).await
}

/// How many letters lie under a subject.
async fn count(wire: &Wire, subject: &str) -> Result<u64, PublishFault> {
    let found = dead(wire).await?.info_with_subjects(subject).await.map_err(later)?;
    let add = |sum: u64, (_, letters): (String, usize)| async move { Ok(sum + letters as u64) };
    found.map_err(later).try_fold(0, add).await
}

/// Takes a letter out, once what came of it is safe; one that is gone is no fault.
pub async fn remove(wire: &Wire, number: u64) -> Result<(), PublishFault> {
    publish::remove(wire, DEAD, &[number]).await
}

/// Longest wait for an answer about one letter.
const ANSWER: Duration = Duration::from_secs(15);
/// Letters of one request that are tried again at once.
const AT_ONCE: usize = 32;
/// Pause before a bridge that has too much to do is asked again, and how often it is.
const BUSY: (Duration, u32) = (Duration::from_millis(200), 20);

/// Asks a bridge about a letter.
pub async fn ask(wire: &Wire, ask: &Ask) -> Result<Told, Refusal> {
    let (name, id) = SERVICE;
    micro::ask(wire, format!("{name}.{id}.{}", ask.verb()), ask, ANSWER).await
}

/// What became of letters that were tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// On their way to the targets, or there.
    pub delivered: usize,
    /// Failed again.
    pub again: usize,
    /// Their targets have not told yet.
    pub waiting: usize,
    /// Not there any more: somebody else took them.
    pub gone: usize,
    /// Can't be tried again, or could not be now, and why.
    pub refused: Vec<(u64, Refusal)>,
}

impl Tally {
    /// Adds another's numbers.
    pub fn add(&mut self, more: Self) {
        self.delivered += more.delivered;
        self.again += more.again;
        self.waiting += more.waiting;
        self.gone += more.gone;
        self.refused.extend(more.refused);
    }
}

/// Tries letters again, some at once.
pub async fn redrive(wire: &Wire, numbers: impl IntoIterator<Item = u64>) -> Tally {
    let (mut tally, mut todo) = (Tally::default(), numbers.into_iter().collect::<Vec<u64>>());
    let mut rests: Vec<Rest> = Vec::new();
    loop {
        let tried = todo.len();
        let (more, unfolded) = redrive_all(wire, std::mem::take(&mut todo)).await;
        let hopeless = tried > MANY_TRIED && more.again > tried / 2;
        tally.add(more);
        for (numbers, rest) in unfolded {
            todo.extend(numbers);
            rests.extend(rest);
        }
        if !todo.is_empty() {
            continue;
        }
        let Some((number, subject)) = rests.pop() else { return tally };
        if hopeless {
            let text = "most of the messages that it stood for failed again: mend what is wrong with \
                        them, then try it again";
            tally.refused.push((number, Refusal::new(409, text)));
            continue;
        }
        // Its number changes with each message that is put to it.
        match many::number_of(wire, &subject).await {
            Ok(number) => todo.extend(number),
            Err(fault) => tally.refused.push((number, Refusal::new(503, fault.to_string()))),
        }
    }
}

/// What is left of a letter that stood for many: its number, and its subject.
type Rest = (u64, String);
/// From so many on it shows whether what came out of such a letter fails again.
const MANY_TRIED: usize = 100;

/// The same, of letters by themselves; those that came out of letters that stood for many.
async fn redrive_all(wire: &Wire, numbers: Vec<u64>) -> (Tally, Vec<(Vec<u64>, Option<Rest>)>) {
    let answers = stream::iter(numbers).map(|number| async move {
        let asked = Ask::Redrive { number };
        let mut tries = 0;
        loop {
            match ask(wire, &asked).await {
                Err(refusal)
                    if refusal.status == 503 && tries < BUSY.1 && refusal.text.ends_with(AGAIN) =>
                {
                    tries += 1;
                    tokio::time::sleep(BUSY.0).await;
                }
                answer => return (number, answer),
            }
        }
    });
    let mut answers = std::pin::pin!(answers.buffer_unordered(AT_ONCE));
    let (mut tally, mut unfolded) = (Tally::default(), Vec::new());
    while let Some((number, answer)) = answers.next().await {
        match answer {
            Ok(Told::Redriven(Redriven::Delivered)) => tally.delivered += 1,
            Ok(Told::Redriven(Redriven::Again { .. })) => tally.again += 1,
            Ok(Told::Redriven(Redriven::Waiting { .. })) => tally.waiting += 1,
            Ok(Told::Redriven(Redriven::Unfolded { numbers, rest, subject })) => {
                unfolded.push((numbers, rest.map(|number| (number, subject))));
            }
            Ok(Told::Shown(_) | Told::Dropped) => {
                let text = "a bridge of another release answered something else";
                tally.refused.push((number, Refusal::new(502, text)));
            }
            Err(refusal) if refusal.status == 404 => tally.gone += 1,
            Err(refusal) => tally.refused.push((number, refusal)),
        }
    }
    (tally, unfolded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_attempt_says_of_what() {
        let retried = Retried { attempts: 1, sequence: 17, row: 3, sender: "a b.c".to_owned() };
        assert_eq!(retried.value(), "1 17 3 a%20b%2Ec");
        assert_eq!(Retried::parse(&retried.value()), Some(retried));
        for no in ["", "1 2 3", "x 2 3 a", "1 2 3 a b", "1 -2 3 a"] {
            assert_eq!(Retried::parse(no), None, "{no}");
        }
    }

    #[test]
    fn a_filter_is_a_subject() {
        let all = Filter::default();
        assert_eq!(all.subject(), "dead.*.*.*");
        let some = Filter {
            stage: Some(Stage::Normalize),
            org: Some(None),
            sender: Some("a.b".to_owned()),
            reason: None,
        };
        assert_eq!(some.subject(), "dead.*._.a%2Eb");
        let org = Some(Some(OrgKey::parse("demo").unwrap()));
        assert_eq!(Filter { org, ..Filter::default() }.subject(), "dead.*.demo.*");
    }
}
