//! What the stream says of some keys.

use domain::{
    Batch, DeletionRow, EntityId, Row, RowVersion, Timestamp, Work, subject::telemetry_of,
};
use nats::{
    Wire, envelope,
    history::{self, Beginning, Range as Messages},
    model::ModelFault,
    streams::TELEMETRY,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};
use store::{
    OrgRef,
    verify::{Range, Recent},
};

/// A row's key.
pub(crate) type Key = (EntityId, Timestamp);

/// How far back the stream goes for an org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    /// What was accepted from here on is there.
    pub(crate) since: Timestamp,
}

impl Reach {
    /// Whether the stream would have the message that gave a version.
    pub(crate) fn covers(self, version: RowVersion) -> bool {
        version.accepted_at >= self.since
    }
}

/// What the stream says of one key.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Told {
    /// The row with the highest version that it gives.
    pub(crate) row: Option<Row>,
    /// The highest version of a deletion that covers it.
    pub(crate) deleted: Option<RowVersion>,
}

/// What the stream says of the keys and ranges that were asked about.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) reach: Reach,
    pub(crate) keys: HashMap<Key, Told>,
    /// Versions of deletions, by range; `None`: the stream has none.
    pub(crate) ranges: HashMap<Range, Option<RowVersion>>,
}

/// Reads all that the stream has of an org, and keeps what was asked about. What is recent is left
/// out.
pub(crate) async fn ask(
    wire: &Wire,
    org: &OrgRef,
    keys: impl IntoIterator<Item = Key>,
    ranges: impl IntoIterator<Item = Range>,
    recent: Recent,
) -> Result<Truth, ModelFault> {
    let filter = telemetry_of(&org.key);
    let beginning = history::beginning(wire, TELEMETRY, &filter).await?;
    let first = beginning.first.map_or(u64::MAX, |first| first.sequence);
    let mut truth = Truth {
        reach: Reach { since: since(&beginning) },
        keys: keys.into_iter().map(|key| (key, Told::default())).collect(),
        ranges: ranges.into_iter().map(|range| (range, None)).collect(),
    };
    if first == u64::MAX {
        return Ok(truth);
    }
    let moments = truth.moments();
    let last = beginning.last;
    let messages =
        Messages { stream: TELEMETRY, filter: &filter, first, last, headers_only: false };
    history::read(wire, &messages, |message| {
        // What can't be read is in a letter; what is too large for a version never became a row.
        if let Ok(batch) = envelope::decode::<Batch>(&message.body) {
            let mut work = Work::default();
            if work.add(batch, message.position).is_ok() {
                truth.hear(work, &moments, recent);
            }
        }
        ControlFlow::Continue(())
    })
    .await?;
    // What was trimmed while it was read, may not have been heard.
    let after = history::beginning(wire, TELEMETRY, &filter).await?;
    truth.reach.since = truth.reach.since.max(since(&after));
    Ok(truth)
}

/// From when on the stream has everything.
fn since(beginning: &Beginning) -> Timestamp {
    if beginning.whole {
        // A stream that was made anew knows nothing of what was before it.
        return beginning.created;
    }
    beginning.first.map_or(Timestamp::MAX, |first| first.stored_at)
}

impl Truth {
    /// The moments of each entity that was asked about.
    fn moments(&self) -> BTreeMap<EntityId, BTreeSet<Timestamp>> {
        let mut moments: BTreeMap<EntityId, BTreeSet<Timestamp>> = BTreeMap::new();
        for (entity, ts) in self.keys.keys() {
            moments.entry(*entity).or_default().insert(*ts);
        }
        moments
    }

    fn hear(
        &mut self,
        work: Work,
        moments: &BTreeMap<EntityId, BTreeSet<Timestamp>>,
        recent: Recent,
    ) {
        for row in work.rows.into_iter().filter(|row| !recent.holds(row.version.accepted_at)) {
            if let Some(told) = self.keys.get_mut(&(row.entity, row.ts))
                && told.row.as_ref().is_none_or(|known| known.version <= row.version)
            {
                told.row = Some(row);
            }
        }
        for deletion in
            work.deletions.into_iter().filter(|it| !recent.holds(it.version.accepted_at))
        {
            let DeletionRow { entity, from, to, version } = deletion;
            if let Some(told) = self.ranges.get_mut(&(entity, from, to)) {
                *told = Some(version).max(*told);
            }
            // An end before its beginning is no range.
            let covered = moments.get(&entity).filter(|_| from < to);
            for ts in covered.into_iter().flat_map(|moments| moments.range(from..to)) {
                if let Some(told) = self.keys.get_mut(&(entity, *ts)) {
                    told.deleted = Some(version).max(told.deleted);
                }
            }
        }
    }
}
