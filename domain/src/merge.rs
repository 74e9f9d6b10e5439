//! The one merge rule, twice: what a batch does before it meets a database, and the rule itself
//! as a table in memory, which the tests hold every database against.

use crate::{DeletionRow, EntityId, Row, RowVersion, Timestamp, Values, Work};
use std::collections::BTreeMap;

/// Makes keys unique and sorted: of two rows for a key the higher version stays, of two with one
/// version the later. Sorted keys keep two writers from deadlocking and are faster to insert.
pub fn tidy(rows: &mut Vec<Row>) {
    rows.sort_by_key(|row| (row.entity, row.ts, row.version));
    // `dedup_by` hands over (later, earlier) and drops the later one, so the later moves first.
    rows.dedup_by(|later, kept| {
        let same = (later.entity, later.ts) == (kept.entity, kept.ts);
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
}

/// The newest row of each entity. `rows` must be [`tidy`].
pub fn newest(rows: &[Row]) -> impl Iterator<Item = &Row> {
    rows.chunk_by(|a, b| a.entity == b.entity).filter_map(<[Row]>::last)
}

/// A row's key.
pub type Key = (EntityId, Timestamp);

/// The tables of one org in one target, in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tables {
    /// `core.values_<org_key>`.
    pub values: BTreeMap<Key, (RowVersion, Values)>,
    /// `core.deletions`: the highest version of each entity and range.
    pub deletions: BTreeMap<(EntityId, Timestamp, Timestamp), RowVersion>,
}

impl Tables {
    /// Applies deletions, then rows: the order that every write path keeps.
    pub fn apply(&mut self, work: &Work) {
        for deletion in &work.deletions {
            self.delete(deletion);
        }
        for row in &work.rows {
            self.upsert(row);
        }
    }

    fn delete(&mut self, deletion: &DeletionRow) {
        self.values.retain(|&(entity, ts), (version, _)| !deletion.covers(entity, ts, *version));
        let key = (deletion.entity, deletion.from, deletion.to);
        let kept = self.deletions.entry(key).or_insert(deletion.version);
        *kept = deletion.version.max(*kept);
    }

    fn upsert(&mut self, row: &Row) {
        let deleted = self.deletions.iter().any(|(&(entity, from, to), &version)| {
            DeletionRow { entity, from, to, version }.covers(row.entity, row.ts, row.version)
        });
        if deleted {
            return;
        }
        let key = (row.entity, row.ts);
        if self.values.get(&key).is_none_or(|(version, _)| *version <= row.version) {
            self.values.insert(key, (row.version, row.values.clone()));
        }
    }

    /// `core.values_<org_key>_current`: the newest moment of each entity.
    pub fn current(&self) -> BTreeMap<EntityId, (Timestamp, RowVersion, Values)> {
        let newest = self
            .values
            .iter()
            .map(|(&(entity, ts), (version, values))| (entity, (ts, *version, values.clone())));
        // Keys come in order, so an entity's last one is its newest.
        newest.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, OriginStream, Revision};

    fn row(entity: i32, ts: i64, sequence: u64, n: f64) -> Row {
        let time = |micros| Timestamp::from_micros(micros).unwrap();
        let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at: time(9) };
        Row {
            entity: EntityId(entity),
            ts: time(ts),
            version: RowVersion::new(&origin, Revision(0)).unwrap(),
            values: Values::number(n),
        }
    }

    #[test]
    fn the_highest_version_of_a_key_stays_and_of_equals_the_last() {
        let mut rows = vec![
            row(2, 5, 1, 1.0),
            row(1, 5, 3, 2.0),
            row(1, 5, 2, 3.0),
            row(1, 4, 1, 4.0),
            row(2, 5, 1, 5.0),
        ];
        tidy(&mut rows);
        assert_eq!(rows, [row(1, 4, 1, 4.0), row(1, 5, 3, 2.0), row(2, 5, 1, 5.0)]);
        let newest: Vec<_> = newest(&rows).cloned().collect();
        assert_eq!(newest, [row(1, 5, 3, 2.0), row(2, 5, 1, 5.0)]);
    }

    #[test]
    fn a_tombstone_takes_the_older_and_only_the_older() {
        let mut tables = Tables::default();
        let version = row(1, 1, 5, 0.0).version;
        let (from, to) = (Timestamp::EPOCH, Timestamp::EPOCH.plus_micros(10));
        let deletions = vec![DeletionRow { entity: EntityId(1), from, to, version }];
        tables.apply(&Work { rows: vec![row(1, 1, 4, 1.0), row(1, 2, 5, 2.0)], ..Work::default() });
        tables.apply(&Work { rows: vec![row(1, 3, 4, 3.0)], deletions, ..Work::default() });
        tables
            .apply(&Work { rows: vec![row(1, 3, 3, 4.0), row(1, 10, 1, 5.0)], ..Work::default() });
        let left: Vec<_> = tables.values.keys().map(|(_, ts)| ts.micros()).collect();
        assert_eq!(left, [2, 10]);
        assert_eq!(tables.current()[&EntityId(1)].0.micros(), 10);
    }
}
