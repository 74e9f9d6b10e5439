//! How far devices' clocks are from ours, as far as their messages tell, for the metrics. What a
//! device had kept for later looks like a clock that is behind.

use domain::DeviceId;
use metrics::{Gauge, gauge};
use rules::Told;
use std::collections::HashMap;

/// From here on a device has a gauge of its own.
const SHOWN_FROM_MICROS: i64 = 10_000_000;
/// Most devices that have one: labels live as long as the process.
const MAX_SHOWN: usize = 100;
/// The devices that have a gauge.
#[derive(Default)]
pub(super) struct Clocks {
    shown: HashMap<DeviceId, Gauge>,
}

impl Clocks {
    /// Notes what a message told.
    pub(super) fn note(&mut self, device: &DeviceId, told: Told) {
        let Some(ahead) = told.ahead_micros else { return };
        let far = ahead.abs() >= SHOWN_FROM_MICROS;
        if !far && self.shown.is_empty() {
            return;
        }
        let gauge = match self.shown.get(device) {
            Some(gauge) => gauge,
            None if far && self.shown.len() < MAX_SHOWN => {
                let name = device.to_string();
                let gauge = gauge!("haystack_bridge_clock_skew_seconds", "device" => name);
                self.shown.entry(device.clone()).or_insert(gauge)
            }
            None => return,
        };
        gauge.set(ahead as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_few_and_follow_a_clock_that_was_mended() {
        let mut clocks = Clocks::default();
        let note = |clocks: &mut Clocks, number: usize, seconds: i64| {
            let device = DeviceId::parse(&format!("D-{number}")).unwrap();
            let told = Told { ahead_micros: Some(seconds * 1_000_000), late: 0 };
            clocks.note(&device, told);
        };
        note(&mut clocks, 0, 9);
        assert!(clocks.shown.is_empty());
        for number in 0..2 * MAX_SHOWN {
            note(&mut clocks, number, -60);
        }
        assert_eq!(clocks.shown.len(), MAX_SHOWN);
        note(&mut clocks, 0, 0);
        assert_eq!(clocks.shown.len(), MAX_SHOWN);
    }
}
