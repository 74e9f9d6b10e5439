//! What is missing: for each point whose interval is known, since when, and where it stopped.

use crate::{Fault, compare::Target};
use domain::{
    DeviceId, EntityId, OrgKey, SimulatorId, Stage, Timestamp,
    directory::Directory,
    model::Role,
    simulator::SimulatorConfig,
    tags::{TagValue, Tags},
};
use nats::{
    Wire,
    letters::{self, Filter},
    outcome,
    publish::sequence_since,
    streams::RAW,
};
use std::{collections::BTreeMap, time::Duration};
use store::{
    OrgRef, archive,
    read::{self, Hole},
};

/// The tag of Project Haystack that says how often a point is collected: a number with a unit of time.
pub const INTERVAL: &str = "hisCollectInterval";
/// Gaps of one org that are told at most.
pub const MOST: usize = 10_000;
/// Letters of one device that are looked at.
const LETTERS: usize = 1_000;
/// A message that has waited for less is on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(5);
/// How late a reading may be before it is missing, in intervals.
const PATIENCE: f64 = 1.5;

/// Who brings a point's readings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A device, by itself or by its gateway.
    Device {
        /// The device.
        device: DeviceId,
        /// Who sends: itself, or its gateway.
        sender: DeviceId,
        /// Which of its metrics.
        metric: String,
    },
    /// A simulator.
    Simulator(SimulatorId),
    /// Whoever posts values.
    Other,
}

/// Readings that did not come.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// Whose.
    pub entity: EntityId,
    /// Its name for people.
    pub name: String,
    /// Who brings them.
    pub source: Source,
    /// How often one is expected.
    pub interval: Duration,
    /// The last reading before; `None`: there never was one.
    pub after: Option<Timestamp>,
    /// The first reading after; `None`: there is none yet.
    pub until: Option<Timestamp>,
    /// Readings that are missing.
    pub missing: u64,
    /// Where they stopped.
    pub why: Why,
}

/// Where readings stopped.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// The primary has not applied everything: how long its oldest message has waited.
    Behind(Duration),
    /// Messages of the device stand in `DEAD`: how many, and why the last one does.
    Dead(usize, domain::Reason),
    /// Messages of the device came in that time and gave no reading of this point.
    NotOfThisPoint(u64),
    /// The device, or its gateway, sent nothing while others did.
    Silent,
    /// Nobody's message came in that time: bridge, broker, stream server or network.
    NothingCame,
    /// The simulator made none: it stood still, or its service does.
    Stopped,
    /// Nobody posted one.
    NotPosted,
}

/// What is looked at.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The stream server.
    pub wire: &'a Wire,
    /// What is registered.
    pub directory: &'a Directory,
    /// The primary.
    pub primary: Target<'a>,
    /// Whose points.
    pub org: &'a OrgRef,
    /// From this moment.
    pub from: Timestamp,
    /// Up to this one.
    pub to: Timestamp,
}

/// A point whose interval is known.
struct Expected {
    name: String,
    source: Source,
    interval: Duration,
}

/// Points of an org whose interval is known, and their gaps, the longest first.
pub async fn gaps(question: &Question<'_>) -> Result<(usize, Vec<Gap>), Fault> {
    let Question { primary, org, from, to, .. } = *question;
    let expected = expected(question.directory, &org.key, org);
    let asked = expected.iter().map(|(entity, point)| (*entity, point.interval)).collect();
    let holes = read::holes(primary.database, org, asked, (from, to), PATIENCE, MOST).await;
    let behind = behind(question).await?;
    let mut reasons = Reasons { question, behind, dead: BTreeMap::new(), came: BTreeMap::new() };
    let mut gaps = Vec::new();
    for Hole { entity, after, until } in holes.map_err(primary.fault())? {
        let Some(Expected { name, source, interval }) = expected.get(&entity) else { continue };
        let span = (after.unwrap_or(from).max(from), until.unwrap_or(to));
        let why = reasons.why(source, span, until.is_none()).await?;
        let whole = until.unwrap_or(to).micros() - after.unwrap_or(from).micros();
        let intervals = whole as f64 / interval.as_micros() as f64;
        // Between two readings one fewer is missing than there are intervals.
        let missing = if until.is_some() { intervals.round() - 1.0 } else { intervals.floor() };
        gaps.push(Gap {
            entity,
            name: name.clone(),
            source: source.clone(),
            interval: *interval,
            after,
            until,
            missing: missing.max(1.0) as u64,
            why,
        });
    }
    gaps.sort_by_key(|gap| (std::cmp::Reverse(gap.missing), gap.entity));
    Ok((expected.len(), gaps))
}

