//! Replays: their records, and what they are about.

use crate::{
    PublishFault, Wire,
    counter::Counter,
    publish::{last_sequence, sequence_since},
    records::{Kept, NotSo, Record, RecordFault, begin, change, get, newest},
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

/// The replay that takes one back, or is to.
pub async fn taken_back_by(wire: &Wire, id: u16) -> Result<Option<u16>, RecordFault> {
    for later in u32::from(id) + 1..=newest::<Replay>(wire).await? {
        let later = get::<Replay>(wire, later).await?.map(|kept| kept.record);
        if let Some(later) = later.filter(|later| later.undoes == Some(id)) {
            return Ok(Some(later.id));
        }
    }
    Ok(None)
}

/// Begins one that takes another back: its messages give again what they gave by their own versions. Where an
/// earlier one gave something else, it is refused unless that is `meant`.
pub async fn undo(
    wire: &Wire,
    id: u16,
    meant: bool,
    by: String,
    now: Timestamp,
) -> Result<Replay, NotSo> {
    let before = get::<Replay>(wire, id.into()).await?;
    let before = before.ok_or(NotSo::Gone(Replay::NAME, id.into()))?.record;
    let refused = |text: String| Err(NotSo::Refused(text));
    if before.state == State::Running {
        return refused(format!("replay {id} is running; stop it first"));
    }
    if let Some(undone) = before.undoes {
        return refused(format!(
            "replay {id} itself takes replay {undone} back; to have that again, begin it again"
        ));
    }
    if let Some(later) = taken_back_by(wire, id).await? {
        return refused(format!("replay {id} was taken back by replay {later}, or will be"));
    }
    for earlier in (1..u32::from(id)).filter(|_| !meant) {
        let Some(Kept { record: earlier, .. }) = get::<Replay>(wire, earlier).await? else {
            continue;
        };
        let gave = earlier.undoes.is_none() && earlier.counts.taken > 0;
        if gave
            && earlier.spec.meets(&before.spec)
            && taken_back_by(wire, earlier.id).await?.is_none()
        {
            return refused(format!(
                "replay {} gave messages of that time again, too: taken back, they would be as at first, \
                 and not as replay {0} gave them. To have that, begin replay {0} again; to have them as at \
                 first, say so: `haystack replay undo {id} --to-the-first`, or `?to_the_first=true`",
                earlier.id
            ));
        }
    }
    let spec = Spec { rules: Rules::Own, ..before.spec };
    Ok(begin(wire, Replay::new(spec, Some(id), by, now)).await?.record)
}

/// Lets one go on that was stopped.
pub async fn resume(wire: &Wire, id: u16) -> Result<Replay, NotSo> {
    if let Some(later) = taken_back_by(wire, id).await? {
        return Err(NotSo::Refused(format!("replay {id} was taken back by replay {later}")));
    }
    change(wire, id.into(), Replay::resume).await
}
