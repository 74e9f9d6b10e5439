//! `haystack demo`: a few devices talk, through the real broker, so that there is something to see.

use crate::{Globals, connect};
use anyhow::Context;
use bridge::mqtt::Sender;
use clap::Args;
use domain::{DeviceId, OrgKey, TypeId};
use nats::registry::add_device;
use service::{Config, Lifecycle};
use std::{process::ExitCode, time::Duration};

/// Most devices that a demonstration registers.
const MAX_DEVICES: u16 = 1_000;
/// Pause before a lost connection to the broker is tried again.
const RECONNECT: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// How many devices talk (registered as DEMO-1, DEMO-2, … of org demo)
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_DEVICES)))]
    devices: u16,
    /// Milliseconds between two messages of one device
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    every_ms: u64,
}

pub(crate) async fn run(args: &DemoArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let devices = register(&config, args.devices).await?;
    let address = config.mqtt.url.trim_start_matches("mqtt://").to_owned();
    let lifecycle = Lifecycle::default();
    lifecycle.stop_on_signals()?;
    println!(
        "{} devices talk to {}, each every {} ms; Ctrl-C ends it",
        devices.len(),
        config.mqtt.url,
        args.every_ms
    );
    let every = Duration::from_millis(args.every_ms);
    for (number, device) in devices.into_iter().enumerate() {
        let talking = talk(address.clone(), device, number, every);
        let shutdown = lifecycle.shutdown.clone();
        lifecycle.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = talking => {}
            }
        });
    }
    lifecycle.drained().await;
    Ok(ExitCode::SUCCESS)
}

async fn register(config: &Config, count: u16) -> anyhow::Result<Vec<DeviceId>> {
    let wire = connect::now(config, "operator").await?;
    let org = OrgKey::parse("demo")?;
    let device_type = TypeId::parse("temperature-sensor")?;
    let mut devices = Vec::new();
    for number in 1..=count {
        let id = DeviceId::parse(&format!("DEMO-{number}"))?;
        add_device(&wire, &org, id.clone(), device_type.clone(), None)
            .await
            .context("`haystack up` makes the demonstration org (haystack migrate --seed)")?;
        devices.push(id);
    }
    Ok(devices)
}

/// Sends for ever, through every outage of the broker.
async fn talk(address: String, device: DeviceId, number: usize, every: Duration) {
    let topic = domain::topic::telemetry(&device);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut said = String::new();
    loop {
        let why = match Sender::connect(&address, &format!("demo-{device}")).await {
            Err(why) => why,
            Ok(mut sender) => {
                if !std::mem::take(&mut said).is_empty() {
                    eprintln!("{device}: talks again");
                }
                loop {
                    ticks.tick().await;
                    if let Err(why) = sender.publish(&topic, payload(number)).await {
                        break why;
                    }
                }
            }
        };
        // Once an outage, not once a second.
        if said.is_empty() {
            eprintln!("{device}: {why}; trying again");
            said = why;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

/// A room's temperature and humidity over the day, each device a little apart.
fn payload(number: usize) -> String {
    let now = connect::now_here();
    let day = now.micros() as f64 / 86_400e6 * std::f64::consts::TAU;
    let phase = number as f64 * 0.7;
    let temperature = 21.0 + 2.0 * (day + phase).sin() + 0.2 * (day * 400.0 + phase).sin();
    let humidity = 45.0 - 6.0 * (day + phase).sin() + 0.5 * (day * 300.0 + phase).cos();
    format!("{{\"ts\":\"{now}\",\"temperature\":{temperature:.2},\"humidity\":{humidity:.1}}}")
}
