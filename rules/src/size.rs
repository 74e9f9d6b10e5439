//! How large readings are in a message, and where messages are cut. Pure.

use domain::{Batch, Group, Values};

/// A message is full at this size. Ingest collects many; a small one is cheap to take again.
pub const FULL_BYTES: usize = 512 << 10;
/// Largest group; the server takes 12 MB with headers.
pub(crate) const MAX_GROUP_BYTES: usize = 10 << 20;
/// What an envelope adds at most.
const ENVELOPE_BYTES: usize = 16;

/// Upper bound of a group's size in a message (MessagePack, structs as arrays).
pub fn group_bytes(group: &Group) -> usize {
    // Array, origin (array, stream, sequence, index, moment), revision, profile, samples' header.
    const FIXED: usize = 1 + (1 + 1 + 9 + 3 + 9) + 3 + 5 + 5;
    let device = group.device.as_ref().map_or(1, |device| 2 + device.as_str().len());
    // Array, entity, moment.
    let sample = |values| 1 + 5 + 9 + values_bytes(values);
    FIXED + device + group.samples.iter().map(|s| sample(&s.values)).sum::<usize>()
}

fn values_bytes(values: &Values) -> usize {
    let number = if values.n.is_some() { 9 } else { 1 };
    let text = values.s.as_ref().map_or(1, |text| 5 + text.len());
    let time = if values.ts.is_some() { 9 } else { 1 };
    // Array and boolean have one byte each.
    1 + number + 1 + text + time
}

/// Cuts one org's groups into messages, between groups only. A group that is larger than a full
/// message travels alone.
pub fn cut(groups: Vec<Group>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let (mut batch, mut bytes) = (Batch::default(), ENVELOPE_BYTES);
    for group in groups {
        let more = group_bytes(&group);
        if bytes + more > FULL_BYTES && !batch.groups.is_empty() {
            batches.push(std::mem::take(&mut batch));
            bytes = ENVELOPE_BYTES;
        }
        bytes += more;
        batch.groups.push(group);
    }
    if !batch.groups.is_empty() {
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{DeviceId, EntityId, Origin, OriginStream, Revision, Sample, Timestamp};
    use proptest::prelude::*;

    prop_compose! {
        fn values()(
            n in proptest::option::of(any::<f64>()),
            b in proptest::option::of(any::<bool>()),
            s in proptest::option::of("[a-zé]{0,300}"),
            ts in proptest::option::of(any::<i32>()),
        ) -> Values {
            let ts = ts.and_then(|micros| Timestamp::from_micros(i64::from(micros) << 20));
            Values { n, b, s: s.map(Into::into), ts }
        }
    }

    prop_compose! {
        fn group()(
            device in proptest::option::of("[a-z]{1,64}"),
            (sequence, index, revision) in (any::<u64>(), any::<u16>(), any::<u16>()),
            profile_version in any::<u32>(),
            samples in proptest::collection::vec((any::<i32>(), values()), 0..40),
        ) -> Group {
            let far = Timestamp::MAX;
            let origin = Origin { stream: OriginStream::Raw, sequence, index, accepted_at: far };
            let sample = |(entity, values)| Sample { entity: EntityId(entity), ts: far, values };
            Group {
                origin: Some(origin),
                revision: Revision(revision),
                device: device.map(|name| DeviceId::parse(&name).unwrap()),
                profile_version,
                samples: samples.into_iter().map(sample).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_is_no_larger_than_thought(groups in proptest::collection::vec(group(), 0..20)) {
            let thought = ENVELOPE_BYTES + groups.iter().map(group_bytes).sum::<usize>();
            let batch = Batch { groups, ..Batch::default() };
            prop_assert!(nats::envelope::encode(&batch).len() <= thought);
        }

        #[test]
        fn a_cut_loses_nothing_and_keeps_the_order(
            mut groups in proptest::collection::vec(group(), 0..20),
            large in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            for index in large {
                if !groups.is_empty() {
                    let values = Values::text("x".repeat(FULL_BYTES * 2 / 3));
                    let sample = Sample { entity: EntityId(1), ts: Timestamp::EPOCH, values };
                    index.get_mut(&mut groups).samples.push(sample);
                }
            }
            let batches = cut(groups.clone());
            for batch in &batches {
                let fits = nats::envelope::encode(batch).len() <= FULL_BYTES;
                prop_assert!(!batch.groups.is_empty() && (fits || batch.groups.len() == 1));
            }
            let together: Vec<_> = batches.into_iter().flat_map(|batch| batch.groups).collect();
            // Through the encoder, because a NaN is not equal to itself.
            let bytes = |groups| nats::envelope::encode(&Batch { groups, ..Batch::default() });
            prop_assert_eq!(bytes(together), bytes(groups));
        }
    }
}
