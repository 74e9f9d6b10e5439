//! The configured databases, opened for a command.

use anyhow::Context;
use domain::TargetName;
use service::Config;
use store::{Database, Limits, Login};

/// Connections that a command needs to one database.
const CONNECTIONS: u32 = 2;

/// Opens a database by its URL; who connects shows as `haystack <command>`.
pub(crate) fn open(config: &Config, url: &str, command: &str) -> anyhow::Result<Database> {
    let pgpass = Some(config.pgpass()).filter(|path| path.exists());
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let login = Login { url: url.to_owned(), pgpass };
    Ok(Database::open(&login, &format!("haystack {command}"), limits)?)
}

/// Opens every target under the role that writes.
pub(crate) fn targets(
    config: &Config,
    command: &str,
) -> anyhow::Result<Vec<(TargetName, Database)>> {
    let open = |(name, target): (&TargetName, &service::config::Target)| {
        let database =
            open(config, &target.url, command).with_context(|| format!("target {name}"))?;
        Ok((name.clone(), database))
    };
    config.targets.iter().map(open).collect()
}
