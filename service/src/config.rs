//! The whole configuration: built-in defaults < `haystack.toml` < environment < flags.

mod load;
mod show;

pub use load::{ConfigFault, Loaded, load};
pub use show::{Shown, show};

use domain::{TargetName, normalize::TimeLimits};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// Every setting there is. An unknown key is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where passwords lie.
    pub secrets: Secrets,
    /// The NATS server.
    pub nats: Nats,
    /// The MQTT broker.
    pub mqtt: Mqtt,
    /// Databases that receive everything; exactly one is primary.
    pub targets: BTreeMap<TargetName, Target>,
    /// The database of simulator state.
    pub state: State,
    /// Device messages as they came, kept in databases.
    pub archive: Archive,
    /// How large streams may grow.
    pub streams: Streams,
    /// The bridge.
    pub bridge: Bridge,
    /// The ingest service.
    pub ingest: Ingest,
    /// History that is processed again.
    pub replay: Replay,
    /// When readings leave the streams.
    pub retention: Retention,
    /// The simulator service.
    pub simulator: Simulator,
    /// The control API.
    pub api: Api,
    /// Who vouches for the API's callers.
    pub auth: Auth,
    /// Logs.
    pub log: Log,
}

/// Where passwords lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Secrets {
    /// A folder with one file a secret: `nats-bridge`, `nats-ingest`, `nats-operator`,
    /// `nats-admin`, `mqtt-bridge`, `mqtt-session` (any text, part of a client
    /// id), and `pgpass` in PostgreSQL's format.
    pub dir: PathBuf,
}

/// The NATS server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nats {
    /// `nats://host:port`
    pub url: String,
    /// How long a stream waits for an acknowledgement before it delivers again, in seconds.
    pub ack_wait_seconds: u32,
}

/// The MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mqtt {
    /// `mqtt://host:port`, or with TLS `mqtts://host:port`
    pub url: String,
    /// With TLS: a file (PEM) with the authorities that may certify the broker.
    pub ca: Option<PathBuf>,
    /// With TLS: our certificate (PEM), where the broker wants one, and its key.
    pub cert: Option<PathBuf>,
    /// The certificate's key.
    pub key: Option<PathBuf>,
    /// The group with which bridges share the messages; left out: each gets all of them.
    pub share: Option<String>,
}

/// A database that receives everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// `postgresql://user@host:port/database` of the role that writes, without a password.
    pub url: String,
    /// The same of the role that owns the tables (`migrate`); left out: the one that writes.
    #[serde(default)]
    pub owner_url: Option<String>,
    /// Whether an HTTP client's 200 waits for it.
    #[serde(default)]
    pub primary: bool,
    /// Whether it keeps device messages as they came (`core.telemetry_raw`); left out: the primary
    /// does.
    #[serde(default)]
    pub archive: Option<bool>,
}

/// The archive of device messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    /// How long it keeps them, in days; 0: for ever. `migrate` tells the databases.
    pub keep_days: u16,
}

impl Default for Archive {
    fn default() -> Self {
        Self { keep_days: 30 }
    }
}

impl Target {
    /// The URL of the role that owns the tables.
    pub fn owner_url(&self) -> &str {
        self.owner_url.as_deref().unwrap_or(&self.url)
    }

    /// Whether it keeps device messages as they came.
    pub fn archives(&self) -> bool {
        self.archive.unwrap_or(self.primary)
    }
}

/// The database of simulator state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// `postgresql://user@host:port/database` of the role that simulators sign in as, without a
    /// password.
    pub url: Option<String>,
    /// The same of the role that owns the tables (`migrate`); left out: the one that writes.
    pub owner_url: Option<String>,
}

impl State {
    /// The URL of the role that owns the tables; `None`: there is no state database.
    pub fn owner_url(&self) -> Option<&str> {
        self.owner_url.as_deref().or(self.url.as_deref())
    }
}

/// How large streams may grow before they refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streams {
    /// Bytes of `RAW` and of `TELEMETRY`, each.
    pub readings_max_bytes: u64,
    /// Bytes of each other stream.
    pub others_max_bytes: u64,
}

