//! Are two targets equal, and each in itself?

use crate::Fault;
use domain::{Batch, EntityId, Letter, OrgKey, RowVersion, Stage, TargetName, Timestamp, Work};
use nats::{
    Wire, envelope, inspect,
    letters::{self, Filter},
};
use store::{
    Database, OrgRef,
    verify::{
        self, Comparison, Recent, Refused, Report, deletions, ends, presences, stale_current,
    },
};

/// Letters that are looked at in one go.
const PAGE: usize = 1_000;
/// How long after a comparison began something may have been accepted, in microseconds: a day.
const CLOCKS: i64 = 86_400_000_000;
/// What differs of each kind, beside rows, is counted up to this.
pub const MOST_COUNTED: usize = 10_000;

/// A target.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// Its name.
    pub name: &'a TargetName,
    /// Its database.
    pub database: &'a Database,
}

impl Target<'_> {
    /// A fault of this target.
    pub(crate) fn fault(&self) -> impl Fn(store::Fault) -> Fault + use<> {
        let name = self.name.clone();
        move |fault| Fault::Target(name.clone(), fault)
    }
}

/// One org in one target, held against the primary.
#[derive(Clone, Copy)]
pub struct Pair<'a> {
    /// The stream server.
    pub wire: &'a Wire,
    /// Whose readings.
    pub org: &'a OrgRef,
    /// The primary.
    pub primary: Target<'a>,
    /// The other.
    pub other: Target<'a>,
    /// What may be on its way to one of the two: it is left out.
    pub recent: Recent,
}

/// What differs between the two.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Rows, by hour.
    pub report: Report,
    /// Deletions that only one has, or both with other versions; [`MOST_COUNTED`] at most.
    pub deletions: usize,
    /// The same of devices' presences ...
    pub presences: usize,
    /// ... and of ends of gateways' transactions.
    pub ends: usize,
}

impl<'a> Pair<'a> {
    /// What is compared, for `store`.
    pub(crate) fn comparison(&self, refused: &'a Refused) -> Comparison<'a> {
        Comparison {
            reference: self.primary.database,
            other: self.other.database,
            org: self.org,
            recent: self.recent,
            refused,
        }
    }

    /// Compares; each differing hour with at most `samples` of its keys.
    pub async fn compare(&self, samples: usize) -> Result<Compared, Fault> {
        let refused = self.refused().await?;
        let (a, b) = (self.primary.database, self.other.database);
        let fault = self.other.fault();
        let most = MOST_COUNTED;
        let deletions =
            deletions((a, b), self.org, self.recent, None, most).await.map_err(&fault)?;
        let (of, recent) = ((a, b), self.recent);
        let presences = presences(of, self.org, recent, None, most).await.map_err(&fault)?;
        let ends = ends(of, self.org, recent, None, most).await.map_err(&fault)?;
        let report = self.comparison(&refused).run(samples).await.map_err(&fault)?;
        let (deletions, presences, ends) = (deletions.len(), presences.len(), ends.len());
        Ok(Compared { report, deletions, presences, ends })
    }

    /// Rows that one of the two refused, by their letters.
    pub(crate) async fn refused(&self) -> Result<Refused, Fault> {
        let mut refused = Refused::default();
        let org = Some(Some(self.org.key.clone()));
        let filter = Filter { stage: Some(Stage::Ingest), org, ..Filter::default() };
        let (newest, mut after) = (letters::newest(self.wire).await?, 0);
        loop {
            let page = letters::page(self.wire, &filter, (after, newest), (PAGE, PAGE)).await?;
            for letter in page.letters.into_iter().filter_map(|filed| filed.letter.ok()) {
                let of = |target: Target<'_>| letter.target.as_ref() == Some(target.name);
                let by = if of(self.primary) {
                    &mut refused.by_reference
                } else if of(self.other) {
                    &mut refused.by_other
                } else {
                    continue;
                };
                by.extend(rows(self.wire, &letter).await?);
            }
            match page.next {
                Some(next) => after = next,
                None => return Ok(refused),
            }
        }
    }
}

/// The rows that a letter is about: one, or those of a message that could not be read as it was.
async fn rows(
    wire: &Wire,
    letter: &Letter,
) -> Result<Vec<(EntityId, Timestamp, RowVersion)>, Fault> {
    if let Some(row) = letter.refused_row() {
        return Ok(vec![row]);
    }
    let Some(original) = letters::original(wire, letter).await? else { return Ok(Vec::new()) };
    let Ok(batch) = envelope::decode::<Batch>(&original.body) else { return Ok(Vec::new()) };
    let mut work = Work::default();
    if work.add(batch, original.position).is_err() {
        return Ok(Vec::new());
    }
    let row = work.rows.into_iter().nth(original.row);
    Ok(row.map(|row| (row.entity, row.ts, row.version)).into_iter().collect())
}

/// What may be on its way to one of some targets, and whether something is.
pub async fn on_its_way(
    wire: &Wire,
    targets: &[TargetName],
    orgs: &[OrgKey],
    here: Timestamp,
) -> Result<(Recent, bool), Fault> {
    // The server's clock, before the look: what it accepts later is not compared.
    let now = inspect::server_time(wire).await?.unwrap_or(here);
    let in_flight = inspect::oldest_in_flight(wire, targets, orgs).await?;
    let cutoff = in_flight.map_or(now, |oldest| oldest.min(now));
    Ok((Recent { from: cutoff, to: now.plus_micros(CLOCKS) }, cutoff < now))
}

/// Entities of an org whose current row in a target is not their newest.
pub async fn stale(target: Target<'_>, org: &OrgRef) -> Result<Vec<EntityId>, Fault> {
    stale_current(target.database, org).await.map_err(target.fault())
}

/// The orgs that a target knows, of those that are asked about.
pub async fn orgs(target: Target<'_>, wanted: &[OrgKey]) -> Result<Vec<OrgRef>, Fault> {
    let known = store::read::orgs(target.database).await.map_err(target.fault())?;
    Ok(known.into_iter().filter(|org| wanted.contains(&org.key)).collect())
}

pub use verify::{Change, Difference, Sample};
