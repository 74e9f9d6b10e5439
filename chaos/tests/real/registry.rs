//! Registering orgs, device types and devices: repeatable, in parallel, and what is refused.

use domain::{DeviceId, OrgKey, TypeId, device_type::DeviceType, raw::ProfileRef};
use nats::{
    Login, Wire, model,
    registry::{Registered, RegistryFault, add_device, add_org, apply_device_type},
    streams::{self, Limits},
};
use std::collections::BTreeSet;
use testkit::Nats;

async fn operator(server: &Nats) -> Wire {
    let login = |user: &str| Login {
        url: server.url(),
        user: user.to_owned(),
        password: server.password(user),
    };
    let admin = Wire::connect(&login("admin")).await.unwrap();
    streams::declare(&admin, &Limits::default()).await.unwrap();
    Wire::connect(&login("operator")).await.unwrap()
}

fn definition(metrics: &str) -> DeviceType {
    serde_json::from_str(&format!(
        r#"{{"device_type":"t","processing_mode":"endpoint","protocol_adapter":"json",
            "metrics":{{{metrics}}}}}"#
    ))
    .unwrap()
}

const TEMP: &str = r#""temp":{"pointer":"/t","kind":"number","unit":"°C"}"#;
const TEMP_AND_MODE: &str = r#""temp":{"pointer":"/t","kind":"number","unit":"°C"},
    "mode":{"pointer":"/m","kind":"string"}"#;

fn demo() -> OrgKey {
    "demo".parse().unwrap()
}

fn device(text: &str) -> DeviceId {
    text.parse().unwrap()
}

fn t() -> TypeId {
    "t".parse().unwrap()
}

#[tokio::test]
async fn everything_can_be_asked_for_again() {
    let server = Nats::start().await;
    let wire = operator(&server).await;
    let org = add_org(&wire, demo(), "Demo".to_owned()).await.unwrap();
    assert!(matches!(&org, Registered::Made(org) if org.id.0 == 1));
    let again = add_org(&wire, demo(), "Other".to_owned()).await.unwrap();
    assert_eq!(again, Registered::Unchanged(org.into_inner()));
    let head = apply_device_type(&wire, &demo(), definition(TEMP)).await.unwrap();
    let again = apply_device_type(&wire, &demo(), definition(TEMP)).await.unwrap();
    assert_eq!(again, Registered::Unchanged(head.into_inner()));
    let made = add_device(&wire, &demo(), device("d-1"), t(), None).await.unwrap();
    let again = add_device(&wire, &demo(), device("d-1"), t(), None).await.unwrap();
    assert_eq!(again, Registered::Unchanged(made.into_inner()));
}

#[tokio::test]
async fn a_new_version_gives_devices_their_new_points_and_keeps_the_old_version() {
    let server = Nats::start().await;
    let wire = operator(&server).await;
    add_org(&wire, demo(), String::new()).await.unwrap();
    apply_device_type(&wire, &demo(), definition(TEMP)).await.unwrap();
    add_device(&wire, &demo(), device("d-1"), t(), None).await.unwrap();
    let head = apply_device_type(&wire, &demo(), definition(TEMP_AND_MODE)).await.unwrap();
    assert_eq!(head.into_inner().current.version, 2);
    let directory = model::load(&wire).await.unwrap();
    let points = &directory.device(&device("d-1")).unwrap().points;
    assert_eq!(points.keys().collect::<Vec<_>>(), ["mode", "temp"]);
    for point in points.values() {
        assert!(directory.entity(point.entity).is_some());
    }
    for version in [1, 2] {
        let profile = directory.profile(&demo(), &ProfileRef { id: t(), version });
        assert_eq!(profile.unwrap().definition.metrics.len(), version as usize);
    }
}