/// Points whose interval a tag says, or their simulator.
fn expected(directory: &Directory, key: &OrgKey, org: &OrgRef) -> BTreeMap<EntityId, Expected> {
    let mut sources: BTreeMap<EntityId, (Source, Option<Duration>)> = BTreeMap::new();
    for device in directory.devices(key) {
        let sender = match &device.role {
            Role::Logical { gateway, .. } => gateway.clone(),
            _ => device.id.clone(),
        };
        for (metric, point) in &device.points {
            let (device, sender, metric) = (device.id.clone(), sender.clone(), metric.clone());
            sources.insert(point.entity, (Source::Device { device, sender, metric }, None));
        }
    }
    let active = |poller: &std::sync::Arc<domain::model::Poller>| {
        &poller.org == key && poller.status == "active"
    };
    for poller in directory.pollers().into_iter().filter(active) {
        let config: Option<SimulatorConfig> = serde_json::from_str(&poller.config).ok();
        let plan = config.and_then(|config| building::simulate::plan(&config).ok());
        let interval =
            plan.map(|plan| Duration::from_secs(u64::from(plan.interval_minutes()) * 60));
        for entity in poller.entities.values() {
            sources.insert(*entity, (Source::Simulator(poller.id), interval));
        }
    }
    let of = |entity: std::sync::Arc<domain::model::Entity>| {
        let (source, simulated) = sources.remove(&entity.id).unwrap_or((Source::Other, None));
        // A simulator's site and equipment are no points.
        let point = entity.tags.contains_key("point");
        let interval = said(&entity.tags).or(simulated.filter(|_| point))?;
        Some((entity.id, Expected { name: entity.name.clone(), source, interval }))
    };
    directory.entities(org.id).into_iter().filter_map(of).collect()
}

