//! Reports that come in parts: what a part says of itself, which parts belong together, and the
//! whole put together again. Pure.
//!
//! ```text
//! payload ─ [`part::read`] ─▶ `CHUNKS` ─▶ [`Transactions`] ─▶ end ─▶ [`whole::assemble`] ─▶ `RAW`
//! ```

pub mod end;
pub mod part;
mod transactions;
pub mod whole;

pub use end::{End, Ended, Outcome, PartAt};
pub use part::{Digest, Facts, NotAPart, Part};
pub use transactions::{Limits, Listed, Name, Transactions, Wish};
