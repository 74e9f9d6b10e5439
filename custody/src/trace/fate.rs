//! What became of one reading in each target.

use super::{Fate, Reading, Tracer};
use crate::{Fault, compare::Target};
use domain::{Letter, Row};
use nats::{outcome, streams::TELEMETRY};
use store::{OrgRef, read};

impl Tracer<'_> {
    /// What became of one reading. `sequence`: of its message in `TELEMETRY`, where that is known.
    pub(super) async fn reading(
        &self,
        org: &OrgRef,
        row: Row,
        sequence: Option<u64>,
        refused: &[(u64, Letter)],
    ) -> Result<Reading, Fault> {
        let mut fates = Vec::new();
        for target in self.targets {
            let fate = match self.fate(*target, org, &row, sequence, refused).await {
                Ok(fate) => fate,
                Err(Fault::Target(_, fault)) => Fate::Unknown(fault.to_string()),
                Err(fault) => return Err(fault),
            };
            fates.push((target.name.clone(), fate));
        }
        let point = self.directory.entity(row.entity).and_then(|_| {
            let devices = self.directory.devices(&org.key).into_iter();
            let mut points = devices.filter_map(|device| {
                let mut points = device.points.iter();
                let metric = points.find(|(_, point)| point.entity == row.entity)?.0.clone();
                Some((device.id.clone(), metric))
            });
            points.next()
        });
        let name = self.directory.entity(row.entity).map(|entity| entity.name.clone());
        Ok(Reading { entity: row.entity, name, point, row, fates })
    }

    async fn fate(
        &self,
        target: Target<'_>,
        org: &OrgRef,
        row: &Row,
        sequence: Option<u64>,
        refused: &[(u64, Letter)],
    ) -> Result<Fate, Fault> {
        // Before the table: what is done by then stands there.
        let position = outcome::position(self.wire, target.name, &org.key).await?;
        let key = (row.entity, row.ts);
        let found = read::at(target.database, org, &[key]).await.map_err(target.fault())?;
        match found.first() {
            Some(there) if there.version == row.version => {
                let committed_at = read::committed_at(target.database, org, key).await;
                let changed = !store::verify::same(there, row);
                return Ok(Fate::Stored { committed_at, changed });
            }
            Some(there) if there.version > row.version => {
                return Ok(Fate::Superseded(there.version));
            }
            _ => {}
        }
        let deleted = read::deletion_over(target.database, org, row).await;
        if let Some(version) = deleted.map_err(target.fault())? {
            return Ok(Fate::Deleted(version));
        }
        let letter = refused.iter().find(|(_, letter)| {
            let of_message = || {
                let same = letter.source.stream == TELEMETRY;
                same && Some(letter.source.sequence) == sequence
            };
            let of_row = match letter.refused_row() {
                Some(refused) => refused == (row.entity, row.ts, row.version),
                // Of a message that could not be read, or of a row that was too large for a letter.
                None => of_message(),
            };
            letter.target.as_ref() == Some(target.name) && of_row
        });
        if let Some((number, _)) = letter {
            return Ok(Fate::Refused(*number));
        }
        let Some(sequence) = sequence else {
            let text = "not there, and the message that gave it was not found";
            return Ok(Fate::Unknown(text.to_owned()));
        };
        let done = position.map_or(0, |position| match position.waiting_since {
            None => u64::MAX,
            Some(_) => position.done,
        });
        Ok(if sequence > done { Fate::InFlight } else { Fate::Lost })
    }
}
