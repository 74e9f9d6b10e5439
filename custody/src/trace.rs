//! The way of one reading: from the message in which it came to its row in every target, or to what became of
//! it instead.

mod fate;
mod story;

pub use story::{Fate, MOST_READINGS, Message, Published, Reading, Received, Story};

use crate::{Fault, compare::Target};
use domain::{
    Batch, EntityId, Letter, OrgKey, Origin, OriginStream, Position, Row, RowVersion, Sample,
    Stage, Timestamp,
    directory::Directory,
    raw::{Pack, RawMessage},
    replay::Replay,
    subject::telemetry_of,
};
use nats::{
    Wire,
    consume::read_placed,
    envelope,
    history::{self, Range},
    letters::{self, Filter},
    model::REQUEST_ID,
    pack::PLACES,
    publish::sequence_since,
    records,
    streams::{RAW, TELEMETRY},
};
use std::{collections::BTreeMap, ops::ControlFlow};
use store::{OrgRef, archive, read};

/// Messages of `TELEMETRY` behind its origin that are searched for a reading.
const SEARCHED: u64 = 50_000;
/// The server's clock may step; it is looked from so much earlier, in microseconds.
const CLOCKS: i64 = 1_000_000;
/// Letters that are looked at for one sender.
const LETTERS: usize = 10_000;

/// Device messages of one message of `RAW`, or of one device, that are followed.
pub const MESSAGES: usize = 50;
/// How far from the moment that was asked for a device's messages are looked for, in microseconds.
pub const AROUND: i64 = 600_000_000;
/// How far back a request is looked for, in microseconds.
const REQUESTS: i64 = 24 * 3_600_000_000;

/// What is asked, and with what.
#[derive(Clone, Copy)]
pub struct Tracer<'a> {
    /// The stream server.
    pub wire: &'a Wire,
    /// What is registered.
    pub directory: &'a Directory,
    /// The primary first.
    pub targets: &'a [Target<'a>],
}

