//! Real servers for tests: private, on free ports, gone when the test process is gone.
//!
//! Each has its own folder below one temporary folder of the process. A guard outside the process
//! kills what is left and removes the folder, even after a SIGKILL. A server that is not installed
//! is a panic that says how to install it, never a skipped test.

mod guard;
pub mod judge;
pub mod mosquitto;
pub mod nats;
pub mod platform;
pub mod postgres;
pub mod process;
pub mod running;

pub use guard::folder;
pub use mosquitto::Mosquitto;
pub use nats::Nats;
pub use platform::{Platform, eventually};
pub use postgres::{Database, Postgres};
pub use process::{Failpoint, Process};
pub use running::Running;
