//! What stands beside readings, made the same in two targets: which devices are there, and how gateways' reports
//! ended. Of a presence the one that entered last counts, and of equal ones the primary's; an end never changes.

use crate::{Fault, compare::Pair};
use domain::{chunk::Ended, presence::PresenceRow};
use store::{
    repair::{put_ends, put_presences},
    verify::{Unlike, ends, presences},
};

/// Rows of one transaction.
const LOT: usize = 1_000;

/// Devices' presences; how many differed.
pub(super) async fn mend_presences(pair: &Pair<'_>) -> Result<u64, Fault> {
    let (of, org) = ((pair.primary.database, pair.other.database), pair.org);
    let (mut behind, mut differed) = (None, 0);
    loop {
        let found = presences(of, org, pair.recent, behind, LOT).await;
        let found = found.map_err(pair.other.fault())?;
        for (target, rows) in [pair.primary, pair.other].into_iter().zip(wrong(&found, newest)) {
            put_presences(target.database, org, &rows).await.map_err(target.fault())?;
        }
        differed += found.len() as u64;
        let last = found.last().and_then(newest);
        if found.len() < LOT {
            return Ok(differed);
        }
        behind = last.map(|last| last.device);
    }
}

/// Ends of gateways' transactions; how many differed.
pub(super) async fn mend_ends(pair: &Pair<'_>) -> Result<u64, Fault> {
    let (of, org) = ((pair.primary.database, pair.other.database), pair.org);
    let (mut behind, mut differed) = (None, 0);
    loop {
        let found = ends(of, org, pair.recent, behind, LOT).await.map_err(pair.other.fault())?;
        for (target, rows) in [pair.primary, pair.other].into_iter().zip(wrong(&found, primarys)) {
            put_ends(target.database, org, &rows).await.map_err(target.fault())?;
        }
        differed += found.len() as u64;
        let last = found.last().and_then(primarys);
        if found.len() < LOT {
            return Ok(differed);
        }
        behind = last.map(|last| (last.gateway, last.transaction, last.sequence));
    }
}

/// What each of the two has to be given.
fn wrong<T: Clone + PartialEq>(
    found: &[Unlike<T>],
    right: impl Fn(&Unlike<T>) -> Option<T>,
) -> [Vec<T>; 2] {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for unlike in found {
        let right = right(unlike);
        ours.extend(right.clone().filter(|right| unlike.0.as_ref() != Some(right)));
        theirs.extend(right.filter(|right| unlike.1.as_ref() != Some(right)));
    }
    [ours, theirs]
}

fn newest((ours, theirs): &Unlike<PresenceRow>) -> Option<PresenceRow> {
    let (Some(a), Some(b)) = (ours, theirs) else { return ours.clone().or_else(|| theirs.clone()) };
    let newest = if b.version > a.version { b } else { a };
    Some(PresenceRow { seen: a.seen.max(b.seen), ..newest.clone() })
}

fn primarys((ours, theirs): &Unlike<Ended>) -> Option<Ended> {
    ours.clone().or_else(|| theirs.clone())
}
