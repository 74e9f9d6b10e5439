//! What a replay would change, held against the primary: looked at, and done to nothing.

mod tally;

use crate::{Fault, compare::Target};
use domain::{
    EntityId, OrgKey, Origin, OriginStream, Position, Revision, Row, RowVersion, Timestamp,
    directory::Directory,
    normalize::TimeLimits,
    raw::Pack,
    replay::{Counts, Replay, Spec, State},
    version::MAX_REVISION,
};
use futures_util::{StreamExt, stream};
use nats::{
    PublishFault, Wire,
    consume::read_placed,
    envelope,
    records::{self, RecordFault},
    replays::{named, range},
    streams::RAW,
};
use rules::{about, again};
use std::collections::{BTreeMap, BTreeSet};
use store::{OrgRef, read};
use tally::Key;
pub use tally::{Changes, Sample, Tally};

/// Messages of `RAW` that are asked for at once: each may have some megabytes.
const AHEAD: usize = 4;
/// Rows and removals that are held against the primary at once.
const LOT: usize = 20_000;
/// How often it is told how far it is, in messages.
const TOLD_EVERY: u64 = 64;
/// Replays that are looked at for how fast one is, ...
const LOOKED_BACK: usize = 20;
/// ... each of so many readings: a short one mostly waits for a bridge.
const TELLING: u64 = 10_000;

/// What is asked with.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The stream server.
    pub wire: &'a Wire,
    /// Against which it is held.
    pub primary: Target<'a>,
    /// Devices and profiles.
    pub directory: &'a Directory,
    /// Believable moments.
    pub limits: TimeLimits,
}

/// The answer.
#[derive(Debug)]
pub struct Preview {
    /// Rows that would be others.
    pub tally: Tally,
    /// Messages that it is about.
    pub counts: Counts,
    /// What went wrong last with some message.
    pub last_failure: Option<String>,
    /// The last replay that gave readings, and how many a second.
    pub pace: Option<(u16, f64)>,
}

impl Preview {
    /// How long it would take, where that is known.
    pub fn seconds(&self) -> Option<f64> {
        self.pace.map(|(_, readings)| self.counts.readings as f64 / readings)
    }
}

fn later(fault: &RecordFault) -> Fault {
    PublishFault::Later(fault.to_string()).into()
}

impl Question<'_> {
    /// Looks; `progress` hears how much was looked at, from 0 to 1, and how many messages it is about.
    pub async fn ask(
        &self,
        spec: Spec,
        progress: &mut (dyn FnMut(f64, u64) + Send),
    ) -> Result<Preview, Fault> {
        let fault = self.primary.fault();
        let orgs = read::orgs(self.primary.database).await.map_err(&fault)?;
        let (first, last) = range(self.wire, &spec).await?;
        let newest = records::newest::<Replay>(self.wire).await.map_err(|it| later(&it))?;
        let named = named(self.wire, newest).await.map_err(|it| later(&it))?;
        let mut look =
            Look { question: *self, spec, named, counts: Counts::default(), last_failure: None };
        let (mut tally, mut would) = (Tally::default(), Would::default());
        let messages = stream::iter(first..=last)
            .map(|sequence| async move { (sequence, read_placed(self.wire, RAW, sequence).await) });
        let mut messages = std::pin::pin!(messages.buffered(AHEAD));
        while let Some((sequence, found)) = messages.next().await {
            if let Some((position, body)) = found? {
                look.take(position, &body, &mut would);
            }
            tokio::task::yield_now().await;
            if would.amount >= LOT || sequence == last {
                self.compare(&orgs, std::mem::take(&mut would), &mut tally).await?;
            }
            if sequence % TOLD_EVERY == 0 {
                progress((sequence - first) as f64 / (last + 1 - first) as f64, look.counts.taken);
            }
        }
        let Look { counts, last_failure, .. } = look;
        let pace = pace(self.wire).await.map_err(|it| later(&it))?;
        Ok(Preview { tally, counts, last_failure, pace })
    }

    async fn compare(
        &self,
        orgs: &[OrgRef],
        mut would: Would,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        for (key, rows) in would.rows {
            let gone = would.gone.remove(&key).unwrap_or_default();
            let gone_keys = gone.iter().map(|(entity, ts, _)| (*entity, *ts));
            let keys: Vec<Key> =
                rows.iter().map(|row| (row.entity, row.ts)).chain(gone_keys).collect();
            // The primary may not know it yet: all of it is new.
            let org = orgs.iter().find(|org| org.key == key);
            let mut held = Vec::new();
            if let Some(org) = org {
                for keys in keys.chunks(LOT) {
                    let found = read::at(self.primary.database, org, keys).await;
                    held.extend(found.map_err(self.primary.fault())?);
                }
            }
            let held = held.into_iter().map(|row| ((row.entity, row.ts), row)).collect();
            tally.compare(&key, &rows, &gone, &held);
        }
        Ok(())
    }
}

