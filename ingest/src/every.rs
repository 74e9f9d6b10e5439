//! Several proofs as one.

use domain::Proof;
use std::marker::PhantomData;

/// Proof that each of several steps is durable. At least one.
#[derive(Debug)]
pub(crate) struct Every<P>(PhantomData<P>);

impl<P: Proof> Every<P> {
    /// Made of all the proofs, which it takes; `None` where there are none: nothing proves nothing.
    #[expect(clippy::needless_pass_by_value, reason = "a proof is used once")]
    pub(crate) fn of(proofs: Vec<P>) -> Option<Self> {
        if proofs.is_empty() { None } else { Some(Self(PhantomData)) }
    }
}

impl<P: Proof> Proof for Every<P> {}
