//! `haystack key`: what lets programs and devices into the API.

use crate::{Globals, connect, table::Table};
use anyhow::Context;
use clap::{Args, Subcommand};
use domain::{
    DeviceId, EntityId, OrgKey, Timestamp,
    access::{Key, KeyId, Permission, Rights, Scope},
};
use nats::registry::{self, Opens};
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};

#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once, and opens the API at once
    Add(AddArgs),
    /// List keys, without their secrets
    List {
        /// Of this org
        #[arg(long)]
        org: Option<OrgKey>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a key open nothing any more, at once (repeating it changes nothing)
    Revoke {
        /// Its public part, the 12 characters behind hsk_, or all of it
        key: String,
    },
}

#[derive(Args)]
#[command(group(clap::ArgGroup::new("opens").required(true).args(["org", "device", "platform"])))]
pub(crate) struct AddArgs {
    /// Its name for people
    name: String,
    /// For this org, with --may
    #[arg(long)]
    org: Option<OrgKey>,
    /// For the telemetry of this device, by HTTP
    #[arg(long)]
    device: Option<DeviceId>,
    /// For everything in every org
    #[arg(long)]
    platform: bool,
    /// In the whole org: read, write, model, control, telemetry, admin
    #[arg(long, value_name = "PERMISSION", value_delimiter = ',', requires = "org")]
    may: Vec<Permission>,
    /// For single entities, beside that: 7=read or 7=read+write
    #[arg(long, value_name = "ENTITY=PERMISSIONS", value_delimiter = ',', requires = "org", value_parser = single)]
    entity: Vec<(EntityId, Vec<Permission>)>,
    /// From this moment on it opens nothing (RFC 3339)
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    expires: Option<Timestamp>,
    /// Write the key into this file (0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| "a moment with an offset is expected, e.g. 2027-01-01T00:00:00Z".to_owned())
}

pub(crate) fn single(text: &str) -> Result<(EntityId, Vec<Permission>), String> {
    let (id, these) = text.split_once('=').ok_or("ENTITY=PERMISSIONS is expected, e.g. 7=read")?;
    let id = id.parse().map(EntityId).map_err(|_| "an entity's number is expected")?;
    let these: Result<_, String> = these.split('+').map(str::parse).collect();
    Ok((id, these?))
}

/// Rights as flags give them.
pub(crate) fn rights(may: Vec<Permission>, entity: Vec<(EntityId, Vec<Permission>)>) -> Rights {
    let entities = entity.into_iter().map(|(id, these)| (id, these.into_iter().collect()));
    Rights { permissions: may.into_iter().collect(), entities: entities.collect() }
}

pub(crate) async fn run(command: KeyCommand, globals: &Globals) -> anyhow::Result<ExitCode> {
    let wire = connect::by_hand(&globals.load()?.config).await?;
    match command {
        KeyCommand::Add(args) => {
            let AddArgs { name, org, device, platform: _, may, entity, expires, out } = args;
            let over = expires.is_some_and(|at| at <= connect::now_here());
            anyhow::ensure!(!over, "--expires is a moment of the past: the key would open nothing");
            let rightless = may.is_empty() && entity.is_empty();
            anyhow::ensure!(
                org.is_some() || rightless,
                "--may and --entity are of an org (--org): a key for a device sends its telemetry, and one \
                 for the platform opens everything"
            );
            if let Some(path) = &out {
                // Before there is a key that would be lost.
                anyhow::ensure!(
                    !path.exists(),
                    "{} is there already: name another file",
                    path.display()
                );
                local::secret::write(path, b"").with_context(|| path.display().to_string())?;
            }
            let opens = match (org, device) {
                (Some(org), _) => {
                    let rights = rights(may, entity);
                    anyhow::ensure!(!rights.is_empty(), "--may or --entity: what may it do?");
                    Opens::Org(org, rights)
                }
                (None, Some(device)) => Opens::Device(device),
                (None, None) => Opens::Platform,
            };
            let (key, token) = registry::add_key(&wire, name, opens, expires).await?;
            match out {
                None => println!("{}", token.reveal()),
                Some(path) => {
                    let text = format!("{}\n", token.reveal());
                    let written = local::secret::write(&path, text.as_bytes());
                    written
                        .with_context(|| format!("key {} opens, and is lost: revoke it", key.id))?;
                    println!("key {} stands in {}", key.id, path.display());
                }
            }
        }
        KeyCommand::List { org, json } => {
            let keys = nats::model::load(&wire).await?.keys();
            let of_org = |key: &&std::sync::Arc<Key>| {
                org.is_none() || key.scope.org().map(|(it, _)| it) == org.as_ref()
            };
            let keys = keys.iter().filter(of_org);
            if json {
                let shown: Vec<_> = keys.map(|key| shown(key)).collect();
                println!("{}", serde_json::to_string_pretty(&shown)?);
                return Ok(ExitCode::SUCCESS);
            }
            let mut table = Table::new(["key", "name", "opens", "made", "state"]);
            keys.for_each(|key| table.row(row(key)));
            table.print();
        }
        KeyCommand::Revoke { key } => {
            let id = named(&key)?;
            let key = registry::revoke_key(&wire, &id).await?;
            let key = key.with_context(|| format!("there is no key {id}; `haystack key list`"))?;
            println!("key {id} ({}) opens nothing any more", key.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Which key somebody means. What is wrong is not repeated: it may be most of a secret.
fn named(key: &str) -> anyhow::Result<KeyId> {
    let id = key.strip_prefix("hsk_").map_or(key, |rest| rest.split('_').next().unwrap_or(rest));
    let expected = "a key's public part is expected, the 12 characters behind hsk_; `haystack key list` \
                    names them";
    id.parse().map_err(|_| anyhow::anyhow!(expected))
}

fn shown(key: &Key) -> serde_json::Value {
    json!({ "key_id": key.id, "name": key.name, "scope": key.scope,
        "created_at": key.created_at.to_string(),
        "expires_at": key.expires_at.map(|at| at.to_string()),
        "revoked_at": key.revoked_at.map(|at| at.to_string()) })
}

fn row(key: &Key) -> [String; 5] {
    let opens = match &key.scope {
        Scope::Platform => "everything".to_owned(),
        Scope::Device { device, .. } => format!("telemetry of {device}"),
        Scope::Org { org, rights, .. } => {
            let names: Vec<_> = rights.permissions.iter().map(|it| it.as_str()).collect();
            let single = match rights.entities.len() {
                0 => None,
                1 => Some("one single entity".to_owned()),
                many => Some(format!("{many} single entities")),
            };
            let opened: Vec<_> = names.into_iter().map(ToOwned::to_owned).chain(single).collect();
            format!("{org}: {}", opened.join(", "))
        }
    };
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {at}"),
        (None, Some(at)) if at <= connect::now_here() => format!("expired {at}"),
        (None, Some(at)) => format!("until {at}"),
        (None, None) => "live".to_owned(),
    };
    [key.id.to_string(), key.name.clone(), opens, key.created_at.to_string(), state]
}
