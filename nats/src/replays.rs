//! Replays: their records, and what they are about.

use crate::{
    PublishFault, Wire,
    counter::Counter,
    publish::{last_sequence, sequence_since},
    records::{NotSo, Record, RecordFault, begin, get, newest},
    streams::{RAW, REPLAYS},
};
use domain::{
    Timestamp,
    replay::{Replay, Rules, Spec, State},
    version::MAX_REVISION,
};
use std::collections::BTreeSet;

/// One whose owner says nothing for so long is taken over, in microseconds.
const SILENCE: i64 = 15_000_000;

impl Record for Replay {
    const NAME: &str = "replay";
    const BUCKET: &str = REPLAYS;
    const COUNTER: Counter = Counter::Revision;
    /// A row's version has no room for more.
    const MOST: u32 = MAX_REVISION as u32;

    fn number(&self) -> u32 {
        self.id.into()
    }

    fn set_number(&mut self, number: u32) {
        self.id = number as u16;
    }

    fn is_over(&self) -> bool {
        self.state == State::Done
    }

    fn take(&mut self, worker: &str, now: Timestamp) -> bool {
        let silent = now.micros() - self.touched_at.micros() > SILENCE;
        let free = self.state == State::Running && (self.owner.is_none() || silent);
        if free {
            (self.owner, self.touched_at) = (Some(worker.to_owned()), now);
        }
        free
    }
}

/// The first and the last sequence of `RAW` that a replay is about; the last is before the first where there
/// is none.
pub async fn range(wire: &Wire, spec: &Spec) -> Result<(u64, u64), PublishFault> {
    let since = async |moment: Timestamp| sequence_since(wire, RAW, "raw.>", moment).await;
    let end = last_sequence(wire, RAW, "raw.>").await? + 1;
    let first = since(spec.from).await?.unwrap_or(end);
    let last = since(spec.to).await?.unwrap_or(end) - 1;
    Ok((first, last.max(first - 1)))
}

/// The versions that replays up to a number named: their messages may have been normalized by them.
pub async fn named(wire: &Wire, up_to: u32) -> Result<BTreeSet<u32>, RecordFault> {
    let mut named = BTreeSet::new();
    for number in 1..=up_to {
        let kept = get::<Replay>(wire, number).await?;
        if let Some(Rules::Version(version)) = kept.map(|kept| kept.record.spec.rules) {
            named.insert(version);
        }
    }
    Ok(named)
}

/// Begins one that takes another back.
pub async fn undo(wire: &Wire, id: u16, by: String, now: Timestamp) -> Result<Replay, NotSo> {
    let before = get::<Replay>(wire, id.into()).await?;
    let before = before.ok_or(NotSo::Gone(Replay::NAME, id.into()))?.record;
    if before.state == State::Running {
        let text = format!("replay {id} is running; `haystack replay stop {id}` first");
        return Err(NotSo::Refused(text));
    }
    for later in u32::from(id) + 1..=newest::<Replay>(wire).await? {
        let later = get::<Replay>(wire, later).await?.map(|kept| kept.record);
        if let Some(Replay { id: later, .. }) = later.filter(|later| later.undoes == Some(id)) {
            let text = format!(
                "replay {id} was taken back by replay {later}, or will be: `haystack replay show {later}`"
            );
            return Err(NotSo::Refused(text));
        }
    }
    let spec = Spec { rules: Rules::Own, ..before.spec };
    Ok(begin(wire, Replay::new(spec, Some(id), by, now)).await?.record)
}
