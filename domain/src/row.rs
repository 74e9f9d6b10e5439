//! Rows as the targets hold them.

use crate::{
    Batch, DeletionRow, EntityId, Position, RowVersion, Timestamp, Values, chunk::Ended,
    ledger::Page, presence::PresenceRow, version::VersionOverflow,
};

/// A row of `core.values_<org_key>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Key, first part.
    pub entity: EntityId,
    /// Key, second part.
    pub ts: Timestamp,
    /// Which of two rows for the key counts.
    pub version: RowVersion,
    /// The value columns.
    pub values: Values,
}

/// What one or more messages of one org ask of a target.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Rows to upsert, in the order of the messages until [`crate::merge::tidy`] sorted them.
    pub rows: Vec<Row>,
    /// Deletions to apply before the rows.
    pub deletions: Vec<DeletionRow>,
    /// Ends of gateways' transactions.
    pub transactions: Vec<Ended>,
    /// Which devices are there.
    pub presences: Vec<PresenceRow>,
    /// What is noted in the same COMMIT.
    pub page: Page,
}

impl Work {
    /// Adds what the batch at `position` of `TELEMETRY` asks for.
    ///
    /// Of one that can't be applied nothing is added but a note that it came.
    pub fn add(&mut self, batch: Batch, position: Position) -> Result<(), VersionOverflow> {
        let here = position.as_origin();
        self.page.add(&batch, position);
        let before = (self.rows.len(), self.deletions.len(), self.presences.len());
        let added = self.add_all(batch, here);
        if added.is_err() {
            self.rows.truncate(before.0);
            self.deletions.truncate(before.1);
            self.presences.truncate(before.2);
            self.page.last_can_not_be_read();
        }
        added
    }

    fn add_all(&mut self, batch: Batch, here: crate::Origin) -> Result<(), VersionOverflow> {
        for group in batch.groups {
            let version = RowVersion::new(&group.origin.unwrap_or(here), group.revision)?;
            self.rows.extend(group.samples.into_iter().map(|sample| Row {
                entity: sample.entity,
                ts: sample.ts,
                version,
                values: sample.values,
            }));
        }
        for deletion in &batch.deletions {
            self.deletions.extend(deletion.rows(here)?);
        }
        for presence in batch.presences {
            self.presences.push(presence.row()?);
        }
        self.transactions.extend(batch.transactions);
        Ok(())
    }
}
