//! Proof that something is safe, as a type.
//!
//! Whoever says "yes" to an upstream hands over a value that only the downstream's yes can make:
//! the wire makes `Fsynced` from a stream's acknowledgement, the store makes `Committed` from a
//! COMMIT. "Accepted" things (a message handed to a channel, a row sent to a connection) have no
//! such value, so acknowledging them too early does not compile.

/// What a durable step leaves behind. Implemented by the room that performs the step, beside the
/// private constructor of the proof.
pub trait Proof {}

/// Several proofs together prove that all of their steps are durable.
impl<A: Proof, B: Proof> Proof for (A, B) {}

/// A proof, borrowed, proves the same.
impl<P: Proof> Proof for &P {}
