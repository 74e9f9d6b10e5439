//! The configured databases, opened for a command.

use anyhow::Context;
use domain::TargetName;
use nats::targets::Register;
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

/// The same, of those that were not let go, the primary first.
pub(crate) fn attached(
    config: &Config,
    register: &Register,
    command: &str,
) -> anyhow::Result<Vec<(TargetName, Database)>> {
    let mut databases = targets(config, command)?;
    databases.retain(|(name, _)| register.get(name).is_none_or(|it| it.detached.is_none()));
    databases.sort_by_key(|(name, _)| name != config.primary().0);
    Ok(databases)
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