/// The bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bridge {
    /// Where health and metrics are served; loopback unless said otherwise.
    pub http: SocketAddr,
    /// Its name among several; part of its MQTT client id, so it must stay the same over restarts.
    pub instance: String,
    /// How far ahead of ours a device's clock may be, in seconds.
    pub future_limit_seconds: u32,
    /// How long the parts of a gateway's report may take, in seconds during which they could come.
    pub transaction_seconds: u32,
}

/// History that is processed again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// How late live readings may be in a target before a replay waits for them, in milliseconds.
    pub lag_ms: u64,
}

impl Default for Replay {
    fn default() -> Self {
        Self { lag_ms: 2_000 }
    }
}

/// When readings leave `RAW` and `TELEMETRY`: never before every registered target has applied them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How long they stay, to be processed again, in hours.
    pub history_hours: u32,
    /// How full a stream may be before they go earlier, in percent of its limit.
    pub high_water_percent: u8,
    /// Dead letters of their own that a device may have; what is past it becomes one letter that stands for
    /// many.
    pub letters_per_device: u32,
}

impl Default for Retention {
    /// A week, and four fifths.
    fn default() -> Self {
        Self { history_hours: 7 * 24, high_water_percent: 80, letters_per_device: 10_000 }
    }
}

/// The ingest service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Where health and metrics are served; loopback unless said otherwise.
    pub http: SocketAddr,
    /// Its name among several.
    pub instance: String,
    /// Most rows of one transaction.
    pub batch_rows: usize,
    /// Most bytes of messages in one transaction.
    pub batch_bytes: usize,
    /// Longest wait for more rows while much comes in, in milliseconds.
    pub linger_ms: u64,
}

/// The simulator service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Simulator {
    /// Where health and metrics are served; loopback unless said otherwise.
    pub http: SocketAddr,
    /// Its name among several.
    pub instance: String,
    /// How long a simulator is left alone after its service fell silent, in seconds. `migrate`
    /// tells the stream server.
    pub lease_seconds: u32,
}

/// The control API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Where it is served; loopback unless said otherwise.
    pub http: SocketAddr,
    /// Its name among several.
    pub instance: String,
    /// `postgresql://user@host:port/database` of the role that reads the primary for callers, without a
    /// password; left out: `haystack_api` where the primary's own URL points.
    pub url: Option<String>,
    /// The same for the database of simulator state; left out: `haystack_api` where `state.url` points.
    pub state_url: Option<String>,
    /// Our certificate (PEM); left out: no TLS.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key.
    pub tls_key: Option<PathBuf>,
    /// Pages of other origins that may call it from a browser, e.g. `https://console.example.com`.
    pub cors_origins: Vec<String>,
    /// Connections to the primary.
    pub connections: u32,
    /// How long a caller waits for the primary's COMMIT, in seconds; a primary that is behind by more is
    /// a 503 at once.
    pub commit_seconds: u32,
    /// How long any request may take, in seconds.
    pub request_seconds: u32,
    /// Requests that are worked on at once; more are a 503.
    pub max_requests: usize,
    /// Streams of events at once; more are a 503.
    pub max_streams: usize,
    /// Connections at once; more wait.
    pub max_connections: usize,
    /// Most values of one `/bulk/value`.
    pub max_values: usize,
    /// Most bytes of one `/bulk/value`.
    pub max_values_bytes: usize,
    /// Messages a second that one device may send by HTTP.
    pub device_rate: u32,
    /// Messages a second that all devices of one org may send by HTTP.
    pub org_rate: u32,
}

/// Who vouches for the API's callers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// How a service account of ours signs in (`haystack token`).
    pub account: Option<Account>,
    /// Issuers of tokens, by a name for the log.
    pub issuers: BTreeMap<String, Issuer>,
}

