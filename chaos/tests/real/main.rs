//! Every test that needs real servers, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![expect(unreachable_pub, reason = "modules of one test binary")]

mod api;
mod archive;
mod bridge;
mod chunks;
mod clients;
mod containers;
mod crash;
mod custody;
mod devices;
mod ingest;
mod ledger;
mod letters;
mod outage;
mod permissions;
mod registry;
mod replay;
mod retention;
mod share;
mod simulator;
mod store;
mod up;
mod wire;
