//! The bridge between a real broker and a real stream server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dead;
mod flow;
mod gateway;
mod outages;
mod proxy;

use domain::{
    Batch, DeviceId, EntityId, Holds, Letter, OrgId, OrgKey, TypeId,
    device_type::{DeviceType, Kind},
    model::{Device, Org, Point, Profile, Record, Role, TypeHead},
    raw::{Pack, ProfileRef},
};
use futures_util::StreamExt;
use nats::{
    Login, Wire, envelope, model,
    report::{self, Report},
    streams::{self, Limits},
};
use service::{Config, Lifecycle};
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use testkit::{Mosquitto, Nats, eventually};
use tokio::{io::AsyncWriteExt, task::JoinHandle};

/// The device that everybody knows; entity 1 is its `temperature`, 2 its `humidity`.
pub(crate) const DEVICE: &str = "TS-1";
const TYPE: &str = r#"{"device_type":"sensor","processing_mode":"endpoint",
    "protocol_adapter":"json","timestamp":{"pointer":"/ts","format":"rfc3339"},"metrics":{
    "temperature":{"pointer":"/temperature","kind":"number"},
    "humidity":{"pointer":"/humidity","kind":"number"},
    "unmapped":{"pointer":"/unmapped","kind":"number"}}}"#;

/// A broker, a stream server with streams and a model, and a folder of secrets.
pub(crate) struct Stage {
    nats: Nats,
    mosquitto: Mosquitto,
    admin: Wire,
    secrets: tempfile::TempDir,
}

/// A running bridge.
pub(crate) struct Bridge {
    holds: Holds,
    lifecycle: Lifecycle,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(&Limits::default()).await
    }

    pub(crate) async fn with(limits: &Limits) -> Self {
        let (nats, mosquitto) = tokio::join!(Nats::start(), Mosquitto::start());
        let secrets = tempfile::tempdir().unwrap();
        for name in ["mqtt-bridge", "mqtt-session"] {
            std::fs::copy(mosquitto.secrets().join(name), secrets.path().join(name)).unwrap();
        }
        let admin = wire(&nats, "admin").await;
        streams::declare(&admin, limits).await.unwrap();
        for record in records() {
            model::put(&admin, &record, 0).await.unwrap();
        }
        Self { nats, mosquitto, admin, secrets }
    }

    pub(crate) async fn bridge(&self) -> Bridge {
        self.bridge_at(&self.mosquitto.url()).await
    }

    /// A bridge that finds its broker at another address, and is subscribed there.
    pub(crate) async fn bridge_at(&self, mqtt_url: &str) -> Bridge {
        let mut config = Config::default();
        config.secrets.dir = self.secrets.path().to_owned();
        mqtt_url.clone_into(&mut config.mqtt.url);
        let wire = wire(&self.nats, "bridge").await;
        let (holds, lifecycle) = (Holds::default(), Lifecycle::default());
        let (his_holds, his_life) = (holds.clone(), lifecycle.clone());
        let task =
            tokio::spawn(async move { bridge::run(&config, wire, &his_life, his_holds).await });
        let bridge = Bridge { holds, lifecycle, task };
        self.subscribed().await;
        bridge
    }

    /// The first bridge's session begins with its subscription: what is sent before is nobody's.
    async fn subscribed(&self) {
        let before = self.raw().await.len();
        eventually("the bridge's subscription", || async {
            self.publish("nobody", [String::new()]).await;
            let now = self.raw().await.len();
            if now > before { Ok(()) } else { Err("nothing arrives".to_owned()) }
        })
        .await;
    }

    /// Publishes with a client that is not ours, one message a line, at QoS 1. `false`: the broker
    /// did not say yes to all.
    pub(crate) async fn try_publish(
        &self,
        device: &str,
        lines: impl IntoIterator<Item = String>,
    ) -> bool {
        let topic = format!("devices/{device}/telemetry");
        let mut child = tokio::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.mosquitto.port().to_string()])
            .args(["-q", "1", "-l", "-t", &topic])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_pub is installed (make setup)");
        let mut input = child.stdin.take().unwrap();
        for line in lines {
            if input.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                break;
            }
        }
        drop(input);
        child.wait().await.unwrap().success()
    }

    pub(crate) async fn publish(&self, device: &str, lines: impl IntoIterator<Item = String>) {
        assert!(self.try_publish(device, lines).await, "the broker runs");
    }

    /// Bodies of all messages of a stream, by sequence.
    async fn bodies(&self, stream: &str) -> BTreeMap<u64, bytes::Bytes> {
        let Ok(stream) = self.admin.jetstream.get_stream(stream).await else {
            return BTreeMap::new();
        };
        let one = async |sequence| {
            stream.direct_get(sequence).await.ok().map(|message| (sequence, message.payload))
        };
        let all = futures_util::stream::iter(1..=stream.cached_info().state.last_sequence);
        all.map(one).buffered(64).filter_map(std::future::ready).collect().await
    }

    /// Payloads of the known device in `RAW`, in the stream's order.
    pub(crate) async fn raw_of_device(&self) -> Vec<String> {
        let entries = self.raw().await.into_iter();
        entries.filter(|(name, _)| name == DEVICE).map(|(_, payload)| payload).collect()
    }

    /// Names and payloads in `RAW`, in the stream's order.
    pub(crate) async fn raw(&self) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        for body in self.bodies("RAW").await.values() {
            let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(body) else { continue };
            for entry in pack.entries {
                let payload = String::from_utf8_lossy(&entry.payload).into_owned();
                entries.push((entry.name.to_string(), payload));
            }
        }
        entries
    }

    pub(crate) async fn telemetry(&self) -> Vec<Batch> {
        let bodies = self.bodies("TELEMETRY").await;
        bodies.values().map(|body| envelope::decode(body).unwrap()).collect()
    }

    /// The values of the known device's temperature in `TELEMETRY`, and how often each is there.
    pub(crate) async fn temperatures(&self) -> BTreeMap<u32, usize> {
        let mut found = BTreeMap::new();
        for group in self.telemetry().await.into_iter().flat_map(|batch| batch.groups) {
            for sample in group.samples.iter().filter(|sample| sample.entity == EntityId(1)) {
                *found.entry(sample.values.n.unwrap() as u32).or_default() += 1;
            }
        }
        found
    }

    /// Waits until readings 0 to `sent` are in `TELEMETRY`.
    pub(crate) async fn all_normalized(&self, sent: u32) {
        eventually("all readings", || async {
            let found = self.temperatures().await;
            let lost: Vec<u32> = (0..sent).filter(|n| !found.contains_key(n)).collect();
            if lost.is_empty() {
                return Ok(());
            }
            Err(format!("{} of {sent} are missing, first {}", lost.len(), lost[0]))
        })
        .await;
    }

    pub(crate) async fn letters(&self) -> Vec<Letter> {
        let bodies = self.bodies("DEAD").await;
        let letters = bodies.values().map(|body| envelope::decode::<Letter>(body).unwrap());
        letters.filter(|letter| letter.sender != "nobody").collect()
    }

    /// Waits until the bridge has counted at least so many.
    pub(crate) async fn counts(&self, what: &str, wanted: u64) {
        eventually(&format!("{wanted} {what} counted"), || async {
            let counted = self.report().await.counters[what];
            if counted >= wanted { Ok(()) } else { Err(format!("{counted}")) }
        })
        .await;
    }

    /// What the bridge says of itself.
    pub(crate) async fn report(&self) -> Report {
        let reports = report::gather(&self.admin, Duration::from_millis(200)).await;
        reports.into_iter().find(|report| report.service == "bridge").expect("it answers")
    }
}

