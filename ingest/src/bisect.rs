//! Finding exactly what a database refuses, by halving: a pure state machine.
//!
//! Whoever drives it tries [`Bisection::next`] and says how it went. An outage is no answer: the
//! same part is tried again later, and nothing was decided.

/// Something that can be tried in parts.
pub(crate) trait Part: Sized {
    /// Two parts that together are the whole; the whole again where it can't be divided.
    fn halves(self) -> Result<(Self, Self), Self>;
}

/// What is stored, what is refused, and what is still to be tried. `Y` is the proof of a stored
/// part, `N` why one was refused.
#[derive(Debug)]
pub(crate) struct Bisection<P, Y, N> {
    /// The next one is last.
    todo: Vec<P>,
    /// Proofs of what is stored.
    pub(crate) stored: Vec<Y>,
    /// Parts that can't be divided and were refused alone.
    pub(crate) refused: Vec<(P, N)>,
}

impl<P: Part, Y, N> Bisection<P, Y, N> {
    /// Everything is still to be tried, at first as a whole.
    pub(crate) fn new(whole: P) -> Self {
        Self { todo: vec![whole], stored: Vec::new(), refused: Vec::new() }
    }

    /// What to try next; `None` where all is decided.
    pub(crate) fn next(&self) -> Option<&P> {
        self.todo.last()
    }

    /// What [`Bisection::next`] gave is stored.
    pub(crate) fn store(&mut self, proof: Y) {
        if self.todo.pop().is_some() {
            self.stored.push(proof);
        }
    }

    /// What [`Bisection::next`] gave was refused for what is in it.
    pub(crate) fn refuse(&mut self, why: N) {
        let Some(part) = self.todo.pop() else { return };
        match part.halves() {
            // The first half comes first: the order of the whole is kept.
            Ok((first, second)) => self.todo.extend([second, first]),
            Err(single) => self.refused.push((single, why)),
        }
    }

    /// Adds something to try.
    pub(crate) fn add(&mut self, part: P) {
        self.todo.push(part);
    }

    /// Takes refusals back: what was refused is tried once more, after what is to be tried now.
    pub(crate) fn doubt(&mut self) {
        let refused = self.refused.drain(..).map(|(part, _)| part);
        self.todo.splice(0..0, refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    impl Part for Vec<u32> {
        fn halves(mut self) -> Result<(Self, Self), Self> {
            if self.len() < 2 {
                return Err(self);
            }
            let second = self.split_off(self.len() / 2);
            Ok((self, second))
        }
    }

    #[derive(Debug, Default)]
    struct Run {
        stored: Vec<u32>,
        refused: Vec<u32>,
        attempts: usize,
    }

    /// Drives a bisection; the `away`th attempts of the list meet an outage.
    fn run(rows: u32, poison: &BTreeSet<u32>, away: &BTreeSet<usize>) -> Run {
        let mut run = Run::default();
        let mut bisection: Bisection<Vec<u32>, Vec<u32>, ()> = Bisection::new((0..rows).collect());
        let mut calls = 0;
        while let Some(part) = bisection.next() {
            calls += 1;
            if away.contains(&calls) {
                continue;
            }
            run.attempts += 1;
            if part.iter().any(|row| poison.contains(row)) {
                bisection.refuse(());
            } else {
                let part = part.clone();
                bisection.store(part);
            }
        }
        run.stored = bisection.stored.concat();
        run.refused = bisection.refused.into_iter().flat_map(|(part, ())| part).collect();
        run
    }

    proptest! {
        #[test]
        fn exactly_the_poison_is_refused_and_everything_else_stored_once(
            rows in 1..3_000u32,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            away in prop::collection::btree_set(1..60usize, 0..10),
        ) {
            let poison: BTreeSet<u32> =
                picks.iter().map(|pick| pick.index(rows as usize) as u32).collect();
            let run = run(rows, &poison, &away);
            let good: Vec<u32> = (0..rows).filter(|row| !poison.contains(row)).collect();
            prop_assert_eq!(run.stored, good);
            prop_assert_eq!(run.refused, poison.iter().copied().collect::<Vec<_>>());
            // Two attempts a level and poison row, at most, beside the first.
            let levels = rows.next_power_of_two().ilog2() as usize;
            prop_assert!(run.attempts <= 1 + 2 * poison.len() * levels, "{}", run.attempts);
        }
    }

    #[test]
    fn a_refusal_that_is_doubted_is_tried_again_after_the_rest() {
        let mut bisection: Bisection<Vec<u32>, (), &str> = Bisection::new(vec![1]);
        bisection.refuse("no");
        bisection.doubt();
        bisection.add(vec![2, 3]);
        assert_eq!(bisection.next(), Some(&vec![2, 3]));
        bisection.store(());
        assert_eq!(bisection.next(), Some(&vec![1]));
        bisection.refuse("no");
        assert_eq!(bisection.refused, [(vec![1], "no")]);
    }
}
