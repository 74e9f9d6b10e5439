//! The four servers under `up`: NATS, Mosquitto, and PostgreSQL for the primary and the secondary.

use super::{
    certificates,
    child::{Child, Ending, Spec},
    folder::Folder,
    notice,
    orphans::Pattern,
    ports::{self, Ports},
};
use anyhow::{Context, Result};
use domain::{Clock, SystemClock};
use local::{
    Mosquitto, Nats, Postgres, Roles, Server, account, mosquitto::Listeners, pki::Authority,
    postgres, roles,
};
use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};
use tokio::task::{JoinHandle, spawn_blocking};

/// The clusters, the primary first, and the databases in each.
const CLUSTERS: [(&str, &[&str]); 2] =
    [("primary", &[roles::BUILDING, roles::STATE]), ("secondary", &[roles::BUILDING])];

/// The servers, laid out.
pub(crate) struct Servers {
    nats: Arc<Nats>,
    mosquitto: Arc<Mosquitto>,
    authority: Authority,
    clusters: [Cluster; 2],
}

/// Where `up` lets devices in by certificate.
#[derive(Debug, Clone)]
pub(crate) struct Doorstep {
    /// The address that the broker's listeners with certificates bind.
    pub(crate) bind: IpAddr,
    /// Names and addresses by which devices reach this machine.
    pub(crate) hosts: Vec<String>,
    /// Whether anybody may come over WebSocket, without a certificate.
    pub(crate) ws: bool,
    /// Whether they may come over WebSocket.
    pub(crate) wss: bool,
}

impl Default for Doorstep {
    fn default() -> Self {
        Self { bind: Ipv4Addr::LOCALHOST.into(), hosts: Vec::new(), ws: false, wss: false }
    }
}

/// One PostgreSQL.
struct Cluster {
    postgres: Arc<Postgres>,
    roles: Roles,
    databases: &'static [&'static str],
}

/// How the servers of an earlier `up` on this folder are recognised, in the order of stopping.
pub(crate) fn patterns(folder: &Folder) -> Vec<Pattern> {
    let places = |sub: &str, file: &str| -> Vec<Vec<OsString>> {
        let homes = account::homes(&folder.path().join(sub));
        homes.iter().map(|home| vec![home.join(file).into_os_string()]).collect()
    };
    let pattern = |name, program, arguments, ending| Pattern { name, program, arguments, ending };
    let data = |sub| places(sub, "data");
    vec![
        pattern("mosquitto", "mosquitto", places("mosquitto", "mosquitto.conf"), Ending::SERVER),
        pattern("nats", "nats-server", places("nats", "nats-server.conf"), Ending::SERVER),
        pattern("postgres-primary", "postgres", data("postgres-primary"), Ending::POSTGRES),
        pattern("postgres-secondary", "postgres", data("postgres-secondary"), Ending::POSTGRES),
    ]
}

impl Servers {
    /// Lays them out in the folder; the databases' clusters are made at the first start.
    pub(crate) async fn lay_out(
        folder: &Folder,
        ports: &Ports,
        doorstep: Doorstep,
    ) -> Result<Self> {
        let [primary, secondary] = CLUSTERS.map(|(name, databases)| {
            let (folder, ports) = (folder.clone(), ports.clone());
            spawn_blocking(move || Cluster::lay_out(&folder, &ports, name, databases))
        });
        let (of_others, ports) = (folder.clone(), ports.clone());
        let others = spawn_blocking(move || -> Result<_> {
            let (path, secrets) = (of_others.path(), of_others.secrets());
            let nats = Nats::lay_out(&path.join("nats"), &secrets, ports.of("nats"))?;
            let now = SystemClock.now();
            let authority = Authority::init(&of_others.pki(), &doorstep.hosts, now)?;
            let wanted = path.join("mosquitto");
            let listeners = Listeners {
                mqtt: ports.of("mosquitto"),
                mqtts: ports.of(ports::MQTTS),
                ws: doorstep.ws.then(|| ports.of(ports::MQTT_WS)),
                wss: doorstep.wss.then(|| ports.of(ports::MQTT_WSS)),
                bind: doorstep.bind,
            };
            if doorstep.ws {
                notice::say(
                    "over WebSocket (--mqtt-ws) the broker takes anybody from any network: Mosquitto \
                     keeps to no address there. Close the port to others",
                );
            }
            if doorstep.wss {
                notice::say(
                    "over WebSocket (--mqtt-wss) revoked certificates get in until they expire",
                );
            }
            let mosquitto = Mosquitto::lay_out(&wanted, &secrets, listeners, &authority)?;
            say_where("mosquitto", &wanted, mosquitto.folder());
            Ok((Arc::new(nats), Arc::new(mosquitto), authority))
        });
        let (primary, secondary, others) = tokio::try_join!(primary, secondary, others)
            .context("a task that lays out the servers was lost")?;
        let (nats, mosquitto, authority) = others?;
        Ok(Self { nats, mosquitto, authority, clusters: [primary?, secondary?] })
    }

