//! The process shell: configuration, secrets, lifecycle, health, metrics and logs.
//!
//! The only room that reads the environment.

pub mod config;
pub mod failpoint;
pub mod health;
pub mod lifecycle;
pub mod logs;
pub mod secrets;

pub use config::Config;
pub use lifecycle::Lifecycle;
