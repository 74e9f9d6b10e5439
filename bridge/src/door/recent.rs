//! What a broker delivers again, known as the same: a device without a clock would else be believed
//! twice. Pure.

use domain::{Timestamp, raw::RawMessage};
use std::hash::{DefaultHasher, Hasher};

/// Messages of a session that are known. Far fewer than there are packet ids, which brokers give in
/// turn: a packet id of one of these is the same message's.
const MAX_KNOWN: u64 = 8_192;

/// The last messages of the broker's session, by packet id.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By packet id, as far as one was seen.
    known: Vec<Option<Known>>,
    count: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    session: u64,
    /// Of name and bytes.
    hash: u64,
    received_at: Timestamp,
    count: u64,
}

impl Recent {
    /// When a message that the broker says it delivered before was received for the first time.
    pub(super) fn first_received(
        &self,
        session: u64,
        packet_id: u16,
        name: &str,
        payload: &[u8],
    ) -> Option<Timestamp> {
        let known = self.known.get(usize::from(packet_id)).copied().flatten()?;
        let same = known.session == session && self.count - known.count < MAX_KNOWN;
        (same && known.hash == hash(name, payload)).then_some(known.received_at)
    }

    /// Notes a message. At QoS 0 nothing comes again.
    pub(super) fn note(&mut self, message: &RawMessage<'_>) {
        if message.packet_id == 0 {
            return;
        }
        self.count += 1;
        let known = Known {
            session: message.session,
            hash: hash(&message.name, &message.payload),
            received_at: message.received_at,
            count: self.count,
        };
        let place = usize::from(message.packet_id);
        if place >= self.known.len() {
            self.known.resize(place + 1, None);
        }
        self.known[place] = Some(known);
    }
}

fn hash(name: &str, payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.write_u8(0);
    hasher.write(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(session: u64, packet_id: u16, payload: &str, second: i64) -> RawMessage<'static> {
        RawMessage {
            name: "D".into(),
            sender: None,
            content_type: "".into(),
            received_at: Timestamp::EPOCH.plus_micros(second * 1_000_000),
            session,
            packet_id,
            number: 1,
            payload: payload.as_bytes().to_vec().into(),
        }
    }

    #[test]
    fn the_same_is_known_and_another_is_not() {
        let mut recent = Recent::default();
        recent.note(&message(1, 5, "21.5", 7));
        let at = |session, packet, name: &str, payload: &str| {
            recent.first_received(session, packet, name, payload.as_bytes())
        };
        assert_eq!(at(1, 5, "D", "21.5"), Some(Timestamp::EPOCH.plus_micros(7_000_000)));
        for other in
            [(2, 5, "D", "21.5"), (1, 6, "D", "21.5"), (1, 5, "E", "21.5"), (1, 5, "D", "2")]
        {
            let (session, packet, name, payload) = other;
            assert_eq!(at(session, packet, name, payload), None, "{other:?}");
        }
    }

    #[test]
    fn a_packet_id_that_may_have_gone_round_is_forgotten() {
        let mut recent = Recent::default();
        recent.note(&message(1, 5, "a", 0));
        for number in 0..MAX_KNOWN {
            recent.note(&message(1, 100 + (number % 1_000) as u16, "b", 0));
        }
        assert_eq!(recent.first_received(1, 5, "D", b"a"), None);
    }
}
