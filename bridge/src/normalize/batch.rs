//! Messages of `RAW` that are normalized and stored together. Pure.

use domain::{Batch, Group, Letter, OrgKey, presence::Presence, subject::Subject};
use nats::{Delivery, envelope, publish::Outgoing};
use rules::{Normalized, cut, group_bytes};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
};

/// No more messages of `RAW` are added past so many, ...
pub(super) const MAX_MESSAGES: usize = 64;
/// ... past so many bytes of what comes of them, ...
pub(super) const MAX_BYTES: usize = 4 << 20;
/// ... or past so many letters (each is a message of its own, with its own fsync).
pub(super) const MAX_LETTERS: usize = 4_096;
/// What a device's presence takes in a message, at most.
const PRESENCE_BYTES: usize = 128;
/// No more messages of `RAW` are added past so many births and wills.
const MAX_PRESENCES: usize = 4_096;
/// Who produces the readings: the last token of their subject.
const SOURCE: &str = "mqtt";

/// What was read from `RAW` and what comes of it.
#[derive(Default)]
pub(super) struct Work {
    /// To be acknowledged when the rest is stored.
    pub deliveries: Vec<Delivery>,
    /// Readings by org.
    pub groups: BTreeMap<OrgKey, Vec<Group>>,
    /// What is set aside.
    pub letters: Vec<Letter>,
    /// Which devices are there, by org.
    pub presences: BTreeMap<OrgKey, Vec<Presence>>,
    bytes: usize,
}

/// A message for `TELEMETRY`.
pub(super) struct Part {
    /// Its org.
    pub org: OrgKey,
    /// Readings in it.
    pub readings: usize,
    /// The message.
    pub message: Outgoing,
}

impl Work {
    /// Adds a message of `RAW`. Only its metadata are kept of the delivery.
    pub(super) fn add(&mut self, mut delivery: Delivery, normalized: Normalized) {
        delivery.take_payload();
        self.deliveries.push(delivery);
        for (org, group) in normalized.groups {
            self.bytes += group_bytes(&group);
            // Most often the org is there already: no key is cloned for it.
            self.groups.entry(org).or_default().push(group);
        }
        for (org, presence) in normalized.presences {
            self.bytes += PRESENCE_BYTES;
            self.presences.entry(org).or_default().push(presence);
        }
        self.letters.extend(normalized.letters);
    }

    /// Enough to be stored.
    pub(super) fn is_full(&self) -> bool {
        self.deliveries.len() >= MAX_MESSAGES
            || self.bytes >= MAX_BYTES
            || self.letters.len() >= MAX_LETTERS
            || self.presences.values().map(Vec::len).sum::<usize>() >= MAX_PRESENCES
    }

    /// Messages for `TELEMETRY`; the readings are taken out.
    pub(super) fn take_parts(&mut self) -> Vec<Part> {
        let sequences = self.deliveries.iter().map(|delivery| delivery.position().sequence);
        let first = sequences.clone().min().unwrap_or_default();
        let last = sequences.max().unwrap_or_default();
        let mut parts = Vec::new();
        for (org, groups) in std::mem::take(&mut self.groups) {
            for batch in cut(groups) {
                parts.push(part(&org, first, last, &batch));
            }
        }
        for (org, presences) in &self.presences {
            // Small, and few beside readings: one message holds all of an org's.
            let batch = Batch { presences: presences.clone(), ..Batch::default() };
            parts.push(part(org, first, last, &batch));
        }
        parts
    }
}

fn part(org: &OrgKey, first: u64, last: u64, batch: &Batch) -> Part {
    let subject = Subject::Telemetry { org: org.to_string(), source: SOURCE.to_owned() };
    let about = batch.groups.iter().map(group_bytes).sum();
    let payload = envelope::encode_sized(batch, about);
    let id = part_id(org, first, last, &payload);
    let message =
        Outgoing::new(subject.to_string(), &id, payload).oldest_accepted(batch.oldest_accepted());
    Part { org: org.clone(), readings: batch.samples(), message }
}

/// The same id means the same bytes, whoever normalizes the messages again and however they are
/// gathered then: without the hash, two different sets with the same ends would share an id, and
/// the stream would drop the second. (Origins are in the bytes: two readings never share them.)
fn part_id(org: &OrgKey, first: u64, last: u64, payload: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    format!("normalize/{first}-{last}/{org}/{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_contents_apart() {
        let org = OrgKey::parse("demo").unwrap();
        let id = |payload: &[u8]| part_id(&org, 5, 7, payload);
        assert_eq!(id(b"5 7"), id(b"5 7"));
        assert_ne!(id(b"5 7"), id(b"5 6 7"));
        assert!(id(b"").starts_with("normalize/5-7/demo/"));
    }
}
