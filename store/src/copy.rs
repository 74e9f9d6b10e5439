//! Rows into a table by binary COPY (PostgreSQL manual, COPY, "Binary Format").

use domain::{Timestamp, failpoint};
use sqlx::PgConnection;

/// Bytes after which what is encoded is sent.
const CHUNK: usize = 128 * 1024;
/// Room for the row that passes the limit, most often.
const ROOM: usize = CHUNK + 4 * 1024;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const NULL: i32 = -1;

/// 2000-01-01T00:00:00Z, where PostgreSQL's clock starts, in microseconds since 1970.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Copies rows into `table (columns)`; `encode` writes one.
pub(crate) async fn copy<R>(
    connection: &mut PgConnection,
    table: &str,
    columns: &str,
    rows: &[R],
    encode: impl Fn(&mut Vec<u8>, &R),
) -> sqlx::Result<u64> {
    let statement = format!("copy {table} ({columns}) from stdin (format binary)");
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
    buffer.extend_from_slice(&TRAILER.to_be_bytes());
    copy.send(buffer.as_slice()).await?;
    failpoint::hit(failpoint::MID_COPY);
    copy.finish().await
}

/// How many fields the next row has.
pub(crate) fn fields(buffer: &mut Vec<u8>, count: i16) {
    buffer.extend_from_slice(&count.to_be_bytes());
}

/// A moment as a field.
pub(crate) fn time(ts: Timestamp) -> [u8; 8] {
    (ts.micros() - POSTGRES_EPOCH).to_be_bytes()
}

/// A field.
pub(crate) fn field(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    buffer.extend_from_slice(bytes);
}

/// A field, or null.
pub(crate) fn optional(buffer: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => field(buffer, bytes),
        None => buffer.extend_from_slice(&NULL.to_be_bytes()),
    }
}
