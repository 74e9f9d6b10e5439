//! The archive takes what any device may send, and what comes again changes nothing.

use super::{Target, at};
use domain::{Position, raw::RawMessage};
use store::archive::{self, Entry};

fn entry(sequence: u64, index: u16, name: &str, payload: &[u8]) -> Entry<'static> {
    let position = Position { sequence, stored_at: at(sequence as i64) };
    let message = RawMessage {
        name: name.to_owned().into(),
        sender: None,
        content_type: "a\0b".into(),
        received_at: at(0),
        session: u64::MAX,
        packet_id: u16::MAX,
        number: u64::MAX,
        payload: payload.to_vec().into(),
    };
    Entry { position, index, message }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_are_kept_and_what_comes_again_stays_as_it_was() {
    let target = Target::fresh().await;
    let large = vec![0xff; 8 * 1024 * 1024];
    let first = [
        entry(1, 0, "plain", b"{}"),
        entry(1, 1, "a\0b", b"\0\xff\xfe"),
        entry(2, 1_023, &"x".repeat(65_000), b""),
        entry(3, 0, "large", &large),
    ];
    let committed = archive::write(&target.ingest, &first).await.unwrap();
    assert_eq!(committed.counts().changed, 4);
    // Half of it again, with other bytes, and something new.
    let again =
        [entry(1, 0, "plain", b"other"), entry(3, 0, "large", b""), entry(4, 0, "new", b"n")];
    for changed in [1, 0] {
        let committed = archive::write(&target.ingest, &again).await.unwrap();
        assert_eq!(committed.counts().changed, changed);
    }
    let mut connection = testkit::platform::connect(&target.raw.superuser()).await.unwrap();
    let sql = "select array_agg(concat_ws(' ', sequence, index, left(name, 6), length(payload), \
        session, packet_id, left(encode(payload, 'hex'), 6)) order by sequence, index) \
        from core.telemetry_raw";
    let found: Vec<String> = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
    let wanted = [
        "1 0 plain 2 -1 65535 7b7d",
        "1 1 a\u{fffd}b 3 -1 65535 00fffe",
        "2 1023 xxxxxx 0 -1 65535 ",
        "3 0 large 8388608 -1 65535 ffffff",
        "4 0 new 1 -1 65535 6e",
    ];
    assert_eq!(found, wanted);
}
