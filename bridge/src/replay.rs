//! History processed again: messages of `RAW`, in their order, by the rules that a replay names, into
//! `TELEMETRY` under its revision. What it gives replaces what the same messages gave before; what came
//! later stays.
//!
//! How far it is, is saved after the stream has what it gave. Whoever takes it up from there does the last
//! piece again, which changes nothing. Live readings go first: where they are late, a replay waits.

mod flow;

use crate::{Shared, letters};
use domain::{
    Batch, Clock, Deletion, Group, OrgKey, Origin, OriginStream, Position, Revision, SystemClock,
    TargetName, failpoint,
    normalize::TimeLimits,
    raw::{Pack, ProfileRef, RawMessage, Sender},
    replay::{Counts, Replay, Rules, State},
    subject::Subject,
};
use flow::Flow;
use futures_util::{StreamExt, stream};
use nats::{
    PublishFault,
    consume::read_placed,
    envelope, outcome,
    publish::{Outgoing, Patience, until_stored},
    records::{self, Kept, Record, RecordFault},
    replays::{named, range},
    retention,
    streams::RAW,
};
use rules::{Again, about, again, cut, group_bytes};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hasher},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// How often it is looked for a replay to work on.
const LOOK: Duration = Duration::from_secs(1);
/// How often an owner that rests says that it is there.
const TOUCH: Duration = Duration::from_secs(3);
/// Messages of `RAW` that are asked for at once.
const AHEAD: usize = 32;
/// A piece is published, and the place saved, after so many messages of `RAW`, ...
const PIECE_MESSAGES: u64 = 64;
/// ... or so many bytes of what comes of them, ...
const PIECE_BYTES: usize = 2 << 20;
/// ... or so many removals.
const PIECE_REMOVALS: usize = 5_000;
/// Removals of one message.
const MESSAGE_REMOVALS: usize = 1_000;
/// How often it is looked how late live readings are.
const LAG_EVERY: Duration = Duration::from_millis(200);
/// How often it is looked how much is on its way.
const FLOW_EVERY: Duration = Duration::from_millis(20);
/// A target that is further behind is away, in microseconds.
const AWAY: i64 = 300_000_000;
/// Who produces it: the last token of its subject.
const SOURCE: &str = "replay";

/// What a bridge needs to work on replays.
pub(crate) struct Settings {
    pub(crate) limits: TimeLimits,
    /// Whose lateness counts.
    pub(crate) targets: Vec<TargetName>,
    /// How late live readings may be.
    pub(crate) lag: Duration,
    /// Who works, in records: another each time the process begins.
    pub(crate) owner: String,
}

