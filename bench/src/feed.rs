//! Readings to measure with: each second every entity sends one. 85 % numbers, 10 % booleans, 5 %
//! texts, the same that the peers are fed (bench/peers/common.py).

use domain::{
    Batch, DeviceId, EntityId, Group, Origin, OriginStream, Revision, Row, RowVersion, Sample,
    Timestamp, Values, merge,
};

/// Entities that send.
pub(crate) const ENTITIES: u64 = 2_000;
/// Rows of one COPY, as ingest has them in a batch under load.
pub(crate) const COPY_ROWS: usize = 20_000;
/// Readings in one message of `TELEMETRY`.
pub(crate) const MESSAGE_READINGS: u64 = 330;

const SECOND: i64 = 1_000_000;
/// 2026-01-01T00:00:00Z in microseconds since 1970.
const BASE: i64 = 1_767_225_600 * SECOND;

/// The moment of a tick.
pub(crate) fn moment(tick: u64) -> Timestamp {
    Timestamp::EPOCH.plus_micros(BASE + tick as i64 * SECOND)
}

/// The reading with this number.
fn sample(number: u64) -> Sample {
    let (e, tick) = (number % ENTITIES, number / ENTITIES);
    let values = match e % 20 {
        0 | 1 => Values::boolean((e + tick) & 1 == 1),
        2 => Values::text(format!("state-{}", (e + tick) % 7)),
        _ => Values::number(20.0 + ((e * 7 + tick) % 1_000) as f64 / 10.0),
    };
    Sample { entity: EntityId(e as i32 + 1), ts: moment(tick), values }
}

fn origin(message: u64) -> Origin {
    Origin {
        stream: OriginStream::Raw,
        // A pack holds up to 1,024 device messages.
        sequence: message / 1_024 + 1,
        index: (message % 1_024) as u16,
        accepted_at: moment(message / ENTITIES),
    }
}

/// Rows in batches of [`COPY_ROWS`], each sorted by key: what COPY takes fastest, and what our
/// writer gives it.
pub(crate) fn row_batches(readings: u64) -> Vec<Vec<Row>> {
    let numbers: Vec<u64> = (0..readings).collect();
    let row = |&number: &u64| {
        let Sample { entity, ts, values } = sample(number);
        let version =
            RowVersion::new(&origin(number), Revision(0)).expect("small numbers fit a version");
        Row { entity, ts, version, values }
    };
    let batch = |numbers: &[u64]| {
        let mut rows: Vec<Row> = numbers.iter().map(row).collect();
        merge::tidy(&mut rows);
        rows
    };
    numbers.chunks(COPY_ROWS).map(batch).collect()
}

/// Messages of `TELEMETRY` as the bridge writes them: groups that came through `RAW`, `group`
/// readings in each. Numbers `from` to `to`, cut into messages.
pub(crate) fn messages(from: u64, to: u64, group: u64) -> impl Iterator<Item = Batch> {
    let step = (MESSAGE_READINGS / group).max(1) * group;
    (from..to).step_by(step as usize).map(move |first| {
        let last = (first + step).min(to);
        let groups = (first..last).step_by(group as usize);
        let groups = groups.map(|start| one_group(start, (start + group).min(last), group));
        Batch { groups: groups.collect(), ..Batch::default() }
    })
}

fn one_group(from: u64, to: u64, group: u64) -> Group {
    let device = DeviceId::parse(&device_name(from / group % ENTITIES)).expect("a valid name");
    Group {
        origin: Some(origin(from / group)),
        revision: Revision(0),
        device: Some(device),
        profile_version: 1,
        samples: (from..to).map(sample).collect(),
    }
}

/// The name of the device with this number.
pub(crate) fn device_name(number: u64) -> String {
    format!("bench-{number:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_batches_hold_the_same_readings_once() {
        for group in [1, 30] {
            let batches = messages(0, 5_000, group).collect::<Vec<_>>();
            let count: usize = batches.iter().map(Batch::samples).sum();
            assert_eq!(count, 5_000);
            assert!(batches.iter().all(|batch| batch.samples() as u64 <= MESSAGE_READINGS));
        }
        let rows: usize = row_batches(25_000).iter().map(Vec::len).sum();
        assert_eq!(rows, 25_000);
    }
}
