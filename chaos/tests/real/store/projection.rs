//! `MODEL` into tables.

use super::{database, open};
use domain::{
    DeviceId, EntityId, OrgId, OrgKey, TypeId,
    device_type::{DeviceType, Kind, Metric, ProcessingMode, ProtocolAdapter, UnknownMetrics},
    model::{Device, Entity, Org, Point, Profile, Record, TagDef, TypeHead},
    raw::ProfileRef,
    tags::{TagValue, Tags},
};
use store::{Database, Fault, Projection, inspect, migrate};

fn key() -> OrgKey {
    OrgKey::parse("demo").unwrap()
}

fn entity(id: i32, name: &str, tags: &[(&str, TagValue)]) -> Record {
    let tags: Tags = tags.iter().map(|(tag, value)| ((*tag).to_owned(), value.clone())).collect();
    Record::Entity(Entity {
        id: EntityId(id),
        org: key(),
        org_id: OrgId(1),
        name: name.to_owned(),
        tags,
    })
}

/// A house in an order in which nothing stands on what is there already.
fn records() -> Vec<Record> {
    let (org, org_id) = (key(), OrgId(1));
    let id = TypeId::parse("sensor").unwrap();
    let definition = sensor(id.clone());
    let point = Point { entity: EntityId(10), kind: Kind::Number };
    let tags = [
        ("point", TagValue::Marker),
        ("area", TagValue::Number(12.5, Some("m²".to_owned()))),
        ("siteRef", TagValue::Ref("7".to_owned())),
    ];
    vec![
        Record::Device(Device {
            role: domain::model::Role::Endpoint,
            id: DeviceId::parse("TS-1").unwrap(),
            org: org.clone(),
            org_id,
            device_type: id.clone(),
            name: "one".to_owned(),
            points: [("temperature".to_owned(), point)].into(),
        }),
        Record::DeviceType(TypeHead {
            org: org.clone(),
            org_id,
            current: ProfileRef { id, version: 1 },
        }),
        Record::Profile(Box::new(Profile { org: org.clone(), org_id, version: 1, definition })),
        entity(10, "temperature", &tags),
        Record::TagDef(TagDef {
            org: org.clone(),
            org_id,
            name: "area".to_owned(),
            kind: "Number".to_owned(),
            doc: "how large it is".to_owned(),
        }),
        Record::Org(Org { id: org_id, key: org, name: "Demo".to_owned() }),
    ]
}

fn sensor(device_type: TypeId) -> DeviceType {
    let temperature = Metric {
        pointer: "/t".to_owned(),
        kind: Kind::Number,
        unit: Some("°C".to_owned()),
        scale: None,
        offset: None,
        tags: Tags::new(),
    };
    DeviceType {
        logical_devices: None,
        chunks: None,
        gateway_metrics: std::collections::BTreeMap::new(),
        device_type,
        processing_mode: ProcessingMode::Endpoint,
        protocol_adapter: ProtocolAdapter::Json,
        timestamp: None,
        message_id: None,
        receipts: false,
        unknown_metrics: UnknownMetrics::Ignore,
        metrics: [("temperature".to_owned(), temperature)].into(),
        examples: vec![],
    }
}

async fn migrated() -> Database {
    let (owner, ingest) = open(&database().await);
    migrate::run(&owner).await.unwrap();
    ingest
}

async fn apply(database: &Database, records: &[(u64, Record)]) -> Result<(), Fault> {
    let mut projection = Projection::begin(database).await?;
    for (sequence, record) in records {
        projection.apply(*sequence, record).await?;
    }
    projection.commit(records.last().map_or(0, |(sequence, _)| *sequence)).await
}

async fn holds(database: &Database, condition: &str) {
    let sql = format!("do $check$ begin assert ({condition}); end $check$");
    database.run(&sql).await.unwrap_or_else(|fault| panic!("{condition}: {fault}"));
}

