use super::*;
use domain::{
    Deletion, EntityId, Group, Origin, OriginStream, Reason, Revision, Sample, Stage, Timestamp,
    Values, letter::Source, raw::RawMessage,
};

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn origin() -> Origin {
    Origin { stream: OriginStream::Raw, sequence: 7, index: 3, accepted_at: at(1_000_000) }
}

fn batch() -> Batch {
    let sample = |entity, values| Sample { entity: EntityId(entity), ts: at(5), values };
    let group = Group {
        origin: Some(origin()),
        revision: Revision(2),
        device: Some("TS-1".parse().unwrap()),
        profile_version: 4,
        samples: vec![
            sample(1, Values::number(21.5)),
            sample(2, Values::boolean(true)),
            sample(3, Values::text("auto")),
            sample(4, Values::time(at(9))),
        ],
    };
    let deletion = Deletion::removal(origin(), Revision(3), EntityId(1), at(5));
    Batch { groups: vec![group], deletions: vec![deletion], ..Batch::default() }
}

#[test]
fn golden_telemetry_batch_v1() {
    let bytes = encode(&batch());
    assert_eq!(hex(&bytes), GOLDEN_BATCH_V1);
    assert_eq!(decode::<Batch>(&bytes).unwrap(), batch());
}

#[test]
fn what_came_later_stands_last_and_is_left_out_while_there_is_none() {
    let device: domain::DeviceId = "TS-1".parse().unwrap();
    let presence = domain::presence::Presence {
        device,
        online: true,
        at: at(5),
        kept: false,
        origin: origin(),
    };
    let with = Batch { presences: vec![presence], ..batch() };
    let bytes = hex(&encode(&with));
    // Four fields; what was there before stands where it stood.
    assert!(bytes.starts_with(&GOLDEN_BATCH_V1.replacen("920192", "920294", 1)), "{bytes}");
    assert!(bytes.ends_with("909195a454532d31c305c294000703ce000f4240"), "{bytes}");
    assert_eq!(decode::<Batch>(&encode(&with)).unwrap(), with);
}

fn pack() -> Pack<'static> {
    let entry = RawMessage {
        name: "TS-1".into(),
        sender: None,
        content_type: "".into(),
        received_at: at(5),
        session: 1,
        packet_id: 2,
        number: 3,
        payload: b"{}".as_slice().into(),
    };
    Pack { entries: vec![entry] }
}

#[test]
fn golden_raw_pack_v1() {
    let bytes = encode(&pack());
    assert_eq!(hex(&bytes), GOLDEN_PACK_V1);
    let back: Pack<'_> = decode_borrowed(&bytes).unwrap();
    assert_eq!(back, pack());
    assert!(matches!(back.entries[0].payload, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn golden_model_record_v1() {
    let record = Record::Org(domain::model::Org {
        id: domain::OrgId(1),
        key: "demo".parse().unwrap(),
        name: "Demo".to_owned(),
    });
    let bytes = encode_named(&record);
    assert_eq!(hex(&bytes), GOLDEN_RECORD_V1);
    assert_eq!(decode::<Record>(&bytes).unwrap(), record);
}

#[test]
fn golden_dead_letter_v1() {
    let letter = Letter {
        stage: Stage::Normalize,
        target: None,
        source: Source { stream: "RAW".to_owned(), sequence: 7, row: 3 },
        org: None,
        sender: "TS-1".to_owned(),
        reason: Reason::UnknownDevice,
        detail: String::new(),
        row: None,
        origin: Some(origin()),
        revision: 0,
        attempts: 1,
        at: at(5),
        attachments: Vec::new(),
        many: Vec::new(),
        taken_for: None,
        waiting: None,
        dropped: None,
    };
    let bytes = encode_named(&letter);
    assert_eq!(hex(&bytes), GOLDEN_LETTER_V1);
    assert_eq!(decode::<Letter>(&bytes).unwrap(), letter);
}

#[test]
fn a_device_type_survives_the_envelope() {
    let definition: domain::device_type::DeviceType = serde_json::from_str(
        r#"{"device_type":"t","processing_mode":"endpoint","protocol_adapter":"json",
            "metrics":{"a":{"pointer":"/a","kind":"number","unit":"°C",
                "tags":{"point":"M","area":{"value":1.5,"unit":"m²"},"siteRef":"@1"}}},
            "examples":[{"name":"e","payload":{"a":[1,2.5,null,"x"]},
                "readings":[{"metric":"a","value":1}]}]}"#,
    )
    .unwrap();
    let profile = domain::model::Profile {
        org: "demo".parse().unwrap(),
        org_id: domain::OrgId(1),
        version: 1,
        definition,
    };
    let record = Record::Profile(Box::new(profile));
    assert_eq!(decode::<Record>(&encode_named(&record)).unwrap(), record);
}

#[test]
fn what_is_not_an_envelope_is_refused_by_name() {
    for bytes in [&b""[..], b"\x92", b"{}", b"\x92\x01\xc1", b"\x93\x01\x90\x90"] {
        let error = decode::<Batch>(bytes).unwrap_err();
        assert!(matches!(error, EnvelopeFault::Malformed { .. }), "{bytes:?}: {error}");
    }
    for version in [0_u16, 3, 900] {
        let bytes = rmp_serde::to_vec(&(version, "whatever comes later")).unwrap();
        let error = decode::<Batch>(&bytes).unwrap_err();
        assert!(matches!(error, EnvelopeFault::Newer { found, .. } if found == version));
    }
}

#[test]
fn hostile_lengths_and_depths_cost_nothing() {
    // An array that says it has four billion elements, and one nested a hundred thousand deep.
    let long = [&b"\x92\x01\x92\xdd\xff\xff\xff\xff"[..], &[0xc0; 64]].concat();
    assert!(decode::<Batch>(&long).is_err());
    let deep = [&b"\x92\x01"[..], &vec![0x91; 100_000]].concat();
    assert!(decode::<Batch>(&deep).is_err());
    assert!(decode::<Record>(&deep).is_err());
}

const GOLDEN_BATCH_V1: &str = "920192919594000703ce000f424002a454532d31049493010594cb4035800000000000c0c0c093020594c0c3c0c093030594c0c0a46175746fc093040594c0c0c009919594000703ce000f42400391010506";
const GOLDEN_PACK_V1: &str = "9201919198a454532d31c0a005010203c4027b7d";
const GOLDEN_RECORD_V1: &str = "920181a36f726783a2696401a36b6579a464656d6fa46e616d65a444656d6f";
const GOLDEN_LETTER_V1: &str = "92018ca57374616765a96e6f726d616c697a65a6746172676574c0a6736f7572636583a673747265616da3524157a873657175656e636507a3726f7703a36f7267c0a673656e646572a454532d31a6726561736f6eae756e6b6e6f776e5f646576696365a664657461696ca0a3726f77c0a66f726967696e84a673747265616d00a873657175656e636507a5696e64657803ab61636365707465645f6174ce000f4240a87265766973696f6e00a8617474656d70747301a2617405";
