//! Rows into a table by binary COPY (PostgreSQL manual, COPY, "Binary Format").

use domain::{Row, Timestamp, failpoint};
use sqlx::PgConnection;

/// The columns of a values table, in the order of the encoder.
pub(crate) const COLUMNS: &str =
    "entity_id, ts, value_n, value_b, value_s, value_ts, accepted_at, version";

/// Bytes after which what is encoded is sent.
const CHUNK: usize = 128 * 1024;
/// Room for the row that passes the limit: texts are at most [`domain::batch::MAX_TEXT`] bytes.
const ROOM: usize = CHUNK + 4 * 1024;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const NULL: i32 = -1;
const FIELDS: i16 = 8;

/// 2000-01-01T00:00:00Z, where PostgreSQL's clock starts, in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Copies rows into `table`.
pub(crate) async fn rows(
    connection: &mut PgConnection,
    table: &str,
    rows: &[Row],
) -> sqlx::Result<u64> {
    let statement = format!("copy {table} ({COLUMNS}) from stdin (format binary)");
    let mut copy = connection.copy_in_raw(&statement).await?;
    let mut buffer = Vec::with_capacity(ROOM);
    buffer.extend_from_slice(HEADER);
    for row in rows {
        encode(&mut buffer, row);
        if buffer.len() >= CHUNK {
            copy.send(buffer.as_slice()).await?;
            failpoint::hit(failpoint::MID_COPY);
            buffer.clear();
        }
    }
    copy.send(buffer.as_slice()).await?;
    failpoint::hit(failpoint::MID_COPY);
    copy.send(TRAILER.to_be_bytes().as_slice()).await?;
    copy.finish().await
}

fn encode(buffer: &mut Vec<u8>, row: &Row) {
    buffer.extend_from_slice(&FIELDS.to_be_bytes());
    field(buffer, &row.entity.0.to_be_bytes());
    field(buffer, &time(row.ts));
    optional(buffer, row.values.n.map(f64::to_be_bytes).as_ref().map(AsRef::as_ref));
    optional(buffer, row.values.b.map(|b| [u8::from(b)]).as_ref().map(AsRef::as_ref));
    optional(buffer, row.values.s.as_deref().map(str::as_bytes));
    optional(buffer, row.values.ts.map(time).as_ref().map(AsRef::as_ref));
    field(buffer, &time(row.version.accepted_at));
    field(buffer, &row.version.packed.to_be_bytes());
}

fn time(ts: Timestamp) -> [u8; 8] {
    (ts.micros() - POSTGRES_EPOCH).to_be_bytes()
}

fn field(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    buffer.extend_from_slice(bytes);
}

fn optional(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => field(buffer, bytes),
        None => buffer.extend_from_slice(&NULL.to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{EntityId, RowVersion, Values};

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
