//! A stream server, two databases and as many instances of ingest as a test wants.

use domain::{
    Batch, Deletion, EntityId, Group, Holds, Letter, OrgKey, Origin, OriginStream, Revision,
    Sample, TargetName, Timestamp, Values, Work,
    merge::{Tables, tidy},
    model::Org,
};
use nats::{
    CancellationToken, Login, Reader, Wire,
    consume::Durable,
    envelope,
    inspect::{self, ingest_consumer},
    publish::{Outgoing, Patience, publish},
    registry::add_org,
    streams::{self, DEAD, Limits, TELEMETRY},
};
use service::{Config, Lifecycle, config::Target};
use std::{collections::BTreeMap, fs, time::Duration};
use store::{Database, OrgRef, migrate, read};
use testkit::{Nats, Postgres};

/// Longest wait for what must happen: a delivery that was lost with its connection comes again
/// after half a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// One target's database, as its owner.
pub struct Base {
    pub owner: Database,
}

pub struct House {
    pub nats: Nats,
    pub admin: Wire,
    pub config: Config,
    pub bases: BTreeMap<TargetName, Base>,
    secrets: tempfile::TempDir,
}

/// A running ingest.
pub struct Instance {
    pub holds: Holds,
    lifecycle: Lifecycle,
}

impl Instance {
    /// Stops it as SIGTERM does; whether it drained in time.
    pub async fn stop(self) -> bool {
        self.lifecycle.shutdown.cancel();
        self.lifecycle.drained().await
    }
}

impl House {
    /// Two migrated databases, `primary` and `secondary`, and the org `demo`.
    pub async fn new() -> Self {
        let mut house = Self::without_targets().await;
        house.add_target("primary", testkit::postgres::shared().await).await;
        house.add_target("secondary", testkit::postgres::shared().await).await;
        house.add_org("demo").await;
        house
    }

    pub async fn without_targets() -> Self {
        let nats = Nats::start().await;
        let admin = connect(&nats, "admin").await;
        streams::declare(&admin, &Limits::default()).await.unwrap();
        let secrets = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        secrets.path().clone_into(&mut config.secrets.dir);
        config.targets.clear();
        Self { nats, admin, config, bases: BTreeMap::new(), secrets }
    }

