//! How many readings a second one core makes of the default building in a simulated year.

use domain::Timestamp;
use haystack_building::{DEFAULT, Plan};
use std::time::Instant;

fn main() {
    let plan = Plan::read(DEFAULT).expect("the default building is right");
    let start = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("a moment");
    let mut memory = plan.begin(plan.seed(), start);
    let steps = 366 * 1_440 / u64::from(plan.interval_minutes());
    let (mut readings, begun) = (0_u64, Instant::now());
    for _ in 0..steps {
        plan.step(&mut memory, |_, _| readings += 1);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{}", plan.summary());
    println!("{readings} readings, {:.0} a second", readings as f64 / seconds);
    for (key, value) in memory.totalizers() {
        println!("{key:<32} {value:>12.1}");
    }
}
