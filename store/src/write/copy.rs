//! Readings into a values table by COPY.

use crate::copy::{copy, field, fields, optional, time};
use domain::Row;
use sqlx::PgConnection;

/// The columns of a values table, in the order of the encoder.
pub(crate) const COLUMNS: &str =
    "entity_id, ts, value_n, value_b, value_s, value_ts, accepted_at, version";
const FIELDS: i16 = 8;

/// Copies rows into `table`.
pub(crate) async fn rows(
    connection: &mut PgConnection,
    table: &str,
    rows: &[Row],
) -> sqlx::Result<u64> {
    copy(connection, table, COLUMNS, rows, encode).await
}

fn encode(buffer: &mut Vec<u8>, row: &Row) {
    fields(buffer, FIELDS);
    field(buffer, &row.entity.0.to_be_bytes());
    field(buffer, &time(row.ts));
    optional(buffer, row.values.n.map(f64::to_be_bytes).as_ref().map(AsRef::as_ref));
    optional(buffer, row.values.b.map(|b| [u8::from(b)]).as_ref().map(AsRef::as_ref));
    optional(buffer, row.values.s.as_deref().map(str::as_bytes));
    optional(buffer, row.values.ts.map(time).as_ref().map(AsRef::as_ref));
    field(buffer, &time(row.version.accepted_at));
    field(buffer, &row.version.packed.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::POSTGRES_EPOCH;
    use domain::{EntityId, RowVersion, Timestamp, Values};

    #[test]
    fn a_row_is_its_fields_with_their_lengths() {
        let at = |micros| Timestamp::from_micros(POSTGRES_EPOCH + micros).unwrap();
        let row = Row {
            entity: EntityId(7),
            ts: at(1),
            version: RowVersion { accepted_at: at(-1), packed: 5 },
            values: Values { b: Some(true), s: Some("é".into()), ..Values::default() },
        };
        let mut buffer = Vec::new();
        encode(&mut buffer, &row);
        let expected = [
            &[0, 8, 0, 0, 0, 4, 0, 0, 0, 7][..],
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[255, 255, 255, 255],
            &[0, 0, 0, 1, 1],
            &[0, 0, 0, 2, 0xc3, 0xa9],
            &[255, 255, 255, 255],
            &[0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5],
        ];
        assert_eq!(buffer, expected.concat());
    }
}
