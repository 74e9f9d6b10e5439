//! Real servers on this machine: found, laid out in a folder, started, known to be ready.
//!
//! No logic of our services is here. `haystack up`, the tests and the bench start the same
//! servers with the same configuration through this crate.

pub mod account;
pub mod find;
pub mod mosquitto;
pub mod nats;
pub mod pki;
pub mod port;
pub mod postgres;
pub mod roles;
pub mod secret;

use nix::sys::signal::Signal;
use std::{future::Future, process::Command, time::Duration};

pub use account::Account;
pub use mosquitto::Mosquitto;
pub use nats::Nats;
pub use postgres::Postgres;
pub use roles::{Roles, set_up};

/// How often a starting server is asked whether it is ready.
pub const PROBE_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for one answer of a probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that is laid out in a folder and can be started, in the foreground, any number of
/// times.
pub trait Server: Send + Sync {
    /// Short name for tables and log files: `nats`, `mosquitto`, `postgres-primary`, …
    fn name(&self) -> &str;
    /// The loopback port that it listens on.
    fn port(&self) -> u16;
    /// The command that runs it in the foreground until it is told to stop. It writes its log to
    /// standard output and error; both, and the process group, are the caller's choice.
    fn command(&self) -> Command;
    /// Asks it to stop cleanly without waiting for its clients.
    fn stop_signal(&self) -> Signal;
    /// Resolves when it serves. Never gives up by itself: put a limit on it, and watch the
    /// process meanwhile. An error means that waiting does not help: another server answers on
    /// this port, or it refuses our credentials.
    fn ready(&self) -> impl Future<Output = anyhow::Result<()>> + Send;
}
