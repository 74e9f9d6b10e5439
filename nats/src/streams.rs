//! The platform's streams, declared once.

use crate::Wire;
use async_nats::jetstream::{
    context::{CreateStreamError, GetStreamError, GetStreamErrorKind},
    kv,
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};
use std::time::Duration;

/// Packs of device messages as they came.
pub const RAW: &str = "RAW";
/// Parts of unfinished gateway transactions.
pub const CHUNKS: &str = "CHUNKS";
/// Normalized readings and deletions.
pub const TELEMETRY: &str = "TELEMETRY";
/// What is not a reading, as last written.
pub const MODEL: &str = "MODEL";
/// Activity, devices on and off, alerts: news, of which the oldest give way.
pub const EVENTS: &str = "EVENTS";
/// What could not be processed.
pub const DEAD: &str = "DEAD";
/// All of them.
pub const ALL: [&str; 6] = [RAW, CHUNKS, TELEMETRY, MODEL, EVENTS, DEAD];
/// The bucket of counters that ids come from.
pub const COUNTERS: &str = "counters";

/// The bucket of what was done under which `Idempotency-Key`.
pub const IDEMPOTENCY: &str = "idempotency";
/// The bucket of replays.
pub const REPLAYS: &str = "replays";
/// The bucket of jobs.
pub const JOBS: &str = "jobs";
/// How long what a job told is kept.
const JOBS_AGE: Duration = Duration::from_hours(7 * 24);
/// Bytes of a job's record: one that would have more tells less.
const JOB_BYTES: i32 = 1 << 20;

/// The bucket of targets: which must have a message before it may leave its stream.
pub const TARGETS: &str = "targets";

/// How long such a key is known.
pub const IDEMPOTENCY_AGE: Duration = Duration::from_hours(24);

/// How long the server knows a message id. A retry comes within seconds.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// How many bytes each stream may hold before it refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `RAW` and `TELEMETRY`, each.
    pub readings: u64,
    /// The others, each.
    pub others: u64,
    /// How long a lease lasts that is not renewed.
    pub lease: Duration,
}

impl Default for Limits {
    /// 16 GiB: some five hundred million readings; 2 GiB for the others.
    fn default() -> Self {
        Self { readings: 16 << 30, others: 2 << 30, lease: Duration::from_secs(6) }
    }
}

/// Why the streams are not as they should be. Nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum StreamFault {
    /// A stream of that name exists and differs in what can't be changed.
    #[error(
        "stream {stream} exists with {setting} {found}, this release needs {needed}; \
         nothing was changed. Use another NATS account or data folder, or move the stream away"
    )]
    Incompatible {
        /// The stream.
        stream: String,
        /// The setting.
        setting: &'static str,
        /// As it is.
        found: String,
        /// As it must be.
        needed: String,
    },
    /// The server refuses or does not answer.
    #[error("stream {stream}: {source}")]
    Server {
        /// The stream.
        stream: String,
        /// What the server says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn server(
    stream: &str,
) -> impl FnOnce(Box<dyn std::error::Error + Send + Sync>) -> StreamFault + use<> {
    let stream = stream.to_owned();
    move |source| StreamFault::Server { stream, source }
}

/// Creates what is missing, updates what may be updated, refuses the rest.
pub async fn declare(wire: &Wire, limits: &Limits) -> Result<(), StreamFault> {
    for config in configs(limits) {
        let name = config.name.clone();
        declare_one(wire, config).await?;
        tracing::debug!(stream = name, "declared");
    }
    let counters = kv::Config {
        bucket: COUNTERS.to_owned(),
        description: "ids come from here and are never used again".to_owned(),
        max_bytes: 16 << 20,
        ..kv::Config::default()
    };
    let idempotency = kv::Config {
        bucket: IDEMPOTENCY.to_owned(),
        description: "what was done under which Idempotency-Key".to_owned(),
        max_age: IDEMPOTENCY_AGE,
        max_bytes: 1 << 30,
        ..kv::Config::default()
    };
    let replays = kv::Config {
        bucket: REPLAYS.to_owned(),
        description: "history that is processed again, and how far it is".to_owned(),
        max_bytes: 64 << 20,
        ..kv::Config::default()
    };
    let jobs = kv::Config {
        bucket: JOBS.to_owned(),
        description: "long work that somebody asked the API for, and what it told".to_owned(),
        max_age: JOBS_AGE,
        max_value_size: JOB_BYTES,
        max_bytes: 1 << 30,
        ..kv::Config::default()
    };
    let targets = kv::Config {
        bucket: TARGETS.to_owned(),
        description: "targets: what each must have before it leaves its stream".to_owned(),
        max_bytes: 16 << 20,
        ..kv::Config::default()
    };
    for bucket in
        [counters, idempotency, replays, jobs, targets, crate::lease::bucket(limits.lease)]
    {
        let name = bucket.bucket.clone();
        let made = wire.jetstream.create_or_update_key_value(bucket).await;
        made.map(drop).map_err(|error| server(&name)(error.into()))?;
    }
    Ok(())
}

