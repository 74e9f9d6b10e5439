//! Connections to the server under a user of its configuration.

use anyhow::Context;
use domain::{Clock, Holds, SystemClock};
use nats::{Author, CancellationToken, Login, Wire, publish::Patience, retry::Pauses};
use service::{Config, secrets};

/// The login of a user; its password lies in `secrets.dir`.
pub(crate) fn login(config: &Config, user: &str) -> anyhow::Result<Login> {
    let password = secrets::read(&config.secrets.dir, &format!("nats-{user}"))?;
    let url = config.nats.url.clone();
    Ok(Login { url, user: user.to_owned(), password: password.reveal().to_owned() })
}

/// Connects for a command: at once or not at all.
pub(crate) async fn now(config: &Config, user: &str) -> anyhow::Result<Wire> {
    let login = login(config, user)?;
    Wire::connect(&login).await.context("is the platform running? `haystack up` starts it")
}

/// Connects for a person who changes the model: the audit log names the account.
pub(crate) async fn by_hand(config: &Config) -> anyhow::Result<Wire> {
    let wire = now(config, "operator").await?;
    let account = nix::unistd::User::from_uid(nix::unistd::Uid::current()).ok().flatten();
    let who = account.map_or_else(|| "unknown".to_owned(), |account| account.name);
    Ok(wire.on_behalf_of(Author { who: format!("cli:{who}"), request_id: None }))
}

/// Connects for a service: however long it takes. `None`: the process is to stop.
pub(crate) async fn patiently(
    config: &Config,
    user: &str,
    holds: &Holds,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Wire>> {
    let login = login(config, user)?;
    let patience =
        Patience { holds: holds.clone(), what: "nats".to_owned(), shutdown: shutdown.clone() };
    let mut pauses = Pauses::default();
    loop {
        match Wire::connect(&login).await {
            Ok(wire) => {
                patience.moving();
                return Ok(Some(wire));
            }
            Err(fault) => {
                if !patience.pause(&mut pauses, &fault.to_string()).await {
                    return Ok(None);
                }
            }
        }
    }
}

/// This moment, by this machine's clock.
pub(crate) fn now_here() -> domain::Timestamp {
    SystemClock.now()
}
