//! A small model for the tests of the pure parts.

use crate::Known;
use domain::{
    DeviceId, EntityId, OrgId, OrgKey, Origin, OriginStream, Timestamp, TypeId,
    device_type::{DeviceType, Kind},
    directory::Directory,
    model::{Device, Org, Point, Profile, Record, Role, TypeHead},
    normalize::TimeLimits,
    raw::{ProfileRef, RawMessage},
};

const PROFILE: &str = r#"{"device_type":"t","processing_mode":"endpoint","protocol_adapter":"json",
    "timestamp":{"pointer":"/ts","format":"rfc3339"},"metrics":{
    "hum":{"pointer":"/hum","kind":"number"},"temp":{"pointer":"/temp","kind":"number"}}}"#;

pub(crate) fn org() -> OrgKey {
    OrgKey::parse("demo").unwrap()
}

fn profile_ref() -> ProfileRef {
    ProfileRef { id: TypeId::parse("t").unwrap(), version: 1 }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap()
}

pub(crate) fn origin(index: u16) -> Origin {
    Origin { stream: OriginStream::Raw, sequence: 7, index, accepted_at: now() }
}

/// What `MODEL` holds: an org, a device type, and the device `d` whose metric `temp` is entity 1.
pub(crate) fn records() -> Vec<Record> {
    let (org, org_id) = (org(), OrgId(1));
    let definition: DeviceType = serde_json::from_str(PROFILE).unwrap();
    let device_type = definition.device_type.clone();
    let profile = Profile { org: org.clone(), org_id, version: 1, definition };
    let head = TypeHead { org: org.clone(), org_id, current: profile_ref() };
    let point = Point { entity: EntityId(1), kind: Kind::Number };
    let device = Device {
        id: DeviceId::parse("d").unwrap(),
        org: org.clone(),
        org_id,
        device_type,
        name: String::new(),
        role: Role::Endpoint,
        points: [("temp".to_owned(), point)].into(),
    };
    vec![
        Record::Org(Org { id: org_id, key: org, name: String::new() }),
        Record::Profile(profile.into()),
        Record::DeviceType(head),
        Record::Device(device),
    ]
}

pub(crate) fn directory(records: Vec<Record>) -> Directory {
    let mut directory = Directory::default();
    for (sequence, record) in (1..).zip(records) {
        directory.apply(sequence, record);
    }
    directory
}

pub(crate) fn known(directory: &Directory, settled: bool) -> Known<'_> {
    Known { directory, limits: TimeLimits::default(), settled, created: false }
}

/// A message as the door notes it.
pub(crate) fn entry(name: &str, payload: &str) -> RawMessage<'static> {
    RawMessage {
        name: name.to_owned().into(),
        sender: directory(records()).sender(name),
        content_type: "application/json".into(),
        received_at: now(),
        session: 1,
        packet_id: 1,
        number: 1,
        payload: payload.as_bytes().to_vec().into(),
    }
}
