//! What is right for one key: a function of what two targets have and what the stream says.

use crate::truth::{Reach, Told};
use domain::Row;

/// What is right.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// This row.
    Row(Row),
    /// The primary's: both have one version, and nobody can tell whose values are right.
    Settled,
    /// No row: it was deleted.
    Nothing,
    /// No accepted message gave what stands there.
    Unexplained,
}

/// Decides. Rows that the stream would know count only as it tells them.
pub(super) fn decide(
    reference: Option<&Row>,
    other: Option<&Row>,
    told: Option<&Told>,
    reach: Reach,
) -> Decision {
    let (row, deleted) = told.map_or((None, None), |told| (told.row.as_ref(), told.deleted));
    let possible = |row: &&Row| !reach.covers(row.version);
    let older = [reference, other].map(|row| row.filter(possible));
    let best = older.into_iter().flatten().map(|row| row.version).chain(row.map(|row| row.version));
    let Some(best) = best.max() else {
        return if deleted.is_some() { Decision::Nothing } else { Decision::Unexplained };
    };
    if deleted.is_some_and(|deleted| best < deleted) {
        return Decision::Nothing;
    }
    if let Some(row) = row.filter(|row| row.version == best) {
        return Decision::Row(row.clone());
    }
    match older.map(|row| row.filter(|row| row.version == best)) {
        [Some(ours), Some(theirs)] if ours != theirs => Decision::Settled,
        [Some(row), _] | [None, Some(row)] => Decision::Row(row.clone()),
        [None, None] => Decision::Unexplained,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EntityId, RowVersion, Timestamp, Values};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::EPOCH.plus_micros(seconds * 1_000_000)
    }

    fn version(accepted: i64) -> RowVersion {
        RowVersion { accepted_at: at(accepted), packed: 1 << 24 }
    }

    fn row(accepted: i64, n: f64) -> Row {
        let (entity, ts) = (EntityId(1), at(0));
        Row { entity, ts, version: version(accepted), values: Values::number(n) }
    }

    const REACH: fn() -> Reach = || Reach { since: at(100) };

    #[expect(clippy::needless_pass_by_value, reason = "a test reads better")]
    fn judged(ours: Option<Row>, theirs: Option<Row>, told: Told) -> Decision {
        decide(ours.as_ref(), theirs.as_ref(), Some(&told), REACH())
    }

    fn stream(row: Option<Row>, deleted: Option<i64>) -> Told {
        Told { row, deleted: deleted.map(version) }
    }

    #[test]
    fn where_the_stream_reaches_its_value_counts() {
        let right = row(200, 1.0);
        let told = || stream(Some(right.clone()), None);
        for (ours, theirs) in [
            (Some(row(200, 9.0)), Some(right.clone())),
            (None, Some(right.clone())),
            (Some(row(150, 2.0)), None),
            // A version that no message has.
            (Some(row(300, 9.0)), Some(right.clone())),
        ] {
            assert_eq!(judged(ours, theirs, told()), Decision::Row(right.clone()));
        }
        let gone = judged(Some(right.clone()), None, stream(Some(right.clone()), Some(201)));
        assert_eq!(gone, Decision::Nothing);
        let came_again = judged(None, Some(right.clone()), stream(Some(right.clone()), Some(199)));
        assert_eq!(came_again, Decision::Row(right));
    }

    #[test]
    fn what_the_stream_would_know_and_does_not_is_unexplained() {
        let planted = row(200, 9.0);
        let none = || stream(None, None);
        assert_eq!(judged(None, Some(planted.clone()), none()), Decision::Unexplained);
        let old = row(50, 1.0);
        assert_eq!(judged(Some(old.clone()), Some(planted), none()), Decision::Row(old));
    }

    #[test]
    fn where_it_does_not_reach_the_higher_version_counts_and_then_the_primary() {
        let (old, older) = (row(50, 1.0), row(40, 2.0));
        let none = || stream(None, None);
        assert_eq!(judged(Some(older), Some(old.clone()), none()), Decision::Row(old.clone()));
        assert_eq!(judged(None, Some(old.clone()), none()), Decision::Row(old.clone()));
        assert_eq!(judged(Some(old.clone()), Some(row(50, 3.0)), none()), Decision::Settled);
        assert_eq!(judged(Some(old), None, stream(None, Some(60))), Decision::Nothing);
    }
}