fn numbered(records: Vec<Record>) -> Vec<(u64, Record)> {
    (1..).zip(records).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_house_is_built_in_any_order_in_one_transaction() {
    let database = migrated().await;
    apply(&database, &numbered(records())).await.unwrap();
    for condition in [
        "(select name = 'Demo' from core.org where org_key = 'demo')",
        "(select message_schema #>> '{temperature,unit}' = '°C' from core.device_types)",
        "(select version = 1 from core.device_type_current where device_type = 'sensor')",
        "(select d.device_type = 'sensor' and p.entity_id = 10 and p.kind = 'Number' \
          from core.devices d join core.device_point p using (device_id))",
        "(select value is null and kind = 'Marker' from core.entity_tag where tag = 'point')",
        "(select value = '{\"value\": 12.5, \"unit\": \"m²\"}' from core.entity_tag where tag = 'area')",
        "(select value = '\"7\"' and kind = 'Ref' from core.entity_tag where tag = 'siteRef')",
        "(select doc = 'how large it is' from core.tag_def)",
        "to_regclass('core.values_demo') is not null",
    ] {
        holds(&database, condition).await;
    }
    assert_eq!(inspect::model_position(&database).await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_older_than_its_row_changes_nothing() {
    let database = migrated().await;
    apply(&database, &numbered(records())).await.unwrap();
    let newer = entity(10, "renamed", &[("sensor", TagValue::Bool(true))]);
    apply(&database, &[(7, newer)]).await.unwrap();
    // All of it again, as a second instance that began earlier would.
    apply(&database, &numbered(records())).await.unwrap();
    holds(&database, "(select name = 'renamed' from core.entity)").await;
    holds(&database, "(select array_agg(tag) = '{sensor}' from core.entity_tag)").await;
    assert_eq!(inspect::model_position(&database).await.unwrap(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_entity_twice_in_a_batch_the_later_stays() {
    let database = migrated().await;
    let mut records = records();
    records.push(entity(10, "later", &[]));
    apply(&database, &numbered(records)).await.unwrap();
    holds(&database, "(select name = 'later' from core.entity)").await;
    holds(&database, "not exists (select from core.entity_tag)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refers_to_something_missing_is_not_committed() {
    let database = migrated().await;
    let without_entity: Vec<_> = numbered(records()).into_iter().filter(|(n, _)| *n != 4).collect();
    let fault = apply(&database, &without_entity).await.unwrap_err();
    assert_eq!(fault.sqlstate.as_deref(), Some("23503"), "{fault}");
    holds(&database, "not exists (select from core.org)").await;
    assert_eq!(inspect::model_position(&database).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_apply_one_after_the_other() {
    let database = migrated().await;
    let all = numbered(records());
    let (a, b) = tokio::join!(apply(&database, &all), apply(&database, &all));
    a.and(b).unwrap();
    holds(&database, "(select count(*) = 3 from core.entity_tag)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_entities_are_written_in_batches() {
    const ENTITIES: i32 = 5_500;
    let database = migrated().await;
    let mut all = vec![records().pop().unwrap()];
    let tags = [("point", TagValue::Marker), ("his", TagValue::Marker)];
    all.extend((1..=ENTITIES).map(|id| entity(id, "point", &tags)));
    apply(&database, &numbered(all)).await.unwrap();
    holds(&database, &format!("(select count(*) = {ENTITIES} from core.entity)")).await;
    holds(&database, &format!("(select count(*) = 2 * {ENTITIES} from core.entity_tag)")).await;
}

#[tokio::test]
async fn what_a_point_names_may_be_gone_before_a_database_ever_saw_it() {
    let database = migrated().await;
    let (org, org_id) = (key(), OrgId(1));
    let gone = Record::Gone(domain::model::Gone {
        org,
        org_id,
        kind: domain::model::GoneKind::Entity,
        id: "10".to_owned(),
    });
    // The stream holds what was said last alone: the entity's own record is not there any more.
    let subject = gone.subject();
    let left = records().into_iter().filter(|record| record.subject() != subject);
    let mut projection = Projection::begin(&database).await.unwrap();
    let mut sequence = 0;
    for record in left.chain([gone]) {
        sequence += 1;
        projection.apply(sequence, &record).await.unwrap();
    }
    projection.commit(sequence).await.unwrap();
    assert_eq!(inspect::model_position(&database).await.unwrap(), sequence);
}
