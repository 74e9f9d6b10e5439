//! `haystack device-type`.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::Subcommand;
use domain::{OrgKey, TypeId, device_type::DeviceType, raw::ProfileRef};
use nats::registry::{self, Registered};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Largest device type file.
const MAX_FILE: u64 = 1 << 20;

#[derive(Subcommand)]
pub(crate) enum TypeCommand {
    /// Check a device type file, run its examples, and put it in force as a new version
    Apply {
        /// YAML file
        file: PathBuf,
        /// Org
        #[arg(long, default_value = "demo")]
        org: OrgKey,
        /// Only check the file and run its examples
        #[arg(long)]
        check: bool,
    },
    /// List device types
    List {
        /// Org
        #[arg(long, default_value = "demo")]
        org: OrgKey,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one version of a device type
    Show {
        /// Device type
        id: TypeId,
        /// Org
        #[arg(long, default_value = "demo")]
        org: OrgKey,
        /// Version [default: the one in force]
        #[arg(long)]
        version: Option<u32>,
    },
}

/// Reads a device type; a mistake is told with its line and column.
pub(crate) fn read(text: &str, name: &Path) -> anyhow::Result<DeviceType> {
    // Its own text names line and column and shows the place; a chain would say it twice.
    serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{}: {error}", name.display()))
}

fn read_file(file: &Path) -> anyhow::Result<DeviceType> {
    let size = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    anyhow::ensure!(size <= MAX_FILE, "{}: larger than {MAX_FILE} bytes", file.display());
    read(&std::fs::read_to_string(file).with_context(|| file.display().to_string())?, file)
}

pub(crate) async fn run(command: TypeCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    match command {
        TypeCommand::Apply { file, org: _, check: true } => check(&read_file(&file)?)?,
        TypeCommand::Apply { file, org, check: false } => {
            let definition = read_file(&file)?;
            let wire = connect::now(&config, "operator").await?;
            apply(&wire, &org, definition).await.with_context(|| file.display().to_string())?;
        }
        TypeCommand::List { org, json } => {
            let directory = nats::model::load(&connect::now(&config, "operator").await?).await?;
            let heads = directory.device_types(&org);
            if json {
                println!("{}", serde_json::to_string_pretty(&heads)?);
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(["device type", "version", "metrics"]);
            for head in heads {
                let profile = directory.profile(&org, &head.current);
                let metrics = profile.map(|profile| profile.definition.metrics.keys());
                let metrics: Vec<_> = metrics.into_iter().flatten().cloned().collect();
                let version = head.current.version.to_string();
                table.row([head.current.id.to_string(), version, metrics.join(", ")]);
            }
            table.print();
        }
        TypeCommand::Show { id, org, version } => {
            let directory = nats::model::load(&connect::now(&config, "operator").await?).await?;
            let current = directory.head(&org, &id).map(|head| head.current.version);
            let version = version
                .or(current)
                .with_context(|| format!("org {org} has no device type {id}"))?;
            let profile = directory
                .profile(&org, &ProfileRef { id: id.clone(), version })
                .with_context(|| format!("org {org} has no version {version} of {id}"))?;
            println!("{}", serde_json::to_string_pretty(&**profile)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(definition: &DeviceType) -> anyhow::Result<()> {
    definition.check()?;
    domain::normalize::check_examples(definition, connect::now_here())?;
    let (metrics, examples) = (definition.metrics.len(), definition.examples.len());
    println!("{}: {metrics} metrics, {examples} examples hold", definition.device_type);
    Ok(())
}

async fn apply(wire: &nats::Wire, org: &OrgKey, definition: DeviceType) -> anyhow::Result<()> {
    match registry::apply_device_type(wire, org, definition).await? {
        Registered::Made(head) => {
            println!("org {org}: {} is now at version {}", head.current.id, head.current.version);
        }
        Registered::Unchanged(head) => {
            let (id, version) = (&head.current.id, head.current.version);
            println!("org {org}: {id} is unchanged at version {version}");
        }
    }
    Ok(())
}