impl Tracer<'_> {
    /// The org of a key as its tables know it.
    pub fn org(&self, key: &OrgKey) -> Option<OrgRef> {
        let org = self.directory.org(key)?;
        Some(OrgRef { id: org.id, key: org.key.clone() })
    }

    /// What stands in the targets under some keys: the stories of the messages that gave it, each with those
    /// readings alone.
    pub async fn keys(
        &self,
        org: &OrgRef,
        keys: &[(EntityId, Timestamp)],
    ) -> Result<Vec<Story>, Fault> {
        let mut found: BTreeMap<(EntityId, Timestamp, RowVersion), Row> = BTreeMap::new();
        for target in self.targets {
            // One that is away says so where the fates are asked for.
            for row in read::at(target.database, org, keys).await.unwrap_or_default() {
                found.entry((row.entity, row.ts, row.version)).or_insert(row);
            }
        }
        let mut stories = Vec::new();
        for ((entity, ts, version), row) in found {
            let (origin, revision) = version.unpack();
            let only = |reading: &Row| (reading.entity, reading.ts) == (entity, ts);
            let mut story = self.story(org, origin, Some(revision.0), &only).await?;
            if story.readings.is_empty() {
                // Its message is gone from the streams.
                let refused = self.refused(org).await?;
                let reading = self.reading(org, row, None, &refused).await?;
                story.readings.push(reading);
            }
            // Who may see this reading may not see the others of its message.
            story.letters.retain(|(_, letter)| {
                letter.refused_row().is_none_or(|(of, at, _)| (of, at) == (entity, ts))
            });
            stories.push(story);
        }
        Ok(stories)
    }

    /// A message, or the first [`MESSAGES`] of a pack.
    pub async fn message(&self, message: Message) -> Result<Vec<Story>, Fault> {
        match message {
            Message::Raw(sequence, Some(index)) => {
                Ok(self.raw(sequence, index).await?.into_iter().collect())
            }
            Message::Raw(sequence, None) => {
                let mut stories = Vec::new();
                while stories.len() < MESSAGES
                    && let Some(story) = self.raw(sequence, stories.len() as u16).await?
                {
                    stories.push(story);
                }
                Ok(stories)
            }
            Message::Telemetry(sequence) => {
                Ok(self.telemetry(sequence).await?.into_iter().collect())
            }
        }
    }

    /// What a request to the API brought, within the day before `now`.
    pub async fn request(&self, id: &str, now: Timestamp) -> Result<Vec<Story>, Fault> {
        let since = now.plus_micros(-REQUESTS);
        let mut stories = Vec::new();
        for (sequence, _) in of_request(self.wire, TELEMETRY, "telemetry.*.api", id, since).await? {
            stories.extend(self.telemetry(sequence).await?);
        }
        for (sequence, (first, end)) in of_request(self.wire, RAW, "raw.http.>", id, since).await? {
            for index in (first..end).take(MESSAGES) {
                let Some(story) = self.raw(sequence, index).await? else { break };
                stories.push(story);
            }
        }
        Ok(stories)
    }

    /// A device's message by its place in `RAW`; `None`: neither the stream nor the archive has it.
    pub async fn raw(&self, sequence: u64, index: u16) -> Result<Option<Story>, Fault> {
        let Some(received) = self.received(sequence, index, None).await? else { return Ok(None) };
        let org = received.sender.as_ref().and_then(|(org, ..)| self.org(org));
        let org = if let Some(org) = org {
            org
        } else {
            let letters = self.letters(Stage::Normalize, None, &received.name).await?;
            let letters = about(letters, RAW, sequence, Some(u32::from(index)));
            // Registered meanwhile, and its letter redriven: then it went to the device's org.
            let now = self.directory.device_named(&received.name);
            let now = now.filter(|_| letters.is_empty()).and_then(|device| self.org(&device.org));
            let Some(org) = now else {
                return Ok(Some(Story { received: Some(received), letters, ..Story::default() }));
            };
            org
        };
        let mut story = self.story(&org, received.origin, None, &|_| true).await?;
        story.received = Some(received);
        Ok(Some(story))
    }

    /// A message of `TELEMETRY`; `None`: the stream has it not.
    pub async fn telemetry(&self, sequence: u64) -> Result<Option<Story>, Fault> {
        let stored = read_one(self.wire, TELEMETRY, sequence).await?;
        let Some(stored) = stored else { return Ok(None) };
        let org = stored.subject.split('.').nth(1).and_then(domain::subject::decode);
        let org = org.and_then(|key| self.org(&OrgKey::parse(&key).ok()?));
        let Some(org) = org else { return Ok(None) };
        let mut story = Story::default();
        let letters = self.of_telemetry(&org, &mut story, sequence).await?;
        self.hear(&org, &mut story, &stored, &|_, _| true, &|_| true, &letters).await?;
        Ok(Some(story))
    }

    /// Device messages of a sender that were accepted in a span of time, by their places.
    pub async fn of_device(
        &self,
        name: &str,
        (from, to): (Timestamp, Timestamp),
        most: usize,
    ) -> Result<Vec<(u64, u16)>, Fault> {
        let Some(first) = sequence_since(self.wire, RAW, "raw.>", from).await? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        let range =
            Range { stream: RAW, filter: "raw.>", first, last: u64::MAX, headers_only: false };
        history::read(self.wire, &range, |message| {
            if message.position.stored_at > to {
                return ControlFlow::Break(());
            }
            if let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(&message.body) {
                let entries = (0..).zip(&pack.entries).filter(|(_, entry)| is_of(entry, name));
                found.extend(entries.map(|(index, _)| (message.position.sequence, index)));
            }
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        found.truncate(most);
        Ok(found)
    }

    /// What came of an origin, as far as `wanted` takes its readings.
    async fn story(
        &self,
        org: &OrgRef,
        origin: Origin,
        revision: Option<u16>,
        wanted: &(dyn Fn(&Row) -> bool + Sync),
    ) -> Result<Story, Fault> {
        let mut story = Story::default();
        if origin.stream == OriginStream::Telemetry {
            let letters = self.of_telemetry(org, &mut story, origin.sequence).await?;
            if let Some(stored) = read_one(self.wire, TELEMETRY, origin.sequence).await? {
                self.hear(org, &mut story, &stored, &|_, _| true, wanted, &letters).await?;
            }
            return Ok(story);
        }
        story.received =
            self.received(origin.sequence, origin.index, Some(origin.accepted_at)).await?;
        let name = story.received.as_ref().map(|received| received.name.clone());
        if let Some(name) = &name {
            let letters = self.letters(Stage::Normalize, Some(&org.key), name).await?;
            let row = Some(u32::from(origin.index));
            story.letters = about(letters, RAW, origin.sequence, row);
        }
        let device = story.received.as_ref().and_then(|received| received.sender.clone());
        let refused = match device {
            Some((_, device, ..)) => {
                self.letters(Stage::Ingest, Some(&org.key), device.as_str()).await?
            }
            None => self.refused(org).await?,
        };
        // A replay published it when it ran, everything else soon after it came.
        let replay = match revision.filter(|revision| *revision > 0) {
            Some(id) => records::get::<Replay>(self.wire, id.into()).await.ok().flatten(),
            None => None,
        };
        let since = replay.map_or(origin.accepted_at, |kept| kept.record.began_at);
        let filter = telemetry_of(&org.key);
        let from = since.plus_micros(-CLOCKS);
        let Some(first) = sequence_since(self.wire, TELEMETRY, &filter, from).await? else {
            return Ok(story);
        };
        let (mut found, mut searched) = (Vec::new(), 0);
        let range = Range {
            stream: TELEMETRY,
            filter: &filter,
            first,
            last: u64::MAX,
            headers_only: false,
        };
        history::read(self.wire, &range, |message| {
            searched += 1;
            if let Ok(batch) = envelope::decode::<Batch>(&message.body)
                && batch.groups.iter().any(|group| {
                    group.origin == Some(origin)
                        && revision.is_none_or(|revision| group.revision.0 == revision)
                })
            {
                found.push(message);
                // The same message normalized twice is rare, and changes nothing.
                if revision.is_some() {
                    return ControlFlow::Break(());
                }
            }
            if searched < SEARCHED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        story.searched = (searched >= SEARCHED).then_some(searched);
        let same = |its: Origin, its_revision: u16| {
            its == origin && revision.is_none_or(|revision| revision == its_revision)
        };
        for message in found {
            self.hear(org, &mut story, &message, &same, wanted, &refused).await?;
        }
        Ok(story)
    }

    /// Letters about rows of an org that a target refused.
    async fn refused(&self, org: &OrgRef) -> Result<Vec<(u64, Letter)>, Fault> {
        let org = Some(Some(org.key.clone()));
        let filter = Filter { stage: Some(Stage::Ingest), org, ..Filter::default() };
        let page = letters::page(self.wire, &filter, (0, u64::MAX), (LETTERS, LETTERS)).await?;
        let letters = page.letters.into_iter();
        Ok(letters.filter_map(|filed| Some((filed.number, filed.letter.ok()?))).collect())
    }

    /// Letters about a message of `TELEMETRY`, which are noted, and all of its producer.
    async fn of_telemetry(
        &self,
        org: &OrgRef,
        story: &mut Story,
        sequence: u64,
    ) -> Result<Vec<(u64, Letter)>, Fault> {
        let letters = self.refused(org).await?;
        story.letters = about(letters.clone(), TELEMETRY, sequence, None);
        Ok(letters)
    }

    /// Takes in what a message of `TELEMETRY` says.
    async fn hear(
        &self,
        org: &OrgRef,
        story: &mut Story,
        stored: &history::Stored,
        of: &(dyn Fn(Origin, u16) -> bool + Sync),
        wanted: &(dyn Fn(&Row) -> bool + Sync),
        refused: &[(u64, Letter)],
    ) -> Result<(), Fault> {
        let Ok(batch) = envelope::decode::<Batch>(&stored.body) else { return Ok(()) };
        let here = stored.position.as_origin();
        for group in batch.groups {
            let origin = group.origin.unwrap_or(here);
            if !of(origin, group.revision.0) {
                continue;
            }
            let Ok(version) = RowVersion::new(&origin, group.revision) else { continue };
            let row = |sample: Sample| Row {
                entity: sample.entity,
                ts: sample.ts,
                version,
                values: sample.values,
            };
            let rows: Vec<Row> =
                group.samples.into_iter().map(row).filter(|row| wanted(row)).collect();
            story.published.push(Published {
                position: stored.position,
                subject: stored.subject.clone(),
                revision: group.revision.0,
                profile_version: group.profile_version,
                request_id: stored.headers.get(REQUEST_ID).cloned(),
                readings: rows.len(),
            });
            for row in rows {
                if story.readings.len() == MOST_READINGS {
                    story.more += 1;
                    continue;
                }
                let sequence = Some(stored.position.sequence);
                story.readings.push(self.reading(org, row, sequence, refused).await?);
            }
        }
        Ok(())
    }

    async fn received(
        &self,
        sequence: u64,
        index: u16,
        accepted_at: Option<Timestamp>,
    ) -> Result<Option<Received>, Fault> {
        let told = |position: Position, entry: RawMessage<'_>, archived| Received {
            origin: Origin {
                stream: OriginStream::Raw,
                sequence,
                index,
                accepted_at: position.stored_at,
            },
            name: entry.name.into_owned(),
            sender: entry.sender.map(|sender| {
                let profile = sender.profile;
                (sender.org, sender.device, profile.id.to_string(), profile.version)
            }),
            received_at: entry.received_at,
            content_type: entry.content_type.into_owned(),
            bytes: entry.payload.len(),
            archived,
        };
        if let Some((position, body)) = read_placed(self.wire, RAW, sequence).await? {
            let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(&body) else { return Ok(None) };
            let entry = pack.entries.into_iter().nth(index.into());
            return Ok(entry.map(|entry| told(position, entry, false)));
        }
        for target in self.targets {
            let found = archive::find(target.database, sequence, index, accepted_at).await;
            if let Ok(Some((position, entry))) = found {
                return Ok(Some(told(position, entry, true)));
            }
        }
        Ok(None)
    }

    async fn letters(
        &self,
        stage: Stage,
        org: Option<&OrgKey>,
        sender: &str,
    ) -> Result<Vec<(u64, Letter)>, Fault> {
        let (org, sender) = (Some(org.cloned()), Some(sender.to_owned()));
        let filter = Filter { stage: Some(stage), org, sender, reason: None };
        let page = letters::page(self.wire, &filter, (0, u64::MAX), (LETTERS, LETTERS)).await?;
        let letters = page.letters.into_iter();
        Ok(letters.filter_map(|filed| Some((filed.number, filed.letter.ok()?))).collect())
    }
}

fn is_of(entry: &RawMessage<'_>, name: &str) -> bool {
    entry.name == name || entry.sender.as_ref().is_some_and(|sender| sender.device.as_str() == name)
}

/// Letters about a message, or one thing in it.
fn about(
    letters: Vec<(u64, Letter)>,
    stream: &str,
    sequence: u64,
    row: Option<u32>,
) -> Vec<(u64, Letter)> {
    let of = |letter: &Letter| letter.is_about(stream, sequence, row);
    letters.into_iter().filter(|(_, letter)| of(letter)).collect()
}

async fn read_one(
    wire: &Wire,
    stream: &str,
    sequence: u64,
) -> Result<Option<history::Stored>, Fault> {
    if read_placed(wire, stream, sequence).await?.is_none() {
        return Ok(None);
    }
    let mut found = None;
    let range = Range { stream, filter: ">", first: sequence, last: sequence, headers_only: false };
    history::read(wire, &range, |message| {
        found = Some(message);
        ControlFlow::Break(())
    })
    .await?;
    Ok(found)
}

/// Messages of a stream that bear a request's id, from a moment on: their sequences, and the places in them
/// of what it brought, the last one not included.
async fn of_request(
    wire: &Wire,
    stream: &str,
    filter: &str,
    request_id: &str,
    since: Timestamp,
) -> Result<Vec<(u64, (u16, u16))>, Fault> {
    let Some(first) = sequence_since(wire, stream, filter, since).await? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let range = Range { stream, filter, first, last: u64::MAX, headers_only: true };
    history::read(wire, &range, |message| {
        let header = |name: &str| message.headers.get(name).map(String::as_str).unwrap_or_default();
        let mut places = header(PLACES).split(',').map(|place| place.parse().unwrap_or(0));
        for (number, id) in header(REQUEST_ID).split(',').enumerate() {
            let place: u16 = places.next().unwrap_or(0);
            if id == request_id {
                let next = header(PLACES).split(',').nth(number + 1);
                let end = next.and_then(|next| next.parse().ok()).unwrap_or(u16::MAX);
                found.push((message.position.sequence, (place, end)));
            }
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(found)
}
