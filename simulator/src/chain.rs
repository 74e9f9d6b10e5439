//! The chain of a simulator's messages: what each says of itself, and what a new owner makes of the
//! last one. Pure.
//!
//! Every message is published with the expected sequence of the one before, so there is one chain,
//! whoever writes it. Its last link says how far the readings in the stream go.

use domain::Timestamp;
use std::collections::BTreeMap;

const RUN: &str = "Haystack-Simulator-Run";
const EPOCH: &str = "Haystack-Simulator-Epoch";
const TO: &str = "Haystack-Simulator-To";
const BEGINS: &str = "Haystack-Simulator-Begins";
const LINEAGE: &str = "Haystack-Simulator-Config";

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// How often the simulator began anew before it.
    pub(crate) run: u64,
    /// The lease under which it was written.
    pub(crate) epoch: u64,
    /// The boundary up to which the readings in the stream go.
    pub(crate) to: Timestamp,
    /// The message began the run, and how.
    pub(crate) begins: Option<Beginning>,
    /// Stands for the descriptions by which the readings of the run up to `to` were made.
    pub(crate) lineage: u64,
}

/// How a run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// With a building that remembers nothing.
    Fresh,
    /// With the building as it was at that time.
    Rewound,
}

impl Link {
    /// As headers.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (RUN, self.run.to_string()),
            (EPOCH, self.epoch.to_string()),
            (TO, self.to.micros().to_string()),
            (LINEAGE, self.lineage.to_string()),
        ];
        if let Some(begins) = self.begins {
            let word = match begins {
                Beginning::Fresh => "fresh",
                Beginning::Rewound => "rewound",
            };
            headers.push((BEGINS, word.to_owned()));
        }
        headers
    }

    /// Reads it; `None` where these are not a link's headers.
    pub(crate) fn read(headers: &BTreeMap<String, String>) -> Option<Self> {
        let begins = match headers.get(BEGINS).map(String::as_str) {
            None => None,
            Some("fresh") => Some(Beginning::Fresh),
            Some("rewound") => Some(Beginning::Rewound),
            Some(_) => return None,
        };
        Some(Self {
            run: headers.get(RUN)?.parse().ok()?,
            epoch: headers.get(EPOCH)?.parse().ok()?,
            to: Timestamp::from_micros(headers.get(TO)?.parse().ok()?)?,
            begins,
            lineage: headers.get(LINEAGE)?.parse().ok()?,
        })
    }
}

/// What brings a saved state to where the stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: they agree, or the stream has forgotten.
    Stay,
    /// Go on to there in silence: it is stored.
    Skip(Timestamp),
    /// A new run began there, and was not saved.
    Begin(Beginning, Timestamp),
    /// The state does not belong to the stream.
    Foreign,
}

/// Compares what was saved (the run, how far it is, its descriptions) with the last message of the
/// simulator.
pub(crate) fn reconcile(run: u64, at: Timestamp, lineage: u64, last: Option<Link>) -> Step {
    let Some(last) = last else { return Step::Stay };
    let ahead = last.run != run || last.to > at;
    match last.begins {
        // What other descriptions made, these can't make again: the state is older than that.
        _ if ahead && last.lineage != lineage => Step::Foreign,
        // What is stored before it was saved, is never more than one message.
        Some(begins) if last.run == run + 1 => Step::Begin(begins, last.to),
        _ if last.run != run => Step::Foreign,
        _ if last.to > at => Step::Skip(last.to),
        // A stream that was restored from a copy knows less than we do.
        _ => Step::Stay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::EPOCH.plus_micros(minutes * 60_000_000)
    }

    fn link(run: u64, minutes: i64, begins: Option<Beginning>) -> Link {
        Link { run, epoch: 7, to: at(minutes), begins, lineage: 5 }
    }

    #[test]
    fn a_link_comes_back_from_its_headers() {
        for begins in [None, Some(Beginning::Fresh), Some(Beginning::Rewound)] {
            let link = link(3, 15, begins);
            let headers = link.headers().into_iter().map(|(name, value)| (name.to_owned(), value));
            assert_eq!(Link::read(&headers.collect()), Some(link));
        }
        assert_eq!(Link::read(&BTreeMap::new()), None);
    }

    #[test]
    fn what_is_stored_is_never_made_again() {
        let begins = Some(Beginning::Fresh);
        for (run, last, step) in [
            (1, link(1, 30, None), Step::Stay),
            (1, link(1, 45, None), Step::Skip(at(45))),
            (1, link(1, 15, None), Step::Stay),
            (1, link(2, 0, begins), Step::Begin(Beginning::Fresh, at(0))),
            (1, link(1, 30, begins), Step::Stay),
            (1, link(2, 0, None), Step::Foreign),
            (1, link(3, 0, begins), Step::Foreign),
            (1, link(0, 45, None), Step::Foreign),
        ] {
            assert_eq!(reconcile(run, at(30), 5, Some(last)), step, "{last:?}");
        }
        assert_eq!(reconcile(1, at(30), 5, None), Step::Stay);
        // Made by another description than the one that was saved.
        assert_eq!(reconcile(1, at(30), 6, Some(link(1, 45, None))), Step::Foreign);
        assert_eq!(reconcile(1, at(30), 6, Some(link(1, 30, None))), Step::Stay);
    }
}
