//! Private servers with the configuration that we ship, one org, and our services beside them.

use crate::{
    databases::Target,
    feed::ENTITIES,
    message::{self, DEVICES, METRICS},
    process::Service,
    report::progress,
};
use anyhow::{Context, Result};
use domain::{
    Clock, DeviceId, EntityId, OrgKey, SystemClock, TargetName, TypeId,
    device_type::{
        DeviceType, Kind, Metric, ProcessingMode, ProtocolAdapter, TimeFormat, TimestampRule,
        UnknownMetrics,
    },
    model::{Device, Entity, Org, Point, Record},
    tags::{TagValue, Tags},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use nats::{
    Login, Wire,
    counter::{Counter, allocate},
    model, registry, streams,
};
use serde::Serialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};
use store::OrgRef;
use testkit::{Mosquitto, Nats};
use tokio::sync::OnceCell;

/// Records written to `MODEL` at once.
const WRITES: usize = 64;

/// Everything that a measure uses.
pub(crate) struct Stack {
    haystack: PathBuf,
    /// Configuration and logs of our services. The guard of the private servers removes it, and
    /// ends what was started from it.
    folder: PathBuf,
    nats: Nats,
    /// The broker, without sessions after [`Stack::new_broker`].
    pub(crate) mosquitto: Mosquitto,
    /// Two databases, each in a cluster of its own.
    pub(crate) targets: Vec<Target>,
    /// Simulators' state, in the first of these clusters.
    state: testkit::Database,
    /// May do everything.
    pub(crate) admin: Wire,
    /// As the bridge.
    pub(crate) bridge: Wire,
    /// Whose readings they are.
    pub(crate) org: OrgRef,
    /// Devices are registered once.
    registered: OnceCell<()>,
}

/// Which servers, configured how.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Configuration {
    /// Programs and their versions.
    pub(crate) versions: Vec<String>,
    /// PostgreSQL's settings, the same for every measure and every cluster.
    pub(crate) postgresql: Vec<String>,
    /// The shipped files as they are.
    pub(crate) nats_server: &'static str,
    mosquitto: &'static str,
}

impl Stack {
    /// Starts the servers and makes an org `bench` in the streams and both databases.
    pub(crate) async fn start(haystack: PathBuf) -> Result<Self> {
        let nats = Nats::start().await;
        let mosquitto = Mosquitto::start().await;
        let targets = vec![Target::start("primary").await?, Target::start("secondary").await?];
        let folder = nats.secrets().parent().context("secrets lie in a folder")?.join("bench");
        local::secret::private_folder(&folder)?;
        let admin = connect(&nats, "admin").await?;
        streams::declare(&admin, &streams::Limits::default()).await?;
        let bridge = connect(&nats, "bridge").await?;
        let org = registry::add_org(&admin, OrgKey::parse("bench")?, "Bench".to_owned()).await?;
        let org: Org = org.into_inner();
        let record = Record::Org(org.clone());
        let found = model::get(&admin, &record.subject().to_string()).await?;
        let (sequence, _) = found.context("the org was just written")?;
        for target in &targets {
            target.make_org(sequence, &record).await?;
        }
        let org = OrgRef { id: org.id, key: org.key };
        let state = targets[0].state().await?;
        let stack = Self {
            haystack,
            folder,
            nats,
            mosquitto,
            targets,
            state,
            admin,
            bridge,
            org,
            registered: OnceCell::new(),
        };
        stack.write_secrets()?;
        Ok(stack)
    }

    /// A folder on the disk that the servers use.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Which servers run, configured how.
    pub(crate) async fn configuration(&self) -> Result<Configuration> {
        let first = self.targets.first().context("there are targets")?;
        Ok(Configuration {
            versions: vec![
                first.version().await?,
                format!("Mosquitto {}", local::find::mosquitto()?.version),
                format!("nats-server {}", local::find::nats_server()?.version),
            ],
            postgresql: first.settings().await?,
            nats_server: local::nats::CONFIG,
            mosquitto: local::mosquitto::CONFIG,
        })
    }

    fn write_secrets(&self) -> Result<()> {
        let secrets = self.folder.join("secrets");
        local::secret::private_folder(&secrets)?;
        for user in local::nats::USERS {
            let name = local::nats::secret_name(user);
            local::secret::write(&secrets.join(name), self.nats.password(user).as_bytes())?;
        }
        for name in [local::mosquitto::SECRET, local::mosquitto::SESSION] {
            let secret = std::fs::read(self.mosquitto.secrets().join(name))?;
            local::secret::write(&secrets.join(name), &secret)?;
        }
        let lines: Vec<String> = self.targets.iter().map(Target::pgpass).collect::<Result<_>>()?;
        local::secret::write(&self.pgpass(), lines.concat().as_bytes())
    }

