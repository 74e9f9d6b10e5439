//! `haystack migrate`: the streams and every database, brought to this release.

use crate::{Globals, connect, databases, device_type, simulator};
use anyhow::Context;
use clap::Args;
use domain::{
    DeviceId, OrgKey,
    access::{KeyToken, Scope},
};
use nats::{
    Wire,
    registry::{self, Opens, add_device, add_org, apply_device_type, create_logical},
    streams,
};
use service::Config;
use std::{path::Path, process::ExitCode, time::Duration};
use store::{Database, migrate::MigrateFault};

/// The file in the folder of secrets that holds the first key.
pub(crate) const ADMIN_KEY: &str = "api-admin-key";
/// The hub that a new platform starts with, and how many beacons it hears.
const HUB: &str = "LH-001-2024";
const BEACONS: u32 = 50;
/// The device types that a new platform starts with, and a device of each.
const DEVICES: [(&str, &str, &str); 3] = [
    (
        "temperature-sensor.yaml",
        include_str!("../../config/device-types/temperature-sensor.yaml"),
        "TS-001-2024",
    ),
    ("location-hub.yaml", include_str!("../../config/device-types/location-hub.yaml"), HUB),
    (
        "ble-gateway.yaml",
        include_str!("../../config/device-types/ble-gateway.yaml"),
        "BLE-001-2024",
    ),
];

#[derive(Args)]
pub(crate) struct MigrateArgs {
    /// Also make org `demo`, the sensor TS-001-2024, the hub LH-001-2024 with 50 beacons, the gateway
    /// BLE-001-2024 and, where a state database is configured, a simulated building
    #[arg(long)]
    seed: bool,
}

/// Safe to run again, and by two at once. A database that is away does not keep the others.
pub(crate) async fn run(args: &MigrateArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    service::logs::start(&config.log)?;
    let wire = connect::now(&config, "admin").await?;
    let limits = streams::Limits {
        readings: config.streams.readings_max_bytes,
        others: config.streams.others_max_bytes,
        lease: Duration::from_secs(config.simulator.lease_seconds.into()),
    };
    streams::declare(&wire, &limits).await?;
    println!("streams: as this release needs them");
    let mut failed = false;
    for (name, target) in &config.targets {
        let database = databases::open(&config, target.owner_url(), "migrate")?;
        match migrated(&database, config.archive.keep_days).await {
            Ok(()) => println!("target {name}: as this release needs it"),
            Err(fault) => {
                failed = true;
                eprintln!("haystack: target {name}: {fault}");
            }
        }
    }
    if let Some(url) = config.state.owner_url() {
        let database = databases::open(&config, url, "migrate")?;
        match store::migrate::run_state(&database).await {
            Ok(()) => println!("simulator state: as this release needs it"),
            Err(fault) => {
                failed = true;
                eprintln!("haystack: simulator state: {fault}");
            }
        }
    }
    if args.seed {
        seed(&config).await.context("seeding the demonstration org")?;
        first_key(&config).await.context("the first admin's key")?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn migrated(database: &Database, keep_days: u16) -> Result<(), MigrateFault> {
    store::migrate::run(database).await?;
    Ok(store::archive::set_policy(database, keep_days).await?)
}

/// The first key that opens everything stands in a file; it is made once, and what the user makes of it
/// since is the user's.
async fn first_key(config: &Config) -> anyhow::Result<()> {
    let wire = connect::by_hand(config).await?;
    let file = config.secrets.dir.join(ADMIN_KEY);
    let keys = nats::model::load(&wire).await?.keys();
    let token = match std::fs::read_to_string(&file) {
        Ok(text) => match KeyToken::parse(text.trim()) {
            Some(token) => token,
            None => anyhow::bail!("{} holds no key; remove it to have one made", file.display()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let now = connect::now_here();
            if keys.iter().any(|key| key.scope == Scope::Platform && key.is_live(now)) {
                return Ok(());
            }
            let token = registry::new_token();
            local::secret::write(&file, format!("{}\n", token.reveal()).as_bytes())?;
            token
        }
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    };
    // Written before it is registered: cut off in between, the next start goes on here.
    if !keys.iter().any(|key| key.id == token.id) {
        let name = "first admin".to_owned();
        registry::add_key_as(&wire, &token, name, Opens::Platform, None).await?;
    }
    Ok(())
}

async fn seed(config: &Config) -> anyhow::Result<()> {
    let wire: Wire = connect::now(config, "operator").await?;
    let org = OrgKey::parse("demo")?;
    add_org(&wire, org.clone(), "Demo".to_owned()).await?;
    for (file, text, device) in DEVICES {
        let definition = device_type::read(text, Path::new(file))?;
        let id = definition.device_type.clone();
        // A type that the user changed since is theirs: only a missing one is made.
        let known = nats::model::load(&wire).await?.head(&org, &id).is_some();
        if !known {
            apply_device_type(&wire, &org, definition).await?;
        }
        add_device(&wire, &org, DeviceId::parse(device)?, id, None).await?;
    }
    let hub = DeviceId::parse(HUB)?;
    let directory = nats::model::load(&wire).await?;
    let beacons: Vec<_> = (1..=BEACONS).map(|number| format!("b-{number:02}")).collect();
    create_logical(&wire, &directory, &hub, &beacons).await?;
    // One simulator at the first start; what the user makes of it since is theirs.
    if config.state.url.is_some() && nats::model::load(&wire).await?.pollers().is_empty() {
        simulator::demonstration(&wire, &org).await?;
    }
    Ok(())
}