    /// Starts them all, with no wait; none where one can't be.
    pub(crate) fn start(&self, folder: &Folder) -> Result<Started> {
        let [primary, secondary] = &self.clusters;
        let nats = spec(&self.nats, Ending::SERVER, folder)?;
        let mosquitto = spec(&self.mosquitto, Ending::SERVER, folder)?;
        let primary = spec(&primary.postgres, Ending::POSTGRES, folder)?;
        let secondary = spec(&secondary.postgres, Ending::POSTGRES, folder)?;
        let mosquitto = Child::start(mosquitto);
        let keeper =
            certificates::keep(self.authority.clone(), self.mosquitto.clone(), mosquitto.watch());
        Ok(Started {
            nats: Child::start(nats),
            mosquitto,
            keeper: tokio::spawn(keeper),
            clusters: [primary, secondary].map(Child::start),
        })
    }

    /// Waits until all serve, and makes the roles and databases that are missing.
    pub(crate) async fn ready(&self, started: &Started, folder: &Folder) -> Result<()> {
        let [primary, secondary] = &self.clusters;
        let [on_primary, on_secondary] = &started.clusters;
        tokio::try_join!(
            started.nats.ready(self.nats.ready()),
            started.mosquitto.ready(self.mosquitto.ready()),
            primary.ready(on_primary),
            secondary.ready(on_secondary),
        )?;
        let pgpass = folder.secrets().join("pgpass");
        roles::write_pgpass(&pgpass, &[&primary.roles, &secondary.roles])
    }

    /// The services' configuration.
    pub(crate) fn config(&self, folder: &Folder, ports: &Ports) -> String {
        let url = |cluster: &Cluster, role, database| cluster.roles.url(role, database);
        let target = |name: &str, cluster: &Cluster, primary: bool| {
            format!(
                "\n[targets.{name}]\nurl = \"{}\"\nowner_url = \"{}\"\nprimary = {primary}\n",
                url(cluster, roles::INGEST, roles::BUILDING),
                url(cluster, roles::OWNER, roles::BUILDING),
            )
        };
        let [primary, secondary] = &self.clusters;
        let head = "# Written by `haystack up` at every start. Change settings with --set \
                    KEY=VALUE or\n# HAYSTACK__SECTION__KEY instead.\n";
        let secrets = serde_json::Value::from(folder.secrets().to_string_lossy());
        format!(
            "{head}\n[secrets]\ndir = {secrets}\n\n[nats]\nurl = \"{}\"\n\n[mqtt]\nurl = \"{}\"\n\
             {}{}\n[state]\nurl = \"{}\"\nowner_url = \"{}\"\n\n[bridge]\nhttp = \"127.0.0.1:{}\"\n\n[ingest]\nhttp = \
             \"127.0.0.1:{}\"\n\n[simulator]\nhttp = \"127.0.0.1:{}\"\n\n[api]\nhttp = \"127.0.0.1:{}\"\n",
            self.nats.url(),
            self.mosquitto.url(),
            target("primary", primary, true),
            target("secondary", secondary, false),
            url(primary, roles::SIMULATOR, roles::STATE),
            url(primary, roles::OWNER, roles::STATE),
            ports.of("bridge"),
            ports.of("ingest"),
            ports.of("simulator"),
            ports.of("control-api"),
        )
    }
}

impl Cluster {
    fn lay_out(
        folder: &Folder,
        ports: &Ports,
        name: &str,
        databases: &'static [&'static str],
    ) -> Result<Self> {
        let server = format!("postgres-{name}");
        let (port, wanted) = (ports.of(&server), folder.path().join(&server));
        let layout = postgres::Layout {
            name,
            folder: &wanted,
            secrets: &folder.secrets(),
            port,
            extra: "",
            timescaledb: true,
            safe: true,
        };
        let postgres = Postgres::lay_out(layout)?;
        say_where(&server, &wanted, postgres.folder());
        if postgres.init()? {
            notice::say(&format!("made a PostgreSQL cluster in {}", postgres.folder().display()));
        }
        let roles = Roles::ensure(&folder.secrets(), name, port)?;
        Ok(Self { postgres: Arc::new(postgres), roles, databases })
    }

    async fn ready(&self, child: &Child) -> Result<()> {
        child.ready(self.postgres.ready()).await?;
        local::set_up(&self.postgres, &self.roles, self.databases).await
    }
}

fn say_where(name: &str, wanted: &Path, folder: &Path) {
    if wanted != folder {
        notice::say(&format!(
            "{name} keeps its data in {}: its user can't reach {}",
            folder.display(),
            wanted.display()
        ));
    }
}

fn spec<S: Server + 'static>(server: &Arc<S>, ending: Ending, folder: &Folder) -> Result<Spec> {
    let name = server.name().to_owned();
    let log = folder.log(&name)?;
    let server = Arc::clone(server);
    Ok(Spec { name, command: Box::new(move || server.command()), ending, log })
}

/// The running servers.
pub(crate) struct Started {
    nats: Child,
    mosquitto: Child,
    keeper: JoinHandle<()>,
    clusters: [Child; 2],
}

impl Started {
    /// All of them, as the table shows them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Child> {
        [&self.nats, &self.mosquitto].into_iter().chain(&self.clusters)
    }

    /// Stops what talks before what it talks to.
    pub(crate) async fn stop(self) {
        self.keeper.abort();
        self.mosquitto.stop().await;
        self.nats.stop().await;
        let [primary, secondary] = self.clusters;
        tokio::join!(primary.stop(), secondary.stop());
    }
}
