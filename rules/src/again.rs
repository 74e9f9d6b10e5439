//! One device message processed again: what it gives now, and what it no longer gives. Pure.

use crate::{Known, NotYet, normalize_one};
use domain::{
    Deletion, EntityId, Group, OrgKey, Origin, Revision, Timestamp,
    directory::Directory,
    normalize::TimeLimits,
    raw::{ASSEMBLED, ProfileRef, RawMessage, STATUS, STATUS_KEPT, Sender},
    replay::{Rules, Spec},
};
use std::collections::BTreeSet;

/// What comes of one message.
#[derive(Debug, Default, PartialEq)]
pub struct Again {
    /// Whose; `None`: nothing comes of it here.
    pub org: Option<OrgKey>,
    /// Its readings.
    pub group: Option<Group>,
    /// What it no longer gives.
    pub removals: Vec<Deletion>,
    /// What is wrong with it, or with a part of it.
    pub failure: Option<String>,
}

/// Whose a message is, where the replay is about it.
pub fn about(entry: &RawMessage<'_>, spec: &Spec, directory: &Directory) -> Option<Sender> {
    if matches!(&*entry.content_type, STATUS | STATUS_KEPT) {
        return None;
    }
    // Who was not known then may be known now.
    let sender = entry.sender.clone().or_else(|| directory.sender(&entry.name))?;
    let is = spec.org.as_ref().is_none_or(|org| *org == sender.org)
        && spec.device_type.as_ref().is_none_or(|it| *it == sender.profile.id)
        && spec.device.as_ref().is_none_or(|device| *device == sender.device);
    is.then_some(sender)
}

/// Processes a message of a sender again. Rows that it may have given by another version are taken away where
/// this one does not give them: by its own version or a later one, which a replay may have taken, or by one
/// that a replay `named`. No others: what this message never gave is not its to take away.
pub fn again(
    entry: &RawMessage<'_>,
    sender: &Sender,
    origin: Origin,
    (spec, revision): (&Spec, Revision),
    (directory, limits): (&Directory, TimeLimits),
    named: &BTreeSet<u32>,
) -> Again {
    let chunked = directory
        .profile(&sender.org, &sender.profile)
        .is_some_and(|profile| profile.definition.chunk_rule().is_some());
    if chunked && entry.content_type != ASSEMBLED {
        return Again::default();
    }
    let latest = directory
        .head(&sender.org, &sender.profile.id)
        .map_or(sender.profile.version, |head| head.current.version);
    let chosen = match spec.rules {
        Rules::InForce => latest,
        Rules::Own => sender.profile.version,
        Rules::Version(version) => version,
    };
    let by = |version: u32| {
        let profile = ProfileRef { version, ..sender.profile.clone() };
        let mut entry = entry.clone();
        entry.sender = Some(Sender { profile, ..sender.clone() });
        let known = Known { directory, limits, settled: true, created: true };
        normalize_one(&entry, origin, known, entry.received_at)
    };
    let given = match by(chosen) {
        Ok(given) => given,
        Err(NotYet::Unsettled | NotYet::Create(_)) => {
            let failure = Some("what it speaks of is not registered".to_owned());
            return Again { failure, ..Again::default() };
        }
    };
    let failure = given.letters.into_iter().next().map(|letter| letter.detail);
    let group = given.groups.into_iter().next().map(|(_, group)| Group { revision, ..group });
    let keys = |group: Option<&Group>| -> BTreeSet<(EntityId, Timestamp)> {
        let samples = group.map(|group| &group.samples[..]).unwrap_or_default();
        samples.iter().map(|sample| (sample.entity, sample.ts)).collect()
    };
    let now = keys(group.as_ref());
    let mut gone = BTreeSet::new();
    // What can't be read by this version, or not all of it, keeps what another gave: it may be right. What takes
    // another replay back leaves nothing of it.
    let sure = failure.is_none() || spec.rules == Rules::Own;
    let own = entry.sender.as_ref().map_or(1, |sender| sender.profile.version);
    let may_have =
        |version: &u32| sure && *version != chosen && (*version >= own || named.contains(version));
    for version in (1..=latest).filter(may_have) {
        let Ok(other) = by(version) else { continue };
        let other = keys(other.groups.first().map(|(_, group)| group));
        gone.extend(other.difference(&now).copied());
    }
    let removal = |(entity, ts)| Deletion::removal(origin, revision, entity, ts);
    let removals = gone.into_iter().map(removal).collect();
    Again { org: Some(sender.org.clone()), group, removals, failure }
}