    /// Starts one of our services with the first `targets` databases.
    pub(crate) fn service(&self, role: &'static str, targets: usize) -> Result<Service> {
        self.service_with(role, targets, false)
    }

    /// The same; `archive`: the primary keeps device messages as they came.
    pub(crate) fn service_with(
        &self,
        role: &'static str,
        targets: usize,
        archive: bool,
    ) -> Result<Service> {
        self.launch(role, &self.config(targets, archive)?)
    }

    /// Starts the API; the address at which it will answer.
    pub(crate) fn api(&self) -> Result<(Service, SocketAddr)> {
        let config = self.config(self.targets.len(), false)?;
        Ok((self.launch("control-api", &config)?, config.api.http))
    }

    /// A command of ours with the configuration of a service that ran.
    pub(crate) fn command(&self, role: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.haystack);
        command.arg("--config").arg(self.folder.join(format!("{role}.toml"))).kill_on_drop(true);
        command
    }

    fn launch(&self, role: &'static str, config: &service::Config) -> Result<Service> {
        let file = self.folder.join(format!("{role}.toml"));
        local::secret::write(&file, toml::to_string(config)?.as_bytes())?;
        Service::start(&self.haystack, role, &file, self.folder.join(format!("{role}.log")))
    }

    fn config(&self, targets: usize, archive: bool) -> Result<service::Config> {
        let http = || {
            let port = local::port::free(&[])?;
            anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let mut config = service::Config::default();
        config.secrets.dir = self.folder.join("secrets");
        config.nats.url = self.nats.url();
        config.mqtt.url = self.mosquitto.url();
        config.bridge.http = http()?;
        config.ingest.http = http()?;
        config.simulator.http = http()?;
        config.api.http = http()?;
        config.state.url = Some(self.state.simulator_url());
        config.targets.clear();
        for (place, target) in self.targets.iter().take(targets).enumerate() {
            let primary = place == 0;
            let archive = Some(primary && archive);
            let entry =
                service::config::Target { url: target.url(), owner_url: None, primary, archive };
            config.targets.insert(TargetName::parse(target.name)?, entry);
        }
        Ok(config)
    }

    /// The file with the passwords of both clusters.
    pub(crate) fn pgpass(&self) -> PathBuf {
        self.folder.join("secrets/pgpass")
    }

    /// nats-server's process.
    pub(crate) fn nats_pid(&self) -> u32 {
        self.nats.pid().unwrap_or(0)
    }

    /// The folder of the authority, with certificates of the first devices.
    pub(crate) fn certificates(&self, devices: u64) -> Result<PathBuf> {
        const DAYS: u32 = 30;
        let authority = self.mosquitto.authority();
        for number in 0..devices {
            let id = DeviceId::parse(&crate::feed::device_name(number))?;
            if !authority.device(&id).0.exists() {
                authority.issue(&id, DAYS, SystemClock.now())?;
            }
        }
        Ok(authority.folder().to_owned())
    }

    /// Removes all messages of a stream.
    pub(crate) async fn purge(&self, stream: &str) -> Result<()> {
        self.admin.jetstream.get_stream(stream).await?.purge().await?;
        Ok(())
    }

    /// Forgets how far our services are: they start from the beginning of each stream.
    pub(crate) async fn forget_consumers(&self) -> Result<()> {
        for name in [streams::RAW, streams::TELEMETRY] {
            let stream = self.admin.jetstream.get_stream(name).await?;
            for consumer in nats::inspect::consumers(&self.admin, name).await?.into_keys() {
                stream.delete_consumer(&consumer).await?;
            }
        }
        Ok(())
    }

    /// The broker anew, without sessions or queues.
    pub(crate) async fn new_broker(&self) -> Result<()> {
        self.mosquitto.stop().await;
        let data = self.mosquitto.server().folder().join("data");
        for file in std::fs::read_dir(data)? {
            std::fs::remove_file(file?.path())?;
        }
        self.mosquitto.launch().await;
        Ok(())
    }

    /// Registers the devices that `load` speaks for, and one more.
    pub(crate) async fn register_devices(&self) -> Result<()> {
        self.registered.get_or_try_init(|| self.register()).await?;
        Ok(())
    }

    async fn register(&self) -> Result<()> {
        progress("registering devices");
        let definition = device_type()?;
        registry::apply_device_type(&self.admin, &self.org.key, definition.clone()).await?;
        let count = (DEVICES + 1) * METRICS;
        let mut ids = allocate(&self.admin, Counter::Entity, count as u32).await?;
        let (mut devices, mut entities) = (Vec::new(), Vec::new());
        for number in 0..=DEVICES {
            let (device, points) = self.device(number, &definition, &mut ids)?;
            devices.push(Record::Device(device));
            entities.extend(points);
        }
        // Entities refer to nothing but the org; devices refer to them.
        for records in [entities, devices] {
            let put = |record: Record| async move { model::put(&self.admin, &record, 0).await };
            let puts = stream::iter(records).map(put).buffer_unordered(WRITES);
            puts.try_collect::<Vec<u64>>().await?;
        }
        Ok(())
    }

    /// Registers devices without metrics of their own worth a point: they only say that they are there.
    pub(crate) async fn register_crowd(&self, count: u32) -> Result<()> {
        progress("registering the crowd");
        self.register_devices().await?;
        let of_type = device_type()?.device_type;
        let devices = (DEVICES + 1..count.into()).map(|number| {
            let id = DeviceId::parse(&crate::feed::device_name(number))?;
            anyhow::Ok(Record::Device(Device {
                role: domain::model::Role::Endpoint,
                id: id.clone(),
                org: self.org.key.clone(),
                org_id: self.org.id,
                device_type: of_type.clone(),
                name: id.to_string(),
                points: std::collections::BTreeMap::new(),
            }))
        });
        let devices = devices.collect::<Result<Vec<_>>>()?;
        let put = |record: Record| async move { model::put(&self.admin, &record, 0).await };
        stream::iter(devices).map(put).buffer_unordered(WRITES).try_collect::<Vec<u64>>().await?;
        Ok(())
    }

    /// The entities of [`crate::feed`], each of the kind of its values: the number of the first, the
    /// others follow it.
    pub(crate) async fn register_entities(&self) -> Result<u64> {
        progress("registering entities");
        let ids = allocate(&self.admin, Counter::Entity, ENTITIES as u32).await?;
        let first = ids.start as u64;
        let put = |id: i32| async move {
            let kind = match message::reading_kind(id as u64 - first) {
                message::Kind::Number => "Number",
                message::Kind::Boolean => "Bool",
                message::Kind::Text => "Str",
            };
            let record = Record::Entity(Entity {
                id: EntityId(id),
                org: self.org.key.clone(),
                org_id: self.org.id,
                name: format!("point {id}"),
                tags: Tags::from([("kind".to_owned(), TagValue::Str(kind.to_owned()))]),
            });
            model::put(&self.admin, &record, 0).await
        };
        stream::iter(ids).map(put).buffer_unordered(WRITES).try_collect::<Vec<u64>>().await?;
        Ok(first)
    }

    fn device(
        &self,
        number: u64,
        definition: &DeviceType,
        ids: &mut impl Iterator<Item = i32>,
    ) -> Result<(Device, Vec<Record>)> {
        let id = DeviceId::parse(&crate::feed::device_name(number))?;
        let mut device = Device {
            role: domain::model::Role::Endpoint,
            id: id.clone(),
            org: self.org.key.clone(),
            org_id: self.org.id,
            device_type: definition.device_type.clone(),
            name: id.to_string(),
            points: std::collections::BTreeMap::new(),
        };
        let mut entities = Vec::new();
        for (name, metric) in &definition.metrics {
            let entity = EntityId(ids.next().context("as many as were asked for")?);
            device.points.insert(name.clone(), Point { entity, kind: metric.kind });
            entities.push(Record::Entity(Entity {
                id: entity,
                org: self.org.key.clone(),
                org_id: self.org.id,
                name: format!("{id} {name}"),
                tags: Tags::from([("device".to_owned(), TagValue::Str(id.to_string()))]),
            }));
        }
        Ok((device, entities))
    }
}