/// The last replay that gave readings, and how many a second.
async fn pace(wire: &Wire) -> Result<Option<(u16, f64)>, RecordFault> {
    let newest = records::newest::<Replay>(wire).await?;
    for number in (1..=newest).rev().take(LOOKED_BACK) {
        let Some(kept) = records::get::<Replay>(wire, number).await? else { continue };
        if let Some(readings) = told_by(&kept.record) {
            return Ok(Some((kept.record.id, readings)));
        }
    }
    Ok(None)
}

/// Readings a second of a replay that tells.
fn told_by(replay: &Replay) -> Option<f64> {
    let micros = replay.touched_at.micros() - replay.began_at.micros();
    let tells = replay.state == State::Done && replay.counts.readings >= TELLING && micros > 0;
    tells.then(|| replay.counts.readings as f64 / (micros as f64 / 1e6))
}

/// What some messages would give.
#[derive(Default)]
struct Would {
    /// How many of both.
    amount: usize,
    /// Rows, as the replay of the highest number would write them.
    rows: BTreeMap<OrgKey, Vec<Row>>,
    /// Keys that would go, unless what is there is newer than this.
    gone: BTreeMap<OrgKey, Vec<(EntityId, Timestamp, RowVersion)>>,
}

/// Reads on where it was.
struct Look<'a> {
    question: Question<'a>,
    spec: Spec,
    named: BTreeSet<u32>,
    counts: Counts,
    last_failure: Option<String>,
}

impl Look<'_> {
    fn take(&mut self, position: Position, body: &[u8], would: &mut Would) {
        let Question { directory, limits, .. } = self.question;
        let Ok(pack) = envelope::decode_borrowed::<Pack<'_>>(body) else { return };
        let revision = Revision(MAX_REVISION);
        for (index, entry) in (0..).zip(&pack.entries) {
            self.counts.looked_at += 1;
            let Some(sender) = about(entry, &self.spec, directory) else { continue };
            self.counts.taken += 1;
            let Position { sequence, stored_at: accepted_at } = position;
            let origin = Origin { stream: OriginStream::Raw, sequence, index, accepted_at };
            let (rules, known) = ((&self.spec, revision), (directory, limits));
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
                would.amount += 1;
            }
            let gone = would.gone.entry(sender.org).or_default();
            for removal in given.removals {
                self.counts.removals += 1;
                gone.extend(removal.entities.iter().map(|entity| (*entity, removal.from, version)));
                would.amount += removal.entities.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::replay::Rules;

    #[test]
    fn a_replay_that_is_done_and_no_short_one_tells_how_fast_one_is() {
        let (from, to) = (Timestamp::EPOCH, Timestamp::MAX);
        let spec =
            Spec { from, to, org: None, device_type: None, device: None, rules: Rules::InForce };
        let mut replay = Replay::new(spec, None, String::new(), Timestamp::EPOCH);
        replay.touched_at = Timestamp::EPOCH.plus_micros(2_000_000);
        replay.counts.readings = TELLING;
        assert_eq!(told_by(&replay), None, "it runs");
        replay.state = State::Done;
        assert_eq!(told_by(&replay), Some(TELLING as f64 / 2.0));
        replay.counts.readings = TELLING - 1;
        assert_eq!(told_by(&replay), None, "a short one mostly waits for a bridge");
        let counts = Counts { readings: 60_000, ..Counts::default() };
        let (tally, last_failure) = (Tally::default(), None);
        let preview = Preview { tally, counts, last_failure, pace: Some((7, 20_000.0)) };
        assert_eq!(preview.seconds(), Some(3.0));
    }
}