    /// A fresh, migrated database of that cluster as one more target.
    pub async fn add_target(&mut self, name: &str, cluster: &Postgres) {
        let raw = cluster.database().await;
        let pgpass = self.secrets.path().join("pgpass");
        let known = fs::read_to_string(&pgpass).unwrap_or_default();
        let more = fs::read_to_string(raw.passfile()).unwrap();
        fs::write(&pgpass, known + &more).unwrap();
        fs::set_permissions(&pgpass, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let login = store::Login { url: raw.owner_url(), pgpass: Some(raw.passfile().to_owned()) };
        let owner = Database::open(&login, "haystack-test", store::Limits::default()).unwrap();
        let base = Base { owner };
        migrate::run(&base.owner).await.unwrap();
        let name = target(name);
        let primary = self.config.targets.is_empty();
        let settings =
            Target { url: raw.ingest_url(), owner_url: None, primary, archive: Some(false) };
        self.config.targets.insert(name.clone(), settings);
        self.bases.insert(name, base);
    }

    pub async fn add_org(&self, key: &str) -> Org {
        add_org(&self.admin, org(key), key.to_owned()).await.unwrap().into_inner()
    }

    pub async fn start(&self) -> Instance {
        let wire = connect(&self.nats, "ingest").await;
        let (lifecycle, holds) = (Lifecycle::default(), Holds::default());
        let (config, own, held) = (self.config.clone(), lifecycle.clone(), holds.clone());
        lifecycle.spawn(async move {
            ingest::run(&config, wire, &own, held).await.unwrap();
        });
        Instance { holds, lifecycle }
    }

    pub fn base(&self, name: &str) -> &Base {
        &self.bases[&target(name)]
    }

    /// Publishes a batch; its sequence.
    pub async fn publish(&self, key: &str, batch: &Batch) -> u64 {
        self.publish_bytes(key, envelope::encode(batch)).await
    }

    pub async fn publish_bytes(&self, key: &str, body: bytes::Bytes) -> u64 {
        let id = format!("{:016x}", nats::pack::random());
        let message = Outgoing::new(format!("telemetry.{key}.test"), &id, body);
        publish(&self.admin, message).await.unwrap().sequence()
    }

    /// What the consumer of a target and an org has still to do; `None` where there is none yet.
    pub async fn lag(&self, name: &str, key: &str) -> Option<u64> {
        let consumers = inspect::consumers(&self.admin, TELEMETRY).await.unwrap();
        consumers.get(&ingest_consumer(&target(name), &org(key))).map(inspect::ConsumerState::lag)
    }

    pub async fn drained(&self, name: &str, key: &str) {
        until(&format!("{name} to have all of {key}"), async || {
            self.lag(name, key).await == Some(0)
        })
        .await;
    }

    /// Deletes a consumer, so that everything is delivered again.
    pub async fn forget(&self, name: &str, key: &str) {
        let name = ingest_consumer(&target(name), &org(key));
        let stream = self.admin.jetstream.get_stream(TELEMETRY).await.unwrap();
        stream.delete_consumer(&name).await.unwrap();
    }

    /// What a target holds of an org, in its values table and in `_current`.
    pub async fn tables(&self, name: &str, key: &str) -> Tables {
        let database = &self.base(name).owner;
        let org = self.org_ref(name, key).await;
        let tables = read::tables(database, &org).await.unwrap();
        let current = read::current(database, &org).await.unwrap();
        let current =
            current.into_iter().map(|row| (row.entity, (row.ts, row.version, row.values)));
        assert_eq!(current.collect::<BTreeMap<_, _>>(), tables.current(), "{name}/{key}");
        tables
    }

    pub async fn org_ref(&self, name: &str, key: &str) -> OrgRef {
        let orgs = read::orgs(&self.base(name).owner).await.unwrap();
        orgs.into_iter().find(|found| found.key == org(key)).unwrap()
    }

    /// What the stream asks for, by the merge rule in memory; bodies that can't be read left out.
    pub async fn expected(&self, key: &str) -> Tables {
        let mut tables = Tables::default();
        for delivery in self.read_all(TELEMETRY, &domain::subject::telemetry_of(&org(key))).await {
            let Ok(batch) = envelope::decode::<Batch>(delivery.payload()) else { continue };
            let mut work = Work::default();
            work.add(batch, delivery.position()).unwrap();
            tidy(&mut work.rows);
            tables.apply(&work);
        }
        tables
    }

    /// All dead letters.
    pub async fn letters(&self) -> Vec<Letter> {
        let deliveries = self.read_all(DEAD, "dead.>").await;
        deliveries.iter().map(|found| envelope::decode(found.payload()).unwrap()).collect()
    }

    async fn read_all(&self, stream: &'static str, filter: &str) -> Vec<nats::Delivery> {
        let name = format!("judge-{:016x}", nats::pack::random());
        let patience = Patience {
            holds: Holds::default(),
            what: "judge".to_owned(),
            shutdown: CancellationToken::new(),
        };
        let durable = Durable::new(stream, name.clone(), filter.to_owned());
        let mut reader = Reader::new(self.admin.clone(), durable, patience);
        let messages = inspect::stream(&self.admin, stream).await.unwrap().messages;
        let mut deliveries = Vec::new();
        let mut left = u64::from(messages > 0);
        while left > 0 {
            let next = tokio::time::timeout(Duration::from_secs(1), reader.next()).await;
            let Ok(Some(delivery)) = next else { break };
            left = delivery.pending();
            deliveries.push(delivery);
        }
        let stream = self.admin.jetstream.get_stream(stream).await.unwrap();
        let _ = stream.delete_consumer(&name).await;
        deliveries
    }

    /// Every target holds what the stream asks for.
    pub async fn all_equal_the_stream(&self, key: &str) {
        let expected = self.expected(key).await;
        for name in self.bases.keys() {
            self.drained(name.as_str(), key).await;
            assert_eq!(self.tables(name.as_str(), key).await, expected, "{name}/{key}");
        }
    }
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let looked = async {
        while !so().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looked).await.is_ok(), "waited in vain for {what}");
}

/// Waits until something is held; why.
pub async fn held(instance: &Instance, what: &str) -> String {
    let find = || instance.holds.list().into_iter().find(|hold| hold.what == what);
    until(&format!("{what} to be held"), async || find().is_some()).await;
    find().map(|hold| hold.why).unwrap_or_default()
}

pub async fn connect(nats: &Nats, user: &str) -> Wire {
    let (url, password) = (nats.url(), nats.password(user));
    Wire::connect(&Login { url, user: user.to_owned(), password }).await.unwrap()
}

pub fn target(name: &str) -> TargetName {
    name.parse().unwrap()
}

pub fn org(key: &str) -> OrgKey {
    key.parse().unwrap()
}

pub fn at(micros: i64) -> Timestamp {
    Timestamp::EPOCH.plus_micros(micros)
}

pub fn origin(sequence: u64) -> Origin {
    Origin {
        stream: OriginStream::Raw,
        sequence,
        index: 0,
        accepted_at: at(1_000 + sequence as i64),
    }
}

/// Readings of one device message.
pub fn group(origin: Option<Origin>, samples: Vec<(i32, i64, Values)>) -> Group {
    let sample = |(entity, ts, values)| Sample { entity: EntityId(entity), ts: at(ts), values };
    Group {
        origin,
        revision: Revision(0),
        device: origin.map(|_| "TS-1".parse().unwrap()),
        profile_version: 1,
        samples: samples.into_iter().map(sample).collect(),
    }
}

pub fn batch(groups: Vec<Group>) -> Batch {
    Batch { groups, ..Batch::default() }
}

/// One reading that enters the platform here.
pub fn reading(entity: i32, ts: i64, n: f64) -> Batch {
    batch(vec![group(None, vec![(entity, ts, Values::number(n))])])
}

pub fn tombstone(origin: Origin, entities: &[i32], from: i64, to: i64) -> Deletion {
    Deletion {
        origin: Some(origin),
        revision: Revision(0),
        entities: entities.iter().copied().map(EntityId).collect(),
        from: at(from),
        to: at(to),
    }
}
