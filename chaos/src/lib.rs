//! Prove it: faults on purpose, real servers, and a judge who knows every reading.
//!
//! The tests are in `tests/real`. This library holds the check of the house's plan, and the promises
//! about hostile bytes.

pub mod hostile;

#[cfg(test)]
mod arrows;
