//! A device's message that could not be normalized, once more: by the version of the device type that is its
//! own for ever, or, where nobody knew the sender, by the one that is in force now.
//!
//! Two values must never have one version. A known sender's message gives the same whenever it is normalized
//! again. An unknown sender's could give something else tomorrow: so what it gives stands under a subject of
//! its own, of which the stream takes one message only, and the next attempt takes the sender for the same.

use super::{Failed, away, refused::SOURCE};
use crate::{Shared, normalize::register};
use domain::{
    Batch, Clock, Group, Letter, OrgKey, Origin, Position, Reason, Revision, SystemClock,
    normalize::TimeLimits,
    raw::{Pack, ProfileRef, Sender},
    subject::Subject,
};
use nats::{
    PublishFault, Wire,
    consume::read_again,
    envelope,
    letters::{self, Original},
    micro::Refusal,
    model,
    publish::{Outgoing, publish},
    streams::TELEMETRY,
};
use rules::{Known, Normalized, NotYet, Stored, normalize_message, normalize_one};
use std::{collections::BTreeMap, time::Duration};

/// How long what a message speaks of may take to be registered.
const REGISTER: Duration = Duration::from_secs(6);

/// Normalizes it again and stores what comes of it; what failed again.
pub(super) async fn again(
    shared: &Shared,
    limits: TimeLimits,
    letter: &Letter,
) -> Result<Option<Failed>, Refusal> {
    let Some(origin) = letter.origin else {
        return Err(Refusal::new(
            409,
            "the letter says not what it is about: it can't be tried again",
        ));
    };
    let original = letters::original(&shared.wire, letter).await;
    let Original { body, row: index, .. } =
        original.map_err(|fault| away(&fault))?.ok_or_else(gone)?;
    // Whatever was written before this was asked is known here.
    model::look(&shared.wire, |_| ())
        .await
        .map_err(|fault| Refusal::new(503, fault.to_string()))?;
    if letter.reason == Reason::Undecodable {
        return whole(shared, limits, letter, origin, &body).await;
    }
    let pack: Pack<'_> = match envelope::decode_borrowed(&body) {
        Ok(pack) => pack,
        Err(fault) => return Ok(Some(failed(letter, Reason::Undecodable, fault.to_string()))),
    };
    let mut entry = pack.entries.into_iter().nth(index).ok_or_else(gone)?;
    let stranger = entry.sender.is_none();
    if stranger {
        let now = shared.directory.read().sender(&entry.name);
        entry.sender = letter.taken_for.clone().or(now);
    }
    let normalize = |known: Known<'_>| normalize_one(&entry, origin, known, SystemClock.now());
    let mut given = settled(shared, limits, normalize).await?;
    let mut taken_for = None;
    if stranger && let Some(sender) = entry.sender.clone() {
        let (first, by) = once(shared, letter, sender, &given).await?;
        if by != entry.sender {
            // Another was faster, with another version: what it left undone counts.
            entry.sender.clone_from(&by);
            let normalize =
                |known: Known<'_>| normalize_one(&entry, origin, known, SystemClock.now());
            given = settled(shared, limits, normalize).await?;
        }
        taken_for = by.filter(|_| first);
    } else {
        publish_all(shared, letter, &mut given).await?;
    }
    Ok(given.letters.into_iter().next().map(|fault| {
        let letter = Letter { taken_for: taken_for.or(letter.taken_for.clone()), ..letter.clone() };
        failed(&letter, fault.reason, fault.detail)
    }))
}

fn failed(letter: &Letter, reason: Reason, detail: String) -> Failed {
    let letter = letter.again(reason, detail, SystemClock.now());
    Failed { letter, number: None }
}

fn gone() -> Refusal {
    Refusal::new(
        409,
        "RAW does not have its message any more: it can't be tried again; `haystack dead-letters drop` \
         takes the letter away",
    )
}

/// A message of which nothing could be read.
async fn whole(
    shared: &Shared,
    limits: TimeLimits,
    letter: &Letter,
    origin: Origin,
    body: &[u8],
) -> Result<Option<Failed>, Refusal> {
    let position = Position { sequence: origin.sequence, stored_at: origin.accepted_at };
    let stored = Stored { position, subject: &letter.sender, body };
    let normalize = |known: Known<'_>| normalize_message(stored, known, SystemClock.now());
    let mut given = settled(shared, limits, normalize).await?;
    if let Some(fault) = given.letters.iter().find(|it| it.reason == Reason::Undecodable) {
        return Ok(Some(failed(letter, fault.reason, fault.detail.clone())));
    }
    publish_all(shared, letter, &mut given).await?;
    for letter in &given.letters {
        // Where RAW has let go of it, the new letter has its own part of what was kept.
        letters::keep_part(&shared.wire, letter, position, body)
            .await
            .map_err(|fault| away(&fault))?;
        letters::file(&shared.wire, letter).await.map_err(|fault| away(&fault))?;
    }
    Ok(None)
}

