//! From one device message to readings, by its device type's rules, or to a letter that says why not. Pure: what
//! normalizes live messages, letters and history, and what only looks what would come of it, is this.

mod again;
mod codec;
mod entry;
#[cfg(test)]
mod fixtures;
mod message;
mod size;
mod told;

pub use again::{Again, about, again};
pub use entry::{Known, NotYet, Strangers};
pub use message::{Normalized, Stored, normalize_message, normalize_one};
pub use size::{FULL_BYTES, cut, group_bytes};
pub use told::Told;
