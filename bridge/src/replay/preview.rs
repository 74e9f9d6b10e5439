//! What a replay would give, and give to nobody: for a look before it is done.

use super::{
    AHEAD,
    again::{about, again},
    named, range,
};
use domain::{
    EntityId, OrgKey, Origin, OriginStream, Position, Revision, Row, RowVersion, Timestamp,
    directory::Directory,
    normalize::TimeLimits,
    raw::Pack,
    replay::{Counts, Spec},
    version::MAX_REVISION,
};
use futures_util::{StreamExt, stream};
use nats::{
    PublishFault, Wire,
    consume::read_placed,
    envelope,
    replays::{self, ReplayFault},
    streams::RAW,
};
use std::collections::{BTreeMap, BTreeSet};

/// Messages of `RAW` of one piece.
const PIECE: u64 = 256;

/// Reads on where it was.
pub struct Preview {
    wire: Wire,
    spec: Spec,
    limits: TimeLimits,
    named: BTreeSet<u32>,
    next: u64,
    first: u64,
    last: u64,
    /// What was looked at so far.
    pub counts: Counts,
    /// What went wrong last with some message.
    pub last_failure: Option<String>,
}

/// What some messages would give.
#[derive(Debug, Default)]
pub struct Would {
    /// Rows, as the replay of the highest number would write them.
    pub rows: BTreeMap<OrgKey, Vec<Row>>,
    /// Keys that would go, unless what is there is newer than this.
    pub gone: BTreeMap<OrgKey, Vec<(EntityId, Timestamp, RowVersion)>>,
}

impl Preview {
    /// Finds out which messages it is about.
    pub async fn open(wire: Wire, spec: Spec, limits: TimeLimits) -> Result<Self, PublishFault> {
        let (first, last) = range(&wire, &spec).await?;
        let later = |fault: ReplayFault| PublishFault::Later(fault.to_string());
        let newest = replays::newest(&wire).await.map_err(later)?;
        let named = named(&wire, newest).await.map_err(later)?;
        let counts = Counts::default();
        let (next, last_failure) = (first, None);
        Ok(Self { wire, spec, limits, named, next, first, last, counts, last_failure })
    }

    /// How much of it was looked at, from 0 to 1.
    pub fn share(&self) -> f64 {
        let all = (self.last + 1).saturating_sub(self.first);
        if all == 0 { 1.0 } else { (self.next - self.first) as f64 / all as f64 }
    }

    /// What the next messages would give; `None`: that was all.
    pub async fn next(&mut self, directory: &Directory) -> Result<Option<Would>, PublishFault> {
        if self.next > self.last {
            return Ok(None);
        }
        let end = self.last.min(self.next + PIECE - 1);
        let wire = &self.wire;
        let found = stream::iter(self.next..=end)
            .map(|sequence| read_placed(wire, RAW, sequence))
            .buffered(AHEAD);
        let found: Vec<_> = found.collect().await;
        let mut would = Would::default();
        for found in found {
            if let Some((position, body)) = found? {
                self.take(directory, position, &body, &mut would);
            }
        }
        self.next = end + 1;
        Ok(Some(would))
    }

    fn take(&mut self, directory: &Directory, position: Position, body: &[u8], would: &mut Would) {
        let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(body) else { return };
        let revision = Revision(MAX_REVISION);
        for (index, entry) in (0..).zip(&pack.entries) {
            self.counts.looked_at += 1;
            let Some(sender) = about(entry, &self.spec, directory) else { continue };
            self.counts.taken += 1;
            let Position { sequence, stored_at: accepted_at } = position;
            let origin = Origin { stream: OriginStream::Raw, sequence, index, accepted_at };
            let (rules, known) = ((&self.spec, revision), (directory, self.limits));
            let given = again(entry, &sender, origin, rules, known, &self.named);
            if let Some(failure) = given.failure {
                self.counts.failed += 1;
                self.last_failure = Some(format!("{}: {failure}", sender.device));
            }
            // What does not fit a version never came so far.
            let Ok(version) = RowVersion::new(&origin, revision) else { continue };
            let rows = would.rows.entry(sender.org.clone()).or_default();
            for sample in given.group.into_iter().flat_map(|group| group.samples) {
                self.counts.readings += 1;
                let (entity, ts, values) = (sample.entity, sample.ts, sample.values);
                rows.push(Row { entity, ts, version, values });
            }
            let gone = would.gone.entry(sender.org).or_default();
            for removal in given.removals {
                self.counts.removals += 1;
                gone.extend(removal.entities.iter().map(|entity| (*entity, removal.from, version)));
            }
        }
    }
}
