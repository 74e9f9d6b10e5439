//! From what is to what a sensor says: noise, resolution, range, faults.

use crate::{
    catalog::{Read, Sort, View},
    fault::{Faulty, SensorFault},
    noise::{Stream, bell, round_to},
};
use domain::{Timestamp, Values};
use std::collections::BTreeMap;

/// A point and where its value comes from.
#[derive(Debug, Clone)]
pub(crate) struct Sensor {
    /// Key of its entity.
    pub(crate) key: String,
    pub(crate) sort: &'static Sort,
    /// Which zone, air handler, chiller or totalizer it looks at.
    pub(crate) index: usize,
    /// Its own noise.
    pub(crate) stream: Stream,
    /// Whether any fault concerns it, at any time.
    pub(crate) faulty: bool,
}

impl Sensor {
    /// The reading of a sensor that is all right, off by `error` where it reads numbers.
    fn reading(&self, view: &View<'_>, at: Timestamp, error: f64) -> Values {
        match self.sort.read {
            Read::Number(read) => {
                Values::number(self.number(read(view, self.index), view, at, error))
            }
            Read::Boolean(read) => Values::boolean(read(view, self.index)),
            Read::Text(read) => Values::text(read(view, self.index)),
            Read::Minute(read) => {
                let micros = read(view, self.index).saturating_mul(60_000_000);
                Values::time(Timestamp::EPOCH.plus_micros(micros))
            }
        }
    }

    fn number(&self, value: f64, view: &View<'_>, at: Timestamp, error: f64) -> f64 {
        let sort = self.sort;
        let mut seen = value;
        if sort.noise > 0.0 || sort.relative > 0.0 {
            let minute = at.micros().div_euclid(60_000_000);
            let noise = bell(view.memory.seed, self.stream, minute);
            seen += noise * (sort.noise + sort.relative * value);
        }
        round_to((seen + error).clamp(sort.low, sort.high), sort.steps)
    }
}

/// The reading of a sensor with its faults; none where it dropped out.
pub(crate) fn read(
    sensor: &Sensor,
    point: usize,
    faults: &[Faulty],
    view: &View<'_>,
    stuck: &mut BTreeMap<String, Values>,
    at: Timestamp,
) -> Option<Values> {
    if !sensor.faulty {
        return Some(sensor.reading(view, at, 0.0));
    }
    let (mut error, mut out, mut held) = (0.0, false, false);
    for faulty in faults.iter().filter(|faulty| faulty.point == point) {
        if !faulty.period.holds(at) {
            continue;
        }
        match faulty.fault {
            SensorFault::Stuck => held = true,
            SensorFault::DropOut => out = true,
            SensorFault::Drift(a_day) => {
                let micros = at.micros() - faulty.period.from.micros();
                error += a_day * micros as f64 / 86_400e6;
            }
        }
    }
    let fresh = || sensor.reading(view, at, error);
    let values = if held {
        stuck.entry(sensor.key.clone()).or_insert_with(fresh).clone()
    } else {
        stuck.remove(&sensor.key);
        fresh()
    };
    (!out).then_some(values)
}
