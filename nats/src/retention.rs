//! What of `RAW` and `TELEMETRY` is still needed, and taking away what is not.

use crate::{
    PublishFault, Wire,
    inspect::{self, ConsumerState, NORMALIZE, archive_consumer, ingest_consumer},
    model::ModelFault,
    publish::sequence_since,
    replays,
    streams::{RAW, TELEMETRY},
    targets::Register,
};
use domain::{OrgKey, Timestamp, replay::State, retention::Held, subject::telemetry_of};
use std::collections::BTreeMap;

/// Streams that hold readings.
pub const READINGS: [&str; 2] = [TELEMETRY, RAW];

/// How far those who need a stream's messages are with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Everything up to this sequence is done with.
    pub done: u64,
    /// Who is furthest behind, e.g. `ingest-secondary-demo`.
    pub slowest: String,
    /// The same for each org alone, where a stream has orgs.
    pub orgs: BTreeMap<OrgKey, u64>,
}

fn server(error: impl std::fmt::Display) -> ModelFault {
    ModelFault::Server(error.to_string())
}

/// What a stream holds.
pub async fn held(wire: &Wire, stream: &str) -> Result<Held, ModelFault> {
    let found = wire.jetstream.get_stream(stream).await.map_err(server)?;
    let info = found.cached_info();
    Ok(Held {
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        messages: info.state.messages,
        bytes: info.state.bytes,
        limit: u64::try_from(info.config.max_bytes).unwrap_or(0),
    })
}

/// Everything up to this sequence was stored before a moment.
pub async fn aged(
    wire: &Wire,
    stream: &str,
    before: Timestamp,
    held: &Held,
) -> Result<u64, PublishFault> {
    let first = sequence_since(wire, stream, ">", before).await?;
    Ok(first.map_or(held.last, |first| first - 1))
}

/// How far everybody is with a stream of which `held` was seen before. A registered target without a consumer
/// has applied nothing.
pub async fn applied(
    wire: &Wire,
    stream: &str,
    held: &Held,
    register: &Register,
    orgs: &[OrgKey],
) -> Result<Applied, ModelFault> {
    let consumers = inspect::consumers(wire, stream).await?;
    let position = |name: &str| consumers.get(name).map_or(0, |state| state.applied(held.last));
    let mut applied = Applied { done: held.last, slowest: String::new(), orgs: BTreeMap::new() };
    let targets = || register.iter().filter(|(_, target)| target.detached.is_none());
    if stream == TELEMETRY {
        for org in orgs {
            for (target, _) in targets() {
                let name = ingest_consumer(target, org);
                let done = position(&name);
                let of_org = applied.orgs.entry(org.clone()).or_insert(held.last);
                *of_org = done.min(*of_org);
                applied.needs(&name, done);
            }
        }
        return Ok(applied);
    }
    applied.needs(NORMALIZE, position(NORMALIZE));
    for (target, _) in targets().filter(|(_, target)| target.archives) {
        let name = archive_consumer(target);
        applied.needs(&name, position(&name));
    }
    for (id, first) in replayed(wire).await? {
        applied.needs(&format!("replay {id}"), first.saturating_sub(1));
    }
    Ok(applied)
}

impl Applied {
    fn needs(&mut self, who: &str, done: u64) {
        if done < self.done || self.slowest.is_empty() {
            (self.done, self.slowest) = (done, who.to_owned());
        }
    }
}

impl ConsumerState {
    /// Everything up to this sequence is done, where the stream went up to `last` before this was seen.
    pub fn applied(&self, last: u64) -> u64 {
        // The floor of an idle consumer stays at the last message of its subjects.
        if self.lag() == 0 { last.max(self.done) } else { self.done }
    }
}

/// The first sequence of `RAW` that each running replay still needs.
async fn replayed(wire: &Wire) -> Result<Vec<(u16, u64)>, ModelFault> {
    let mut needed = Vec::new();
    for id in 1..=replays::newest(wire).await.map_err(server)? {
        let Some(kept) = replays::get(wire, id).await.map_err(server)? else { continue };
        if kept.replay.state != State::Running {
            continue;
        }
        let first = match kept.replay.first {
            0 => sequence_since(wire, RAW, "raw.>", kept.replay.spec.from).await.map_err(server)?,
            first => Some(first.max(kept.replay.done + 1)),
        };
        needed.extend(first.map(|first| (id, first)));
    }
    Ok(needed)
}

/// Removes a stream's messages up to a sequence; how many there were.
pub async fn remove_up_to(wire: &Wire, stream: &str, sequence: u64) -> Result<u64, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
    let purged = stream.purge().sequence(sequence + 1).await.map_err(server)?;
    Ok(purged.purged)
}

/// The same for one org's messages in `TELEMETRY` alone.
pub async fn remove_of_org(wire: &Wire, org: &OrgKey, sequence: u64) -> Result<u64, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(TELEMETRY).await.map_err(server)?;
    let purge = stream.purge().sequence(sequence + 1).filter(telemetry_of(org));
    Ok(purge.await.map_err(server)?.purged)
}

/// Removes consumers of targets that were let go: somebody may have made one again meanwhile.
pub async fn release(wire: &Wire, register: &Register, orgs: &[OrgKey]) -> Result<(), ModelFault> {
    for stream in READINGS {
        let there = inspect::consumers(wire, stream).await?;
        let opened = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
        for (target, _) in register.iter().filter(|(_, target)| target.detached.is_some()) {
            let names = orgs.iter().map(|org| ingest_consumer(target, org));
            for name in names.chain([archive_consumer(target)]) {
                if there.contains_key(&name) {
                    opened.delete_consumer(&name).await.map_err(server)?;
                }
            }
        }
    }
    Ok(())
}
