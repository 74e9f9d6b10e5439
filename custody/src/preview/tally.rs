//! What would become of rows, by point and day.

use domain::{EntityId, OrgKey, Row, RowVersion, Timestamp, Values};
use std::collections::{BTreeMap, HashMap};

/// Changes that are shown one by one.
const SAMPLES: usize = 10;
/// Points and days that are told apart.
const MOST_DAYS: usize = 100_000;
const MICROS_A_DAY: i64 = 86_400_000_000;

pub(super) type Key = (EntityId, Timestamp);

/// What would become of rows of a point on a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// That are not there.
    pub added: u64,
    /// With other values.
    pub changed: u64,
    /// That another version gave, and this one does not.
    pub removed: u64,
    /// That stay as they are.
    pub unchanged: u64,
}

impl Changes {
    fn plus(self, more: &Self) -> Self {
        Self {
            added: self.added + more.added,
            changed: self.changed + more.changed,
            removed: self.removed + more.removed,
            unchanged: self.unchanged + more.unchanged,
        }
    }

    /// Whether something would be another.
    pub fn any(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }
}

/// A row that would be another.
#[derive(Debug)]
pub struct Sample {
    /// Whose.
    pub org: OrgKey,
    /// Which.
    pub key: (EntityId, Timestamp),
    /// As it is.
    pub before: Option<Values>,
    /// As it would be.
    pub after: Option<Values>,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// By org, point and day since 1970.
    pub by_day: BTreeMap<(OrgKey, EntityId, i64), Changes>,
    /// Of points and days for which there is no room.
    pub elsewhere: Changes,
    /// The first few that would be others.
    pub samples: Vec<Sample>,
}

impl Tally {
    fn note(&mut self, org: &OrgKey, key: Key, before: Option<&Values>, after: Option<&Values>) {
        let day = key.1.micros().div_euclid(MICROS_A_DAY);
        let place = (org.clone(), key.0, day);
        let room = self.by_day.len() < MOST_DAYS || self.by_day.contains_key(&place);
        let changes =
            if room { self.by_day.entry(place).or_default() } else { &mut self.elsewhere };
        match (before, after) {
            (None, Some(_)) => changes.added += 1,
            (Some(_), None) => changes.removed += 1,
            (Some(a), Some(b)) if !same(a, b) => changes.changed += 1,
            _ => {
                changes.unchanged += 1;
                return;
            }
        }
        if self.samples.len() < SAMPLES {
            let (before, after) = (before.cloned(), after.cloned());
            self.samples.push(Sample { org: org.clone(), key, before, after });
        }
    }

    /// All days together.
    pub fn sum(&self) -> Changes {
        self.by_day.values().fold(self.elsewhere, Changes::plus)
    }

    /// What some messages would change of what the primary holds.
    pub(super) fn compare(
        &mut self,
        org: &OrgKey,
        rows: &[Row],
        gone: &[(EntityId, Timestamp, RowVersion)],
        held: &HashMap<Key, Row>,
    ) {
        for row in rows {
            let key = (row.entity, row.ts);
            let there = held.get(&key);
            // What came later stays.
            let after = there.filter(|there| there.version > row.version).unwrap_or(row);
            self.note(org, key, there.map(|there| &there.values), Some(&after.values));
        }
        for (entity, ts, version) in gone {
            let key = (*entity, *ts);
            if let Some(there) = held.get(&key).filter(|there| there.version < *version) {
                self.note(org, key, Some(&there.values), None);
            }
        }
    }
}

/// Whether two rows say the same; a number that is none is equal to itself.
fn same(a: &Values, b: &Values) -> bool {
    let bits = |n: f64| if n.is_nan() { f64::NAN.to_bits() } else { (n + 0.0).to_bits() };
    (a.n.map(bits), a.b, &a.s, a.ts) == (b.n.map(bits), b.b, &b.s, b.ts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Origin, OriginStream, Revision};

    fn row(second: i64, sequence: u64, n: f64) -> Row {
        let accepted_at = Timestamp::EPOCH.plus_micros(sequence as i64);
        let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at };
        Row {
            entity: EntityId(1),
            ts: Timestamp::EPOCH.plus_micros(second * 1_000_000),
            version: RowVersion::new(&origin, Revision(1)).unwrap(),
            values: Values::number(n),
        }
    }

    #[test]
    fn what_is_newer_stays_and_the_rest_is_told_apart() {
        let org = OrgKey::parse("demo").unwrap();
        let held = [row(1, 5, 1.0), row(2, 5, 2.0), row(3, 9, 3.0), row(4, 5, 4.0), row(5, 9, 5.0)];
        let held = held.into_iter().map(|row| ((row.entity, row.ts), row)).collect();
        let would = [row(1, 5, 1.0), row(2, 5, 2.5), row(3, 6, 7.0), row(9, 6, 9.0)];
        let gone = [row(4, 6, 0.0), row(5, 6, 0.0)].map(|row| (row.entity, row.ts, row.version));
        let mut tally = Tally::default();
        tally.compare(&org, &would, &gone, &held);
        let sum = tally.sum();
        assert_eq!(sum, Changes { added: 1, changed: 1, removed: 1, unchanged: 2 });
        assert_eq!(tally.samples.len(), 3);
    }
}
