//! `haystack device`.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::Subcommand;
use domain::{
    Clock, DeviceId, OrgKey, SystemClock, TypeId,
    command::{ANSWER_SECONDS, Command, EXPIRES_SECONDS, Fate, SERVICE, Told},
    model::{Device, Role},
    presence::Presence,
    subject::Subject,
};
use nats::{
    Wire, inspect, micro,
    registry::{self, Registered},
};
use serde_json::json;
use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

const FATES: &str = "\
Exit code 0: the broker has it and somebody is subscribed to it, also one that is away and has a \
session there. Exit code 1, with the reason: nobody listens and it is gone, it was not sent, or (the \
broker does not answer) it may still be told. Whether the device did it only the device can say.";

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
    /// Show one device: its points, and whether it is there
    Show {
        /// Its name
        id: DeviceId,
    },
    /// Tell a device something, on devices/{id}/commands, and say what became of it
    #[command(after_help = FATES)]
    Command {
        /// The device
        id: DeviceId,
        /// What it is told, as it is
        #[arg(required_unless_present = "file")]
        payload: Option<String>,
        /// A file that holds it
        #[arg(long, conflicts_with = "payload")]
        file: Option<PathBuf>,
        /// For how long the broker keeps it for a device that is away, in seconds
        #[arg(long, default_value_t = EXPIRES_SECONDS, value_parser = clap::value_parser!(u32).range(1..))]
        expires: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
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
            let mut shown = serde_json::to_value(&**device)?;
            shown["presence"] = presence(&wire, device).await?.map_or_else(
                Default::default,
                |it| json!({ "online": it.online, "at": it.at.to_string() }),
            );
            println!("{}", serde_json::to_string_pretty(&shown)?);
        }
        DeviceCommand::Command { id, payload, file, expires, json } => {
            let payload = match file {
                Some(file) => fs::read(&file).with_context(|| format!("{}", file.display()))?,
                None => payload.unwrap_or_default().into_bytes(),
            };
            anyhow::ensure!(!payload.is_empty(), "an empty command says nothing");
            let wait = i64::from(ANSWER_SECONDS) * 1_000_000;
            let not_after = SystemClock.now().plus_micros(wait);
            let command = Command { device: id, payload, expires_seconds: expires, not_after };
            return tell(&wire, command, json).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The last news of the device, as far as the stream of events still has it.
async fn presence(wire: &Wire, device: &Device) -> anyhow::Result<Option<Presence>> {
    let (org, kind) = (device.org.to_string(), "device".to_owned());
    let subject = Subject::Event { org, kind, id: device.id.to_string() };
    Ok(inspect::last_event(wire, &subject.to_string()).await?)
}

async fn tell(wire: &Wire, command: Command, json: bool) -> anyhow::Result<ExitCode> {
    // A second more than the bridge has: what it says of a time-out is better than our own.
    let wait = Duration::from_secs(u64::from(ANSWER_SECONDS) + 1);
    let told: Told = match micro::ask(wire, SERVICE.join("."), &command, wait).await {
        Ok(told) => told,
        Err(refusal) if refusal.text == micro::NO_ANSWER => {
            anyhow::bail!(
                "the bridge does not answer: whether {} was told is unknown; from now on it is not",
                command.device
            )
        }
        Err(refusal) if refusal.text == micro::NOBODY => {
            anyhow::bail!("no bridge answers: the command is not sent (haystack status)")
        }
        Err(refusal) => return Err(refusal.into()),
    };
    let listens = told.fate == Fate::Taken;
    let device = &command.device;
    if json {
        println!("{}", serde_json::to_string_pretty(&told)?);
    } else if listens {
        println!("the broker has the command for {device}");
    } else {
        eprintln!(
            "nobody listens on devices/{device}/commands: the device is away; nothing is kept"
        );
    }
    Ok(if listens { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(device: &Device) -> String {
    format!("{} ({}): {}", device.id, device.device_type, points(device))
}

fn points(device: &Device) -> String {
    let points = device.points.iter().map(|(metric, point)| format!("{metric} {}", point.entity));
    points.collect::<Vec<_>>().join(", ")
}
