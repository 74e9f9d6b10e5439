use super::*;
use crate::fixtures::{directory, entry, known, now, origin, records};
use proptest::prelude::*;

fn run(body: &[u8]) -> Normalized {
    let directory = directory(records());
    let position = Position { sequence: 7, stored_at: now() };
    let stored = Stored { position, subject: "raw.mqtt.b", body };
    normalize_message(stored, known(&directory, true), now()).unwrap()
}

fn pack(payloads: &[&str]) -> Vec<u8> {
    let entries = payloads.iter().map(|payload| entry("d", payload)).collect();
    envelope::encode(&Pack { entries }).to_vec()
}

#[test]
fn a_bad_entry_is_a_letter_of_its_own_and_its_pack_goes_on() {
    let good = r#"{"ts":"2026-05-01T00:00:00Z","temp":4}"#;
    let normalized = run(&pack(&[good, "{", good]));
    let origins: Vec<_> = normalized.groups.iter().map(|(_, group)| group.origin).collect();
    assert_eq!(origins, [Some(origin(0)), Some(origin(2))]);
    let [letter] = &normalized.letters[..] else { panic!("one letter") };
    assert_eq!((letter.reason, letter.origin), (Reason::NotJson, Some(origin(1))));
    assert_eq!(letter.id(), "normalize/-/RAW/7/1/1");
    assert_eq!(letter.subject().to_string(), "dead.normalize.demo.d");
}

#[test]
fn a_message_that_can_t_be_read_is_one_letter() {
    let too_many = pack(&vec!["{}"; MAX_PACK_ENTRIES + 1]);
    for body in [&b""[..], b"\x92\x01", b"\x92\x63\x90", b"junk", &too_many] {
        let normalized = run(body);
        assert!(normalized.groups.is_empty());
        let [letter] = &normalized.letters[..] else { panic!("one letter") };
        assert_eq!((letter.reason, letter.source.row), (Reason::Undecodable, 0));
        assert_eq!(letter.sender, "raw.mqtt.b");
    }
}

proptest! {
    /// Every entry leaves a trace, whatever the others are, and again the same one.
    #[test]
    fn nothing_is_lost_between_a_pack_and_what_comes_of_it(
        kinds in proptest::collection::vec(0..4_usize, 0..50)
    ) {
        let payloads = [
            r#"{"ts":"2026-05-01T00:00:00Z","temp":4}"#,
            r#"{"ts":"2026-05-01T00:00:00Z","temp":4,"hum":5}"#,
            "not json",
            "{}",
        ];
        let chosen: Vec<_> = kinds.iter().map(|&kind| payloads[kind]).collect();
        let body = pack(&chosen);
        let normalized = run(&body);
        prop_assert_eq!(&normalized, &run(&body));
        let groups = kinds.iter().filter(|&&kind| kind < 2).count();
        let letters = kinds.iter().filter(|&&kind| kind > 0).count();
        prop_assert_eq!((normalized.groups.len(), normalized.letters.len()), (groups, letters));
    }

    #[test]
    fn no_bytes_bring_it_down(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        run(&body);
    }
}