async fn connect(nats: &Nats, user: &str) -> Result<Wire> {
    let login = Login { url: nats.url(), user: user.to_owned(), password: nats.password(user) };
    Ok(Wire::connect(&login).await?)
}

/// Thirty metrics, of which a message may hold any.
fn device_type() -> Result<DeviceType> {
    let metric = |number: u64| {
        let name = message::metric_name(number);
        let kind = match message::metric_kind(number) {
            message::Kind::Number => Kind::Number,
            message::Kind::Boolean => Kind::Boolean,
            message::Kind::Text => Kind::String,
        };
        let pointer = format!("/{name}");
        (
            name,
            Metric { pointer, kind, unit: None, scale: None, offset: None, tags: Tags::default() },
        )
    };
    let timestamp = TimestampRule { pointer: "/ts".to_owned(), format: TimeFormat::Rfc3339 };
    Ok(DeviceType {
        logical_devices: None,
        chunks: None,
        gateway_metrics: std::collections::BTreeMap::new(),
        device_type: TypeId::parse("bench-device")?,
        processing_mode: ProcessingMode::Endpoint,
        protocol_adapter: ProtocolAdapter::Json,
        timestamp: Some(timestamp),
        message_id: None,
        receipts: false,
        unknown_metrics: UnknownMetrics::Ignore,
        metrics: (0..METRICS).map(metric).collect(),
        examples: Vec::new(),
    })
}
