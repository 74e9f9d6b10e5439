//! The store against a real database.

mod archive;
mod faults;
mod merge;
mod migrations;
mod presence;
mod projection;
mod verify;
mod write;

use domain::{
    EntityId, OrgId, OrgKey, Origin, OriginStream, Revision, Row, RowVersion, Timestamp, Values,
    Work,
    merge::tidy,
    model::{Org, Record},
};
use store::{Database, Limits, Login, OrgRef, Projection, migrate};

/// One target: a fresh, migrated database with the org `demo`.
pub struct Target {
    pub owner: Database,
    pub ingest: Database,
    pub org: OrgRef,
    pub raw: testkit::Database,
}

impl Target {
    pub async fn fresh() -> Self {
        let raw = database().await;
        let (owner, ingest) = open(&raw);
        migrate::run(&owner).await.unwrap();
        let org = org(1, "demo");
        add_org(&ingest, 1, &org).await;
        Self { owner, ingest, org, raw }
    }

    /// Empties the org's tables.
    pub async fn clear(&self) {
        let sql = "delete from core.values_demo; delete from core.values_demo_current; \
            delete from core.deletions; delete from core.ledger; delete from core.ledger_origins; \
            delete from core.ledger_rows";
        self.owner.run(sql).await.unwrap();
    }
}

/// A fresh database. They are made one after the other: two can't set up the same roles at once.
pub async fn database() -> testkit::Database {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one = ONE.lock().await;
    testkit::postgres::database().await
}

/// The database as its owner and as the writing role.
pub fn open(raw: &testkit::Database) -> (Database, Database) {
    let open = |url| {
        let login = Login { url, pgpass: Some(raw.passfile().to_owned()) };
        Database::open(&login, "haystack-test", Limits::default()).unwrap()
    };
    (open(raw.owner_url()), open(raw.ingest_url()))
}

pub fn org(id: i32, key: &str) -> OrgRef {
    OrgRef { id: OrgId(id), key: OrgKey::parse(key).unwrap() }
}

pub async fn add_org(database: &Database, sequence: u64, org: &OrgRef) {
    let mut projection = Projection::begin(database).await.unwrap();
    let record = Record::Org(Org { id: org.id, key: org.key.clone(), name: org.key.to_string() });
    projection.apply(sequence, &record).await.unwrap();
    projection.commit(sequence).await.unwrap();
}

/// 2026-01-01T00:00:00Z and so many microseconds.
pub fn at(micros: i64) -> Timestamp {
    Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap().plus_micros(micros)
}

/// A live row accepted as message `sequence`.
pub fn row(entity: i32, ts: Timestamp, sequence: u64, values: Values) -> Row {
    let accepted_at = at(sequence as i64);
    let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at };
    let version = RowVersion::new(&origin, Revision(0)).unwrap();
    Row { entity: EntityId(entity), ts, version, values }
}

pub fn rows(mut rows: Vec<Row>) -> Work {
    tidy(&mut rows);
    Work { rows, ..Work::default() }
}
