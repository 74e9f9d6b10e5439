//! What of `RAW` and `TELEMETRY` is still needed, and taking away what is not.

use crate::{
    PublishFault, Wire,
    inspect::{self, NORMALIZE, archive_consumer, ingest_consumer},
    model::ModelFault,
    publish::{last_sequence, sequence_since},
    records,
    streams::{RAW, TELEMETRY},
    targets::Register,
};
use async_nats::jetstream::stream::DirectGetErrorKind;
use domain::{
    OrgKey, Timestamp,
    replay::{Replay, State},
    retention::Held,
    subject::telemetry_of,
};
use std::collections::BTreeMap;

/// Streams that hold readings.
pub const READINGS: [&str; 2] = [TELEMETRY, RAW];

/// Messages of `RAW` that a door looks back at.
pub const DOORS: u64 = 64;

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

/// Sequences between a stream's first and last that it has not any more.
pub async fn taken_out(wire: &Wire, stream: &str) -> Result<Vec<u64>, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
    let found = stream.info_builder().with_deleted(true).fetch().await.map_err(server)?;
    Ok(found.info.state.deleted.unwrap_or_default())
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
    // Before the consumers: what they have done by then is all there was.
    let mut last = BTreeMap::new();
    if stream == TELEMETRY {
        for org in orgs {
            let newest = last_sequence(wire, TELEMETRY, &telemetry_of(org)).await;
            last.insert(org.clone(), newest.map_err(server)?);
        }
    }
    let consumers = inspect::consumers(wire, stream).await?;
    let done = |name: &str| consumers.get(name).map_or(0, |state| state.done);
    let mut applied = Applied { done: held.last, slowest: String::new(), orgs: BTreeMap::new() };
    let targets = || register.iter().filter(|(_, target)| target.detached.is_none());
    if stream == TELEMETRY {
        for org in orgs {
            for (target, _) in targets() {
                let name = ingest_consumer(target, org);
                let newest = last.get(org).copied().unwrap_or(u64::MAX);
                let done = match consumers.get(&name) {
                    None => 0,
                    // The acknowledged end of an org's messages is behind those of others.
                    Some(state) if state.done >= newest => held.last.max(state.done),
                    Some(state) => state.done,
                };
                let of_org = applied.orgs.entry(org.clone()).or_insert(held.last);
                *of_org = done.min(*of_org);
                applied.needs(&name, done);
            }
        }
        return Ok(applied);
    }
    // A door that was restarted looks for what it sent last.
    applied.needs("doors", held.but_the_newest(DOORS));
    applied.needs(NORMALIZE, done(NORMALIZE));
    for (target, _) in targets().filter(|(_, target)| target.archives) {
        let name = archive_consumer(target);
        applied.needs(&name, done(&name));
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

/// The first sequence of `RAW` that each running replay still needs.
async fn replayed(wire: &Wire) -> Result<Vec<(u16, u64)>, ModelFault> {
    let mut needed = Vec::new();
    for id in 1..=records::newest::<Replay>(wire).await.map_err(server)? {
        let Some(kept) = records::get::<Replay>(wire, id).await.map_err(server)? else { continue };
        if kept.record.state != State::Running {
            continue;
        }
        let first = match kept.record.first {
            0 => sequence_since(wire, RAW, "raw.>", kept.record.spec.from).await.map_err(server)?,
            first => Some(first.max(kept.record.done + 1)),
        };
        needed.extend(first.map(|first| (kept.record.id, first)));
    }
    Ok(needed)
}

/// Removes a stream's messages up to a sequence; how many there were.
pub async fn remove_up_to(wire: &Wire, stream: &str, sequence: u64) -> Result<u64, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(stream).await.map_err(server)?;
    let purged = stream.purge().sequence(sequence + 1).await.map_err(server)?;
    Ok(purged.purged)
}

/// Whether an org has a message in `TELEMETRY` up to a sequence.
pub async fn has_up_to(wire: &Wire, org: &OrgKey, sequence: u64) -> Result<bool, ModelFault> {
    let stream = wire.jetstream.get_stream_no_info(TELEMETRY).await.map_err(server)?;
    match stream.direct_get_next_for_subject(telemetry_of(org).as_str(), Some(1)).await {
        Ok(first) => Ok(first.sequence <= sequence),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(false),
        Err(error) => Err(server(error)),
    }
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