/// Works on replays until shutdown.
pub(crate) async fn run(shared: Shared, settings: Settings) {
    let patience = shared.patience("replays");
    // Those below it are over.
    let mut first_open = 1;
    while !shared.shutdown.is_cancelled() {
        let (now, owner) = (SystemClock.now(), &settings.owner);
        match records::take::<Replay>(&shared.wire, owner, now, &mut first_open).await {
            Ok(Some(kept)) => {
                let id = kept.record.id;
                let (named, looked, flow) = (BTreeSet::new(), None, Flow::new(settings.lag));
                let (shared, settings) = (&shared, &settings);
                let worker = Worker { shared, settings, kept, named, looked, flow };
                match worker.run().await {
                    Ok(()) => patience.moving(),
                    Err(fault) => tracing::warn!(replay = id, %fault, "a replay rests"),
                }
            }
            Ok(None) => patience.moving(),
            Err(fault) => tracing::debug!(%fault, "replays can't be looked at"),
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// Why work on a replay ends early.
#[derive(Debug, thiserror::Error)]
enum Rest {
    #[error(transparent)]
    Record(#[from] RecordFault),
    #[error(transparent)]
    Stream(#[from] PublishFault),
    #[error("stopping")]
    Stopping,
}

struct Worker<'a> {
    shared: &'a Shared,
    settings: &'a Settings,
    kept: Kept<Replay>,
    /// Versions that replays before this one named.
    named: BTreeSet<u32>,
    looked: Option<Instant>,
    flow: Flow,
}

impl Worker<'_> {
    async fn run(mut self) -> Result<(), Rest> {
        if !self.begin().await? {
            return Ok(());
        }
        self.named = named(&self.shared.wire, self.kept.record.number()).await?;
        let (first, last) = (self.kept.record.done + 1, self.kept.record.last);
        let wire = self.shared.wire.clone();
        let messages = stream::iter(first..=last).map(|sequence| {
            let wire = wire.clone();
            async move { (sequence, read_placed(&wire, RAW, sequence).await) }
        });
        let mut messages = std::pin::pin!(messages.buffered(AHEAD));
        let mut piece = Piece::default();
        while let Some((sequence, found)) = messages.next().await {
            if self.shared.shutdown.is_cancelled() {
                return self.give_back().await;
            }
            if let Some((position, body)) = found? {
                let strangers = self.strangers(position, &body).await?;
                self.take(position, &body, &strangers, &mut piece);
            }
            piece.done = sequence;
            piece.messages += 1;
            tokio::task::yield_now().await;
            let large = piece.amount() >= self.flow.piece();
            if (large || piece.is_full()) && !self.store(std::mem::take(&mut piece)).await? {
                return Ok(());
            }
        }
        if piece.messages > 0 && !self.store(piece).await? {
            return Ok(());
        }
        self.kept.record.state = State::Done;
        self.kept.record.owner = None;
        self.save().await.map(drop)
    }

    /// Finds out which messages it is about, where that is not known yet. `false`: it can't go on, because
    /// while it rested `RAW` has let go of some of them.
    async fn begin(&mut self) -> Result<bool, Rest> {
        if self.kept.record.first > 0 {
            let held = retention::held(&self.shared.wire, RAW).await;
            let held = held.map_err(|fault| PublishFault::Later(fault.to_string()))?;
            let replay = &mut self.kept.record;
            if replay.done >= replay.last || held.first <= replay.done + 1 {
                return Ok(true);
            }
            replay.state = State::Failed(format!(
                "RAW has let go of the messages from {} to {} while it rested; what is left can be \
                 processed by another replay",
                replay.done + 1,
                held.first - 1
            ));
            replay.owner = None;
            return self.save().await.map(|_| false);
        }
        let (first, last) = range(&self.shared.wire, &self.kept.record.spec).await?;
        let replay = &mut self.kept.record;
        (replay.first, replay.last, replay.done) = (first, last, first - 1);
        self.save().await.map(|_| true)
    }

    /// For whom senders that nobody knew were taken when their letters were redriven, and by which version: where
    /// each message is to be processed by its own, that is it.
    async fn strangers(
        &self,
        position: Position,
        body: &[u8],
    ) -> Result<BTreeMap<u16, Sender>, PublishFault> {
        let mut known = BTreeMap::new();
        if self.kept.record.spec.rules != Rules::Own {
            return Ok(known);
        }
        let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(body) else { return Ok(known) };
        for (index, entry) in (0u16..).zip(&pack.entries) {
            let sender = match &entry.sender {
                None => self.shared.directory.read().sender(&entry.name),
                Some(_) => None,
            };
            let Some(sender) = sender else { continue };
            let place = (position.sequence, index.into());
            if let Some(version) = letters::taken_by(&self.shared.wire, &sender.org, place).await? {
                let profile = ProfileRef { version, ..sender.profile };
                known.insert(index, Sender { profile, ..sender });
            }
        }
        Ok(known)
    }

    /// Processes one message of `RAW`.
    fn take(
        &self,
        position: Position,
        body: &[u8],
        strangers: &BTreeMap<u16, Sender>,
        piece: &mut Piece,
    ) {
        let replay = &self.kept.record;
        // What can't be read now is a letter of live normalizing.
        let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(body) else { return };
        let directory = self.shared.directory.read();
        for (index, entry) in (0..).zip(&pack.entries) {
            piece.counts.looked_at += 1;
            let known = strangers.get(&index).map(|sender| {
                let sender = Some(sender.clone());
                RawMessage { sender, ..entry.clone() }
            });
            let entry = known.as_ref().unwrap_or(entry);
            let Some(sender) = about(entry, &replay.spec, &directory) else { continue };
            piece.counts.taken += 1;
            let Position { sequence, stored_at: accepted_at } = position;
            let origin = Origin { stream: OriginStream::Raw, sequence, index, accepted_at };
            let rules = (&replay.spec, Revision(replay.id));
            let known = (&*directory, self.settings.limits);
            let given = again(entry, &sender, origin, rules, known, &self.named);
            piece.add(given, &sender.device);
        }
    }

    /// Puts a piece into the stream and notes how far the replay is; `false`: somebody stopped it.
    async fn store(&mut self, piece: Piece) -> Result<bool, Rest> {
        self.let_live_readings_pass().await?;
        let Piece { done, counts, failure, orgs, .. } = piece;
        for (org, OrgPiece { groups, removals }) in orgs {
            let (mut last, mut amount) = (0, removals.len() as u64);
            for batch in batches(groups, &removals) {
                amount += batch.samples() as u64;
                let message = message(&org, self.kept.record.id, done, &batch);
                let stored = until_stored(&self.shared.wire, message, &self.patience()).await;
                last = stored.map_err(|_| Rest::Stopping)?.sequence();
            }
            self.flow.send(org, last, amount, std::time::Instant::now());
        }
        failpoint::hit(failpoint::BEFORE_REPLAY_SAVED);
        let replay = &mut self.kept.record;
        replay.done = done;
        replay.counts = replay.counts.plus(counts);
        replay.last_failure = failure.or(replay.last_failure.take());
        replay.waits = None;
        self.save().await
    }

    fn patience(&self) -> Patience {
        self.shared.patience(format!("replay/{}", self.kept.record.id))
    }

    /// Writes the record; `false`: somebody else did, who stopped it or took it over.
    async fn save(&mut self) -> Result<bool, Rest> {
        self.kept.record.touched_at = SystemClock.now();
        match records::put(&self.shared.wire, self.kept.clone()).await {
            Ok(kept) => {
                self.kept = kept;
                Ok(true)
            }
            Err(RecordFault::Conflict(_, id)) => {
                tracing::info!(replay = id, "somebody else took it");
                Ok(false)
            }
            Err(fault) => Err(fault.into()),
        }
    }

    /// Lets another bridge take it up at once.
    async fn give_back(mut self) -> Result<(), Rest> {
        self.kept.record.owner = None;
        self.save().await.map(drop)
    }

    /// Waits while live readings are later in some target than they may be, or so much of the replay is on its
    /// way that they would be.
    async fn let_live_readings_pass(&mut self) -> Result<(), Rest> {
        let mut touched = Instant::now();
        loop {
            let late = if self.looked.is_some_and(|at| at.elapsed() < LAG_EVERY) {
                None
            } else {
                self.look().await;
                self.late().await
            };
            if late.is_none() && self.flow.has_room() {
                return Ok(());
            }
            if self.shared.shutdown.is_cancelled() {
                return Err(Rest::Stopping);
            }
            if touched.elapsed() > TOUCH {
                let full = || "what it gave before is on its way to the targets".to_owned();
                self.kept.record.waits = Some(late.unwrap_or_else(full));
                if !self.save().await? {
                    return Err(
                        RecordFault::Conflict(Replay::NAME, self.kept.record.number()).into()
                    );
                }
                touched = Instant::now();
            }
            sleep(FLOW_EVERY).await;
            self.look().await;
        }
    }

    /// Looks how far the targets are with what was sent. One that is away catches up by itself.
    async fn look(&mut self) {
        for org in self.flow.orgs() {
            let mut done = u64::MAX;
            for target in &self.settings.targets {
                let position = outcome::position(&self.shared.wire, target, &org).await;
                let position = match position {
                    Ok(None) => continue,
                    Ok(Some(position)) => position,
                    // Nobody knows: it is looked again.
                    Err(_) => return,
                };
                let Some(since) = position.waiting_since else { continue };
                if SystemClock.now().micros() - since.micros() < AWAY {
                    done = done.min(position.done);
                }
            }
            self.flow.applied(&org, done, std::time::Instant::now());
        }
    }

    /// Which target is too late, if one is.
    async fn late(&mut self) -> Option<String> {
        self.looked = Some(Instant::now());
        let orgs = self.shared.directory.read().orgs();
        for target in &self.settings.targets {
            for org in &orgs {
                let Ok(Some(position)) =
                    outcome::position(&self.shared.wire, target, &org.key).await
                else {
                    continue;
                };
                let Some(since) = position.waiting_since else { continue };
                let late = SystemClock.now().micros() - since.micros();
                // One that is away catches up by itself; waiting for it would wait for days.
                if (self.settings.lag.as_micros() as i64..AWAY).contains(&late) {
                    let seconds = late / 1_000_000;
                    return Some(format!("{target} is {seconds} s behind with org {}", org.key));
                }
            }
        }
        None
    }
}

/// What came of some messages.
#[derive(Default)]
struct Piece {
    done: u64,
    messages: u64,
    bytes: usize,
    removals: usize,
    counts: Counts,
    failure: Option<String>,
    orgs: BTreeMap<OrgKey, OrgPiece>,
}

#[derive(Default)]
struct OrgPiece {
    groups: Vec<Group>,
    removals: Vec<Deletion>,
}

impl Piece {
    fn is_full(&self) -> bool {
        self.messages >= PIECE_MESSAGES
            || self.bytes >= PIECE_BYTES
            || self.removals >= PIECE_REMOVALS
    }

    /// Readings and removals.
    fn amount(&self) -> u64 {
        self.counts.readings + self.counts.removals
    }

    fn add(&mut self, given: Again, device: &domain::DeviceId) {
        let Again { org, group, removals, failure } = given;
        if let Some(failure) = failure {
            self.counts.failed += 1;
            self.failure = Some(format!("{device}: {failure}"));
        }
        let Some(org) = org else { return };
        self.counts.removals += removals.len() as u64;
        self.removals += removals.len();
        let of_org = self.orgs.entry(org).or_default();
        of_org.removals.extend(removals);
        if let Some(group) = group {
            self.counts.readings += group.samples.len() as u64;
            self.bytes += group_bytes(&group);
            of_org.groups.push(group);
        }
    }
}

/// Messages of one org: its readings, and what is taken away.
fn batches(groups: Vec<Group>, removals: &[Deletion]) -> Vec<Batch> {
    let mut batches = cut(groups);
    for removals in removals.chunks(MESSAGE_REMOVALS) {
        batches.push(Batch { deletions: removals.to_vec(), ..Batch::default() });
    }
    batches
}

fn message(org: &OrgKey, id: u16, done: u64, batch: &Batch) -> Outgoing {
    let subject = Subject::Telemetry { org: org.to_string(), source: SOURCE.to_owned() };
    let payload = envelope::encode(batch);
    let mut hasher = DefaultHasher::new();
    hasher.write(&payload);
    let name = format!("replay/{id}/{done}/{org}/{:016x}", hasher.finish());
    Outgoing::new(subject.to_string(), &name, payload).oldest_accepted(batch.oldest_accepted())
}