/// A service account of ours at an issuer. Its password, or its client's secret, is the file
/// `auth-account` in `secrets.dir`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Where it signs in: `https://cognito-idp.{region}.amazonaws.com/` with a user name, else the
    /// issuer's token endpoint.
    pub url: String,
    /// The client.
    pub client_id: String,
    /// The user of a pool of Cognito; left out: the client signs in for itself.
    #[serde(default)]
    pub username: Option<String>,
    /// Scopes of a client that signs in for itself, with blanks between them.
    #[serde(default)]
    pub scope: String,
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What its tokens say in `iss`, e.g.
    /// `https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEf`.
    pub issuer: String,
    /// What its tokens may say in `aud` (or, of an access token of Cognito, in `client_id`).
    pub audiences: Vec<String>,
    /// Where its keys are; left out: where its discovery document says.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The claim that names a device, where devices sign in there; left out: none do.
    #[serde(default)]
    pub device_claim: Option<String>,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Human-readable or one JSON object a line.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,haystack_bridge=debug`.
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// For programs.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let target = |port: u16, primary| Target {
            url: format!("postgresql://haystack_ingest@127.0.0.1:{port}/haystack"),
            owner_url: Some(format!("postgresql://haystack@127.0.0.1:{port}/haystack")),
            primary,
            archive: None,
        };
        let name = |text| TargetName::parse(text).expect("a valid name");
        Self {
            secrets: Secrets::default(),
            nats: Nats::default(),
            mqtt: Mqtt::default(),
            targets: BTreeMap::from([
                (name("primary"), target(5432, true)),
                (name("secondary"), target(5433, false)),
            ]),
            state: State::default(),
            archive: Archive::default(),
            streams: Streams::default(),
            bridge: Bridge::default(),
            ingest: Ingest::default(),
            replay: Replay::default(),
            retention: Retention::default(),
            simulator: Simulator::default(),
            api: Api::default(),
            auth: Auth::default(),
            log: Log::default(),
        }
    }
}

impl Default for Secrets {
    fn default() -> Self {
        Self { dir: ".haystack/secrets".into() }
    }
}

impl Default for Nats {
    fn default() -> Self {
        Self { url: "nats://127.0.0.1:4222".to_owned(), ack_wait_seconds: 30 }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1883".to_owned(),
            ca: None,
            cert: None,
            key: None,
            share: None,
        }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self { readings_max_bytes: 16 << 30, others_max_bytes: 2 << 30 }
    }
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8001)),
            instance: "bridge-1".to_owned(),
            future_limit_seconds: 600,
            transaction_seconds: 60,
        }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8002)),
            instance: "ingest-1".to_owned(),
            batch_rows: 50_000,
            batch_bytes: 8 << 20,
            linger_ms: 50,
        }
    }
}

impl Default for Simulator {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8003)),
            instance: "simulator-1".to_owned(),
            lease_seconds: 6,
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8000)),
            instance: "api-1".to_owned(),
            url: None,
            state_url: None,
            tls_cert: None,
            tls_key: None,
            cors_origins: Vec::new(),
            connections: 16,
            commit_seconds: 10,
            request_seconds: 30,
            max_requests: 256,
            max_streams: 256,
            max_connections: 1_024,
            max_values: 10_000,
            max_values_bytes: 4 << 20,
            device_rate: 100,
            org_rate: 2_000,
        }
    }
}

/// The role that reads for the API's callers.
const API_ROLE: &str = "haystack_api";

/// The same database, for another role.
fn for_role(url: &str, role: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgresql", url));
    let at = rest.find('/').unwrap_or(rest.len());
    let host = rest[..at].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{role}@{}", &rest[host..])
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, level: "info".to_owned() }
    }
}

impl Config {
    /// The primary target's name and settings.
    pub fn primary(&self) -> (&TargetName, &Target) {
        let primary = self.targets.iter().find(|(_, target)| target.primary);
        primary.expect("`load` refuses a configuration without a primary")
    }

    /// Moments that are believed.
    pub fn time_limits(&self) -> TimeLimits {
        let ahead_micros = i64::from(self.bridge.future_limit_seconds) * 1_000_000;
        TimeLimits { ahead_micros, ..TimeLimits::default() }
    }

    /// Where the API reads the primary.
    pub fn api_url(&self) -> String {
        let beside = || for_role(&self.primary().1.url, API_ROLE);
        self.api.url.clone().unwrap_or_else(beside)
    }

    /// Where the API reads what simulators did; `None`: there is no state database.
    pub fn api_state_url(&self) -> Option<String> {
        let beside = || self.state.url.as_deref().map(|url| for_role(url, API_ROLE));
        self.api.state_url.clone().or_else(beside)
    }

    /// How long a stream waits for an acknowledgement.
    pub fn ack_wait(&self) -> Duration {
        Duration::from_secs(self.nats.ack_wait_seconds.into())
    }

    /// The file with PostgreSQL passwords.
    pub fn pgpass(&self) -> PathBuf {
        self.secrets.dir.join("pgpass")
    }
}