/// Normalizes, registering first what is to be registered.
async fn settled(
    shared: &Shared,
    limits: TimeLimits,
    normalize: impl Fn(Known<'_>) -> Result<Normalized, NotYet>,
) -> Result<Normalized, Refusal> {
    let attempt = |created| {
        let directory = shared.directory.read();
        normalize(Known { directory: &directory, limits, settled: true, created })
    };
    let strangers = match attempt(false) {
        Ok(given) => return Ok(given),
        Err(NotYet::Unsettled) => {
            return Err(Refusal::new(503, "the model is not read yet; try again"));
        }
        Err(NotYet::Create(strangers)) => strangers,
    };
    let registered = tokio::time::timeout(REGISTER, register(shared, strangers)).await;
    if registered.ok().flatten().is_none() {
        return Err(Refusal::new(
            503,
            "what the message speaks of is not registered yet; try again",
        ));
    }
    model::look(&shared.wire, |_| ())
        .await
        .map_err(|fault| Refusal::new(503, fault.to_string()))?;
    attempt(true).map_err(|_| Refusal::new(503, "the model is not read yet; try again"))
}

/// What is published, by org. A redrive has the revision of its letter.
fn batches(letter: &Letter, given: &Normalized) -> BTreeMap<OrgKey, Batch> {
    let mut batches: BTreeMap<OrgKey, Batch> = BTreeMap::new();
    for (org, group) in &given.groups {
        let mut group = group.clone();
        group.revision = Revision(letter.revision);
        batches.entry(org.clone()).or_default().groups.push(group);
    }
    for (org, presence) in &given.presences {
        batches.entry(org.clone()).or_default().presences.push(presence.clone());
    }
    batches
}

async fn publish_all(
    shared: &Shared,
    letter: &Letter,
    given: &mut Normalized,
) -> Result<(), Refusal> {
    for (org, batch) in batches(letter, given) {
        let subject = Subject::Telemetry { org: org.to_string(), source: SOURCE.to_owned() };
        let message = Outgoing::without_id(subject.to_string(), envelope::encode(&batch));
        let message = message.oldest_accepted(batch.oldest_accepted());
        publish(&shared.wire, message).await.map_err(|fault| away(&fault))?;
    }
    Ok(())
}

/// Publishes what an unknown sender's message gives, unless an earlier try of the same attempt did.
/// Whether there is anything now, and for whom the sender was taken.
async fn once(
    shared: &Shared,
    letter: &Letter,
    sender: Sender,
    given: &Normalized,
) -> Result<(bool, Option<Sender>), Refusal> {
    let batch = batches(letter, given).remove(&sender.org);
    let place = (letter.source.sequence, letter.source.row);
    let subject = subject(&sender.org, place, letter.attempts);
    if let Some(batch) = batch {
        let message = Outgoing::expecting(&subject, 0, envelope::encode(&batch));
        match publish(&shared.wire, message.oldest_accepted(batch.oldest_accepted())).await {
            Ok(_) => return Ok((true, Some(sender))),
            Err(PublishFault::Conflict) => {}
            Err(fault) => return Err(away(&fault)),
        }
    }
    let earlier = given_before(&shared.wire, &subject).await.map_err(|fault| away(&fault))?;
    let Some(group) = earlier else { return Ok((false, Some(sender))) };
    let version = group.map_or(sender.profile.version, |group| group.profile_version);
    let profile = ProfileRef { version, ..sender.profile };
    Ok((true, Some(Sender { profile, ..sender })))
}

/// Where what an unknown sender's message gives stands: the stream takes it once.
fn subject(org: &OrgKey, (sequence, row): (u64, u32), attempts: u32) -> String {
    let source = format!("{SOURCE}-{sequence}-{row}-{attempts}");
    Subject::Telemetry { org: org.to_string(), source }.to_string()
}

/// What was published there; the inner `None`: nothing with a version.
async fn given_before(wire: &Wire, subject: &str) -> Result<Option<Option<Group>>, PublishFault> {
    let Some(earlier) = nats::publish::last(wire, TELEMETRY, subject).await? else {
        return Ok(None);
    };
    let body = read_again(wire, TELEMETRY, earlier.sequence).await?;
    let batch = body.and_then(|body| envelope::decode::<Batch>(&body).ok());
    Ok(Some(batch.and_then(|batch| batch.groups.into_iter().next())))
}

/// Attempts that are looked at: one that was tried more often and gave something only then is rare.
const ATTEMPTS: u32 = 4;

/// By which version a message of an unknown sender was normalized when its letter was redriven; `None`: it was
/// not, as far as `TELEMETRY` reaches.
pub(crate) async fn taken_by(
    wire: &Wire,
    org: &OrgKey,
    place: (u64, u32),
) -> Result<Option<u32>, PublishFault> {
    for attempts in 1..=ATTEMPTS {
        let given = given_before(wire, &subject(org, place, attempts)).await?;
        if let Some(group) = given.flatten() {
            return Ok(Some(group.profile_version));
        }
    }
    Ok(None)
}