/// The interval that tags say.
fn said(tags: &Tags) -> Option<Duration> {
    let TagValue::Number(number, unit) = tags.get(INTERVAL)? else { return None };
    let seconds = match unit.as_deref().unwrap_or("s") {
        "ms" | "millisecond" => 0.001,
        "s" | "sec" | "second" => 1.0,
        "min" | "minute" => 60.0,
        "h" | "hr" | "hour" => 3_600.0,
        "day" => 86_400.0,
        _ => return None,
    };
    // Shorter than a millisecond, longer than a year: somebody's mistake.
    let seconds = number * seconds;
    (0.001..=366.0 * 86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// How long the primary's oldest message of the org has waited; `None`: it is current.
async fn behind(question: &Question<'_>) -> Result<Option<Duration>, Fault> {
    let Question { wire, primary, org, to, .. } = *question;
    let position = outcome::position(wire, primary.name, &org.key).await?;
    let waiting = position.and_then(|position| position.waiting_since);
    let waited = |since: Timestamp| (to.micros() - since.micros()).max(0).unsigned_abs();
    let behind = waiting.map(|since| Duration::from_micros(waited(since)));
    // What came just now is on its way.
    Ok(behind.filter(|behind| *behind >= ON_ITS_WAY))
}

/// Looks up why; what was found for one gap holds for others.
struct Reasons<'a> {
    question: &'a Question<'a>,
    behind: Option<Duration>,
    dead: BTreeMap<DeviceId, Vec<(Timestamp, domain::Reason)>>,
    came: BTreeMap<(Timestamp, Timestamp), bool>,
}

impl Reasons<'_> {
    async fn why(
        &mut self,
        source: &Source,
        span: (Timestamp, Timestamp),
        open: bool,
    ) -> Result<Why, Fault> {
        if open && let Some(behind) = self.behind {
            return Ok(Why::Behind(behind));
        }
        let sender = match source {
            Source::Device { sender, .. } => sender,
            Source::Simulator(_) => return Ok(Why::Stopped),
            Source::Other => return Ok(Why::NotPosted),
        };
        let dead = self.dead(sender).await?;
        let of_span = dead.iter().filter(|(at, _)| (span.0..=span.1).contains(at));
        let of_span: Vec<_> = of_span.collect();
        if let Some((_, reason)) = of_span.last() {
            return Ok(Why::Dead(of_span.len(), *reason));
        }
        let primary = self.question.primary;
        let came = archive::count(primary.database, sender, span).await.map_err(primary.fault())?;
        // The reading before the gap came in a message of its own.
        let between = came.saturating_sub(1);
        if between > 0 {
            return Ok(Why::NotOfThisPoint(between));
        }
        Ok(if self.anything_came(span).await? { Why::Silent } else { Why::NothingCame })
    }

    async fn dead(&mut self, sender: &DeviceId) -> Result<&[(Timestamp, domain::Reason)], Fault> {
        if !self.dead.contains_key(sender) {
            let Question { wire, org, .. } = *self.question;
            let mut found = Vec::new();
            for stage in [Stage::Normalize, Stage::Ingest] {
                let filter = Filter {
                    stage: Some(stage),
                    org: Some(Some(org.key.clone())),
                    sender: Some(sender.to_string()),
                    reason: None,
                };
                let page = letters::page(wire, &filter, (0, u64::MAX), (LETTERS, LETTERS)).await?;
                let letters = page.letters.into_iter().filter_map(|filed| filed.letter.ok());
                found.extend(letters.filter_map(|it| Some((it.origin?.accepted_at, it.reason))));
            }
            found.sort_by_key(|(at, _)| *at);
            self.dead.insert(sender.clone(), found);
        }
        Ok(self.dead.get(sender).map(Vec::as_slice).unwrap_or_default())
    }

    /// Whether `RAW` took a message of anybody well inside a span of time.
    async fn anything_came(&mut self, span: (Timestamp, Timestamp)) -> Result<bool, Fault> {
        if let Some(known) = self.came.get(&span) {
            return Ok(*known);
        }
        let margin = (span.1.micros() - span.0.micros()) / 10;
        let (from, to) = (span.0.plus_micros(margin), span.1.plus_micros(-margin));
        let wire = self.question.wire;
        let first = sequence_since(wire, RAW, "raw.>", from).await?;
        let behind = sequence_since(wire, RAW, "raw.>", to).await?;
        let came = match (first, behind) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(first), Some(behind)) => first < behind,
        };
        self.came.insert(span, came);
        Ok(came)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_how_often() {
        let tag = |value, unit: Option<&str>| {
            said(&Tags::from([(
                INTERVAL.to_owned(),
                TagValue::Number(value, unit.map(ToOwned::to_owned)),
            )]))
        };
        assert_eq!(tag(30.0, None), Some(Duration::from_secs(30)));
        assert_eq!(tag(15.0, Some("min")), Some(Duration::from_mins(15)));
        assert_eq!(tag(500.0, Some("ms")), Some(Duration::from_millis(500)));
        for (value, unit) in [(0.0, None), (-1.0, None), (f64::NAN, None), (1.0, Some("kg"))] {
            assert_eq!(tag(value, unit), None, "{value} {unit:?}");
        }
        assert_eq!(said(&Tags::from([(INTERVAL.to_owned(), TagValue::Marker)])), None);
    }
}
