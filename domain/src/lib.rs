//! What a reading is, and the rules it obeys: pure types and decisions.
//!
//! Nothing here does I/O, awaits, or reads a clock. Time comes in through [`Clock`].

pub mod access;
pub mod batch;
pub mod chunk;
pub mod command;
pub mod custody;
pub mod deletion;
pub mod device_type;
pub mod directory;
pub mod durable;
pub mod failpoint;
pub mod hold;
pub mod ids;
pub mod job;
pub mod ledger;
pub mod letter;
pub mod merge;
pub mod model;
pub mod msgpack;
pub mod normalize;
pub mod pointer;
pub mod presence;
pub mod raw;
pub mod recall;
pub mod receipt;
pub mod replay;
pub mod retention;
pub mod row;
pub mod simulator;
pub mod subject;
pub mod tags;
pub mod time;
pub mod topic;
pub mod version;

pub use batch::{Batch, Group, Position, Sample, Values};
pub use deletion::{Deletion, DeletionRow};
pub use durable::Proof;
pub use hold::{Hold, Holds};
pub use ids::{DeviceId, EntityId, OrgId, OrgKey, TargetName, TypeId};
pub use letter::{Letter, Reason, Stage};
pub use row::{Row, Work};
pub use simulator::SimulatorId;
pub use time::{Clock, SystemClock, Timestamp};
pub use version::{Origin, OriginStream, Revision, RowVersion};
