//! The only room with SQL: connections, migrations, the merge into values tables, the projection
//! of `MODEL`, and what `verify`, `status` and `doctor` ask a database.

pub mod archive;
pub mod connect;
mod copy;
pub mod fault;
pub mod inspect;
pub mod ledger;
pub mod migrate;
pub mod model;
mod nodelay;
pub mod org;
pub mod pgpass;
pub mod read;
pub mod repair;
pub mod simulator;
pub mod verify;
pub mod view;
pub mod write;

pub use connect::{Database, Limits, Login};
pub use fault::{Fault, Verdict};
pub use model::Projection;
pub use org::OrgRef;
pub use write::{Committed, WritePath, Writer};