async fn declare_one(wire: &Wire, wanted: Config) -> Result<(), StreamFault> {
    let name = wanted.name.clone();
    let found = match wire.jetstream.get_stream(&name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_missing(&error) => {
            let made: Result<_, CreateStreamError> = wire.jetstream.create_stream(wanted).await;
            return made.map(drop).map_err(|error| server(&name)(error.into()));
        }
        Err(error) => return Err(server(&name)(error.into())),
    };
    incompatible(&found, &wanted)?;
    let changeable = |config: &Config| {
        (config.max_bytes, config.duplicate_window, config.discard, config.allow_rollup)
    };
    if changeable(&found) == changeable(&wanted) {
        return Ok(());
    }
    let Config { max_bytes, duplicate_window, discard, allow_rollup, .. } = wanted;
    let updated = Config { max_bytes, duplicate_window, discard, allow_rollup, ..found };
    let updated = wire.jetstream.update_stream(updated).await;
    updated.map(drop).map_err(|error| server(&name)(error.into()))
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.code() == 404)
}

fn incompatible(found: &Config, wanted: &Config) -> Result<(), StreamFault> {
    let differs = |setting, found: String, needed: String| {
        if found == needed {
            return Ok(());
        }
        Err(StreamFault::Incompatible { stream: wanted.name.clone(), setting, found, needed })
    };
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
    differs("subjects", text(&found.subjects), text(&wanted.subjects))?;
    differs("storage", text(&found.storage), text(&wanted.storage))?;
    differs("retention", text(&found.retention), text(&wanted.retention))?;
    if wanted.discard == DiscardPolicy::New {
        differs("discard policy", text(&found.discard), text(&wanted.discard))?;
    }
    differs("maximum age", text(&found.max_age), text(&wanted.max_age))?;
    let per_subject = (found.max_messages_per_subject, wanted.max_messages_per_subject);
    differs("messages a subject", text(&per_subject.0), text(&per_subject.1))
}

fn configs(limits: &Limits) -> Vec<Config> {
    let stream = |name: &str, subject: &str, bytes: u64, description: &str| Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        description: Some(description.to_owned()),
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        max_messages_per_subject: -1,
        // Full means refuse: what was accepted is never dropped to make room.
        discard: DiscardPolicy::New,
        max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    };
    let (readings, others) = (limits.readings, limits.others);
    vec![
        stream(RAW, "raw.>", readings, "packs of device messages as they came"),
        stream(TELEMETRY, "telemetry.>", readings, "normalized readings and deletions"),
        stream(CHUNKS, "chunk.>", others, "parts of unfinished gateway transactions"),
        Config {
            max_messages_per_subject: 1,
            ..stream(MODEL, "model.>", others, "what is not a reading, as last written")
        },
        Config {
            // News, not readings: what a reader needs for good is in the databases. A stream that is
            // full of old news must hold nobody up.
            discard: DiscardPolicy::Old,
            ..stream(EVENTS, "event.>", others, "activity, devices on and off, alerts")
        },
        Config {
            // A letter that stands for many is replaced as a whole.
            allow_rollup: true,
            ..stream(DEAD, "dead.>", others, "what could not be processed")
        },
    ]
}
