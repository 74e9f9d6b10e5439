//! `haystack device`.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::Subcommand;
use domain::{DeviceId, OrgKey, TypeId, model::Device};
use nats::registry::{self, Registered};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Register a device: one point for each metric of its type
    Add {
        /// Its name: A-Z, a-z, 0-9, _ and -, at most 64 characters, unique in the platform
        id: DeviceId,
        /// What it is
        #[arg(long = "type", value_name = "DEVICE TYPE")]
        device_type: TypeId,
        /// Org
        #[arg(long, default_value = "demo")]
        org: OrgKey,
        /// Name for people [default: its id]
        #[arg(long)]
        name: Option<String>,
    },
    /// List devices and their points
    List {
        /// Org
        #[arg(long, default_value = "demo")]
        org: OrgKey,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one device
    Show {
        /// Its name
        id: DeviceId,
    },
}

pub(crate) async fn run(command: DeviceCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let wire = connect::now(&globals.load()?.config, "operator").await?;
    match command {
        DeviceCommand::Add { id, device_type, org, name } => {
            match registry::add_device(&wire, &org, id, device_type, name).await? {
                Registered::Made(device) => println!("registered {}", told(&device)),
                Registered::Unchanged(device) => println!("{} (it was so)", told(&device)),
            }
        }
        DeviceCommand::List { org, json } => {
            let directory = nats::model::load(&wire).await?;
            directory.org(&org).with_context(|| format!("there is no org {org}"))?;
            let devices = directory.devices(&org);
            if json {
                println!("{}", serde_json::to_string_pretty(&devices)?);
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(["device", "type", "points (metric entity)"]);
            for device in devices {
                let points = points(&device);
                table.row([device.id.to_string(), device.device_type.to_string(), points]);
            }
            println!("org {org}");
            table.print();
        }
        DeviceCommand::Show { id } => {
            let directory = nats::model::load(&wire).await?;
            let device =
                directory.device(&id).with_context(|| format!("there is no device {id}"))?;
            println!("{}", serde_json::to_string_pretty(&**device)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn told(device: &Device) -> String {
    format!("{} ({}): {}", device.id, device.device_type, points(device))
}

fn points(device: &Device) -> String {
    let points = device.points.iter().map(|(metric, point)| format!("{metric} {}", point.entity));
    points.collect::<Vec<_>>().join(", ")
}
