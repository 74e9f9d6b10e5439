//! Ingest against real servers: from `TELEMETRY` into two databases.

mod converge;
mod hold;
mod house;
mod poison;

pub use house::connect;
