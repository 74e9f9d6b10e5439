//! `haystack device`.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::Subcommand;
use domain::{
    DeviceId, OrgKey, TypeId,
    model::{Device, Role},
};
use nats::registry::{self, Registered};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Register a device: one point for each metric of its type
    Add {
        /// Its name: A-Z, a-z, 0-9, _ and -, at most 64 characters, unique in the platform. Of a
        /// logical device it may be left out: then it is made of the gateway's and the identifier
        #[arg(required_unless_present = "gateway")]
        id: Option<DeviceId>,
        /// What it is
        #[arg(
            long = "type",
            value_name = "DEVICE TYPE",
            required_unless_present = "gateway",
            conflicts_with = "gateway"
        )]
        device_type: Option<TypeId>,
        /// The gateway that speaks for it
        #[arg(long, value_name = "DEVICE", requires = "identifier")]
        gateway: Option<DeviceId>,
        /// What the gateway calls it
        #[arg(long, requires = "gateway")]
        identifier: Option<String>,
        /// Org [default: demo; of a logical device its gateway's]
        #[arg(long, conflicts_with = "gateway")]
        org: Option<OrgKey>,
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
        DeviceCommand::Add { id, device_type, gateway, identifier, org, name } => {
            let registered = match (id, device_type, gateway, identifier) {
                (id, None, Some(gateway), Some(identifier)) => {
                    registry::add_logical(&wire, &gateway, &identifier, id, name).await?
                }
                (Some(id), Some(device_type), ..) => {
                    let org = org.map_or_else(|| OrgKey::parse("demo"), Ok)?;
                    registry::add_device(&wire, &org, id, device_type, name).await?
                }
                _ => {
                    anyhow::bail!("a device needs a name and --type, or --gateway and --identifier")
                }
            };
            match registered {
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
            let mut table = Table::new(["device", "type", "role", "points (metric entity)"]);
            for device in devices {
                let (id, of_type) = (device.id.to_string(), device.device_type.to_string());
                let role = match &device.role {
                    Role::Logical { gateway, identifier } => format!("{identifier:?} of {gateway}"),
                    other => other.as_str().to_owned(),
                };
                table.row([id, of_type, role, points(&device)]);
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