impl Bridge {
    /// Waits until something of that name is held; gives the reason.
    pub(crate) async fn held(&self, what: &str) -> String {
        eventually(&format!("hold of {what}"), || async {
            let holds = self.holds.list();
            let found = holds.iter().find(|hold| hold.what == what);
            found.map(|hold| hold.why.clone()).ok_or_else(|| format!("{holds:?}"))
        })
        .await
    }

    /// Waits until nothing is held.
    pub(crate) async fn flows(&self) {
        eventually("an end of all holds", || async {
            let holds = self.holds.list();
            if holds.is_empty() { Ok(()) } else { Err(format!("{holds:?}")) }
        })
        .await;
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.lifecycle.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("it ends within 10 s").unwrap().unwrap();
    }
}

async fn wire(nats: &Nats, user: &str) -> Wire {
    let (url, password) = (nats.url(), nats.password(user));
    Wire::connect(&Login { url, user: user.to_owned(), password }).await.unwrap()
}

fn records() -> Vec<Record> {
    let (org, org_id) = (OrgKey::parse("demo").unwrap(), OrgId(1));
    let definition: DeviceType = serde_json::from_str(TYPE).unwrap();
    let device_type = TypeId::parse("sensor").unwrap();
    let current = ProfileRef { id: device_type.clone(), version: 1 };
    let point = |entity| Point { entity: EntityId(entity), kind: Kind::Number };
    let points = [("temperature".to_owned(), point(1)), ("humidity".to_owned(), point(2))].into();
    let device = Device {
        id: DeviceId::parse(DEVICE).unwrap(),
        org: org.clone(),
        org_id,
        device_type,
        name: DEVICE.to_owned(),
        role: Role::Endpoint,
        points,
    };
    vec![
        Record::Org(Org { id: org_id, key: org.clone(), name: "Demo".to_owned() }),
        Record::Profile(Box::new(Profile { org: org.clone(), org_id, version: 1, definition })),
        Record::DeviceType(TypeHead { org, org_id, current }),
        Record::Device(device),
    ]
}

/// Reading number `n` of the known device.
pub(crate) fn reading(n: u32) -> String {
    format!("{{\"ts\":\"2026-01-01T00:00:00.{n:06}Z\",\"temperature\":{n}}}")
}

/// The number of a payload that [`reading`] made.
pub(crate) fn number(payload: &str) -> u32 {
    payload.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap()
}