#[tokio::test]
async fn what_can_not_be_is_refused_by_name() {
    let server = Nats::start().await;
    let wire = operator(&server).await;
    let fault = apply_device_type(&wire, &demo(), definition(TEMP)).await.unwrap_err();
    assert!(matches!(fault, RegistryFault::NoOrg(_)), "{fault}");
    for key in ["demo", "other"] {
        add_org(&wire, key.parse().unwrap(), String::new()).await.unwrap();
    }
    let fault = add_device(&wire, &demo(), device("d-1"), t(), None).await.unwrap_err();
    assert!(matches!(fault, RegistryFault::NoType(..)), "{fault}");
    let other: OrgKey = "other".parse().unwrap();
    for org in [&demo(), &other] {
        apply_device_type(&wire, org, definition(TEMP)).await.unwrap();
    }
    add_device(&wire, &demo(), device("d-1"), t(), None).await.unwrap();
    let fault = add_device(&wire, &other, device("d-1"), t(), None).await.unwrap_err();
    assert!(fault.to_string().contains("taken") && !fault.to_string().contains("demo"), "{fault}");
    let text = r#""temp":{"pointer":"/t","kind":"string"}"#;
    let fault = apply_device_type(&wire, &demo(), definition(text)).await.unwrap_err();
    assert!(fault.to_string().contains("metrics.temp.kind"), "{fault}");
}

#[tokio::test]
async fn many_at_once_never_share_an_id() {
    let server = Nats::start().await;
    let wire = operator(&server).await;
    let orgs = (0..5).map(|n| add_org(&wire, format!("o{n}").parse().unwrap(), String::new()));
    let orgs = futures_util::future::join_all(orgs).await;
    let ids: BTreeSet<i32> = orgs.into_iter().map(|org| org.unwrap().into_inner().id.0).collect();
    assert_eq!(ids.len(), 5);
    let org: OrgKey = "o0".parse().unwrap();
    apply_device_type(&wire, &org, definition(TEMP_AND_MODE)).await.unwrap();
    let adding = (0..10).map(|n| add_device(&wire, &org, device(&format!("d-{n}")), t(), None));
    let devices = futures_util::future::join_all(adding).await;
    let entities: BTreeSet<i32> = devices
        .into_iter()
        .flat_map(|device| device.unwrap().into_inner().points.into_values())
        .map(|point| point.entity.0)
        .collect();
    assert_eq!(entities.len(), 20);
    // Ten at once for one device: one is made, the others find it or lose the race.
    let same = (0..10).map(|_| add_device(&wire, &org, device("same"), t(), None));
    let made = futures_util::future::join_all(same).await;
    let made = made.iter().filter(|done| matches!(done, Ok(Registered::Made(_)))).count();
    assert_eq!(made, 1);
}

#[tokio::test]
async fn of_metrics_that_many_make_at_once_each_is_one_point() {
    use domain::device_type::Kind;
    let server = Nats::start().await;
    let wire = operator(&server).await;
    add_org(&wire, demo(), "Demo".to_owned()).await.unwrap();
    apply_device_type(&wire, &demo(), definition(TEMP)).await.unwrap();
    let id = device("D-1");
    add_device(&wire, &demo(), id.clone(), TypeId::parse("t").unwrap(), None).await.unwrap();
    let kinds = |from: u32| {
        let kind = |n| if n % 2 == 0 { Kind::Number } else { Kind::String };
        (from..from + 4).map(|n| (format!("m{n}"), kind(n))).collect()
    };
    let (a, b, c) = (kinds(0), kinds(2), kinds(4));
    let create = |metrics| nats::registry::create_metrics(&wire, &id, metrics);
    let made = tokio::join!(create(&a), create(&b), create(&c));
    let made = made.0.unwrap() + made.1.unwrap() + made.2.unwrap();
    assert_eq!(made, 8);
    assert_eq!(create(&b).await.unwrap(), 0);
    let directory = model::load(&wire).await.unwrap();
    let points = &directory.device(&id).unwrap().points;
    let entities: BTreeSet<_> = points.values().map(|point| point.entity).collect();
    assert_eq!((points.len(), entities.len()), (9, 9));
    assert_eq!((points["m6"].kind, points["m7"].kind), (Kind::Number, Kind::String));
}
