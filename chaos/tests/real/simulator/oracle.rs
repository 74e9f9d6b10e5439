//! What a simulator should have made, worked out from its building alone, and what the stream and
//! the databases hold.

use building::Plan;
use domain::{
    Batch, EntityId, Holds, SimulatorId, Timestamp, Values, model::Poller,
    simulator::SimulatorConfig,
};
use futures_util::StreamExt;
use nats::{CancellationToken, Login, Reader, Wire, consume::Durable, envelope, publish::Patience};
use std::{collections::BTreeMap, time::Duration};
use testkit::{Database, Platform, eventually, platform::connect};

/// Readings by entity and moment.
pub type Readings = BTreeMap<(EntityId, Timestamp), Values>;

/// Entity, moment and values, moments in microseconds.
type Row = (i32, i64, Option<f64>, Option<bool>, Option<String>, Option<i64>);

/// Knows what one simulator should make.
pub struct Oracle {
    pub id: SimulatorId,
    wire: Wire,
    pub poller: Poller,
    pub config: SimulatorConfig,
}

pub fn moment(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).expect("a moment")
}

impl Oracle {
    pub async fn new(platform: &Platform, id: SimulatorId) -> Self {
        let (url, user) = (platform.nats.url(), "admin".to_owned());
        let password = platform.nats.password(&user);
        let wire = Wire::connect(&Login { url, user, password }).await.unwrap();
        let directory = nats::model::load(&wire).await.unwrap();
        let poller = Poller::clone(directory.poller(id).expect("it was just made"));
        let config = serde_json::from_str(&poller.config).unwrap();
        Self { id, wire, poller, config }
    }

    /// What its building reports from where it begins to a moment.
    pub fn expected(&self, until: Timestamp) -> Readings {
        let plan = Plan::read(&self.config.building).unwrap();
        let mut memory = plan.begin(self.config.seed, self.config.begins.expect("it has one"));
        let mut readings = Readings::new();
        let interval = i64::from(plan.interval_minutes()) * 60_000_000;
        while memory.at.plus_micros(interval) <= until {
            let ts = memory.at.plus_micros(interval);
            plan.step(&mut memory, |point, values| {
                let key = &plan.entities()[plan.points()[point].entity].key;
                readings.insert((self.poller.entities[key], ts), values);
            });
        }
        readings
    }

    /// What the micro services of simulators say of themselves.
    pub async fn micro_services(&self) -> String {
        let answer = self.wire.client.request("$SRV.INFO.simulator", "".into()).await.unwrap();
        String::from_utf8_lossy(&answer.payload).into_owned()
    }

    /// Removes the bucket of leases.
    pub async fn lose_leases(&self) {
        self.wire.jetstream.delete_stream("KV_leases").await.unwrap();
    }

    /// Puts a message onto the simulator's own subject that bears nothing of ours.
    pub async fn stranger(&self) {
        let subject = format!("telemetry.demo.simulator-{}", self.id);
        let body = envelope::encode(&domain::Batch::default());
        let message = nats::publish::Outgoing::new(subject, "stranger", body);
        nats::publish::publish(&self.wire, message).await.unwrap();
    }

    /// How much it told in `EVENTS`.
    pub async fn events(&self) -> usize {
        let stream = self.wire.jetstream.get_stream_no_info("EVENTS").await.unwrap();
        let filter = format!("event.demo.simulator.{}", self.id);
        let mut subjects = stream.info_with_subjects(filter).await.unwrap();
        let mut events = 0;
        while let Some(Ok((_, count))) = subjects.next().await {
            events += count;
        }
        events
    }

    /// All that it published, in the order of the stream; a reading that is there twice is told.
    pub async fn published(&self) -> Readings {
        let patience = Patience {
            holds: Holds::default(),
            what: "oracle".to_owned(),
            shutdown: CancellationToken::new(),
        };
        let name = format!("oracle-{:016x}", nats::pack::random());
        let subject = format!("telemetry.demo.simulator-{}", self.id);
        let durable = Durable::new("TELEMETRY", name, subject);
        let mut reader = Reader::new(self.wire.clone(), durable, patience);
        let mut readings = Readings::new();
        let limit = Duration::from_secs(5);
        while let Ok(Some(delivery)) = tokio::time::timeout(limit, reader.next()).await {
            let batch: Batch = envelope::decode(delivery.payload()).unwrap();
            for sample in batch.groups.into_iter().flat_map(|group| group.samples) {
                let key = (sample.entity, sample.ts);
                let before = readings.insert(key, sample.values);
                assert!(before.is_none(), "simulator {} reported {key:?} twice", self.id);
            }
            if delivery.pending() == 0 {
                break;
            }
        }
        readings
    }

    /// What a database holds of its entities.
    pub async fn stored(&self, database: &Database) -> Result<Readings, String> {
        let mut connection = connect(&database.superuser()).await?;
        let entities: Vec<i32> = self.poller.entities.values().map(|id| id.0).collect();
        let sql = "select entity_id, (extract(epoch from ts) * 1000000)::bigint, value_n, value_b, \
                   value_s, (extract(epoch from value_ts) * 1000000)::bigint \
                   from core.values_demo where entity_id = any($1)";
        let rows: Vec<Row> = sqlx::query_as(sql)
            .bind(entities)
            .fetch_all(&mut connection)
            .await
            .map_err(|error| error.to_string())?;
        let at = |micros| Timestamp::from_micros(micros).expect("a moment");
        let read = |(entity, ts, n, b, s, time): Row| {
            let values = Values { n, b, s: s.map(Into::into), ts: time.map(at) };
            ((EntityId(entity), at(ts)), values)
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Waits until both databases hold what it should have made up to a moment, and nothing else;
    /// and looks whether the stream has each reading once.
    pub async fn arrives(&self, platform: &Platform, until: &str) {
        let expected = self.expected(moment(until));
        assert!(!expected.is_empty());
        for database in [&platform.primary, &platform.secondary] {
            eventually(&format!("simulator {}", self.id), || async {
                same(&self.stored(database).await?, &expected)
            })
            .await;
        }
        same(&self.published().await, &expected).unwrap();
    }
}

/// Whether two are the same; what differs, in few words.
pub fn same(found: &Readings, expected: &Readings) -> Result<(), String> {
    let missing = expected.keys().filter(|key| !found.contains_key(key)).count();
    let extra = found.keys().filter(|key| !expected.contains_key(key)).count();
    let other = expected.iter().find(|(key, values)| found.get(key).is_some_and(|f| f != *values));
    if missing == 0 && extra == 0 && other.is_none() {
        return Ok(());
    }
    let other = other.map(|(key, values)| format!("{key:?}: {:?}, not {values:?}", found[key]));
    Err(format!("{missing} missing, {extra} too many, {other:?}"))
}
