use super::*;
use crate::fixtures::{directory, entry, known, org, origin, records};
use domain::{EntityId, Values, model::Record};

const GOOD: &str = r#"{"ts":"2026-05-01T00:00:00Z","temp":4}"#;

fn run(name: &str, payload: &str) -> Outcome {
    let directory = directory(records());
    normalize_entry(&entry(name, payload), origin(3), known(&directory, true)).unwrap()
}

fn reason(outcome: &Outcome) -> Option<Reason> {
    outcome.fault.as_ref().map(|fault| fault.reason)
}

#[test]
fn a_reading_carries_its_origin_and_profile() {
    let Outcome { group, fault, .. } = run("d", GOOD);
    assert_eq!(fault, None);
    let (of, group) = group.unwrap();
    assert_eq!((of, group.origin, group.profile_version), (org(), Some(origin(3)), 1));
    assert_eq!(group.revision, Revision(0));
    let [sample] = &group.samples[..] else { panic!("one reading") };
    assert_eq!((sample.entity, &sample.values), (EntityId(1), &Values::number(4.0)));
}

#[test]
fn what_is_dead_says_why() {
    let dead = [
        ("nobody", GOOD, Reason::UnknownDevice),
        ("a/b", GOOD, Reason::UnknownDevice),
        ("d", "{", Reason::NotJson),
        ("d", "{}", Reason::WrongType),
        ("d", r#"{"ts":"2026-05-01T00:00:00Z"}"#, Reason::NothingMapped),
        ("d", r#"{"ts":"2036-05-01T00:00:00Z","temp":4}"#, Reason::TimeOutOfRange),
        ("d", r#"{"ts":"2026-05-01T00:00:00Z","temp":"x"}"#, Reason::WrongType),
        ("d", r#"{"ts":"2026-05-01T00:00:00Z","hum":1}"#, Reason::NothingMapped),
    ];
    for (name, payload, wanted) in dead {
        let outcome = run(name, payload);
        assert_eq!(reason(&outcome), Some(wanted), "{payload}");
        assert_eq!(outcome.group, None, "{payload}");
    }
}

#[test]
fn the_good_part_of_a_payload_goes_on() {
    let outcome = run("d", r#"{"ts":"2026-05-01T00:00:00Z","temp":4,"hum":1}"#);
    assert_eq!(reason(&outcome), Some(Reason::NothingMapped));
    assert!(outcome.fault.unwrap().detail.contains("hum"));
    assert_eq!(outcome.group.unwrap().1.samples.len(), 1);
}

#[test]
fn what_the_directory_lacks_is_dead_only_when_it_is_settled() {
    let without = |lacks: fn(&Record) -> bool| {
        directory(records().into_iter().filter(|record| !lacks(record)).collect())
    };
    let cases = [
        (without(|record| matches!(record, Record::Profile(_))), Reason::UnknownProfile),
        (without(|record| matches!(record, Record::Device(_))), Reason::UnknownDevice),
    ];
    for (directory, wanted) in cases {
        let entry = entry("d", GOOD);
        let early = normalize_entry(&entry, origin(0), known(&directory, false));
        assert_eq!(early, Err(NotYet::Unsettled));
        let late = normalize_entry(&entry, origin(0), known(&directory, true)).unwrap();
        assert_eq!(reason(&late), Some(wanted));
    }
    let no_point = entry("d", r#"{"ts":"2026-05-01T00:00:00Z","hum":1}"#);
    let full = directory(records());
    assert_eq!(normalize_entry(&no_point, origin(0), known(&full, false)), Err(NotYet::Unsettled));
}

#[test]
fn a_device_that_moved_to_another_org_writes_into_neither() {
    let mut records = records();
    for record in &mut records {
        if let Record::Device(device) = record {
            device.org = OrgKey::parse("other").unwrap();
        }
    }
    let directory = directory(records);
    let outcome = normalize_entry(&entry("d", GOOD), origin(0), known(&directory, true)).unwrap();
    assert_eq!((reason(&outcome), outcome.group), (Some(Reason::UnknownDevice), None));
}

#[test]
fn a_detail_is_cut_between_characters() {
    assert!(cut("é".repeat(5_000)).len() <= MAX_DETAIL + '…'.len_utf8());
    assert_eq!(cut("short".to_owned()), "short");
}
