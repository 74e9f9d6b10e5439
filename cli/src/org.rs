//! `haystack org`.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::Subcommand;
use domain::OrgKey;
use nats::registry::{self, Registered};
use std::process::ExitCode;

#[derive(Subcommand)]
pub(crate) enum OrgCommand {
    /// Make an org (repeating it changes nothing)
    Add {
        /// Short name: a-z, 0-9 and _, at most 31 characters; it can't be changed later
        key: OrgKey,
        /// Name for people [default: the key]
        #[arg(long)]
        name: Option<String>,
    },
    /// List orgs
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one org
    Show {
        /// Short name
        key: OrgKey,
    },
}

pub(crate) async fn run(command: OrgCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let wire = connect::by_hand(&globals.load()?.config).await?;
    match command {
        OrgCommand::Add { key, name } => {
            let name = name.unwrap_or_else(|| key.to_string());
            match registry::add_org(&wire, key, name).await? {
                Registered::Made(org) => println!("made org {} (id {})", org.key, org.id),
                Registered::Unchanged(org) => {
                    println!("org {} exists (id {}, {:?})", org.key, org.id, org.name);
                }
            }
        }
        OrgCommand::List { json } => {
            let orgs = nats::model::load(&wire).await?.orgs();
            if json {
                println!("{}", serde_json::to_string_pretty(&orgs)?);
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(["id", "key", "name"]);
            for org in orgs {
                table.row([org.id.to_string(), org.key.to_string(), org.name.clone()]);
            }
            table.print();
        }
        OrgCommand::Show { key } => {
            let directory = nats::model::load(&wire).await?;
            let org = directory.org(&key).with_context(|| format!("there is no org {key}"))?;
            println!("{}", serde_json::to_string_pretty(org)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
