//! Runs: cut anywhere, at any interval, through changes of the clock, with a changed description.

use crate::{append, changed, default_plan, every, moment, point, readings, run};
use haystack_building::{Memory, Plan};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What readings of the default building's first week from seed 1 hash to. A change of this number
/// changes every simulated building there is; it must be meant, and said in the change log.
const GOLDEN: u64 = 0x412d_30c3_07fa_d3fe;

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn the_first_week_of_the_default_building_is_what_it_was() {
    let plan = default_plan();
    let mut memory = plan.begin(1, moment("2026-01-05T00:00:00Z"));
    let bytes = run(&plan, &mut memory, 7 * 96);
    assert_eq!(fnv(&bytes), GOLDEN, "{:#018x}", fnv(&bytes));
}

fn stored(memory: &Memory) -> Memory {
    rmp_serde::from_slice(&rmp_serde::to_vec_named(memory).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pieces_give_what_one_go_gives(
        seed in any::<u64>(),
        day in 0_i64..700,
        cuts in prop::collection::vec(1_usize..40, 1..6),
    ) {
        let plan = default_plan();
        let start = moment("2026-01-01T00:00:00Z").plus_micros(day * 86_400_000_000);
        let mut whole = plan.begin(seed, start);
        let mut pieces = plan.begin(seed, start);
        let expected = run(&plan, &mut whole, cuts.iter().sum());
        let mut got = Vec::new();
        for steps in cuts {
            got.extend(run(&plan, &mut pieces, steps));
            pieces = stored(&pieces);
        }
        prop_assert!(expected == got);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn another_interval_gives_the_same_at_common_moments(
        seed in any::<u64>(),
        day in 0_i64..700,
        minutes in prop::sample::select(vec![1_u32, 5, 10, 20, 30]),
    ) {
        let start = moment("2026-01-01T00:00:00Z").plus_micros(day * 86_400_000_000);
        let at_hours = |plan: &Plan| {
            let mut memory = plan.begin(seed, start);
            let mut bytes = Vec::new();
            for _ in 0..24 * 60 / plan.interval_minutes() {
                let all = readings(plan, &mut memory);
                if memory.at.micros() % 3_600_000_000 == 0 {
                    for (point, values) in all.iter().enumerate() {
                        append(&mut bytes, memory.at, point, values.as_ref().unwrap());
                    }
                }
            }
            (bytes, memory)
        };
        let (expected, got) = (at_hours(&every(60)), at_hours(&every(minutes)));
        prop_assert!(expected.0 == got.0);
        prop_assert_eq!(expected.1, got.1);
    }
}

#[test]
fn boundaries_stay_and_people_follow_the_clock_through_daylight_saving() {
    let plan = default_plan();
    // Three days around each change in Berlin; on the Fridays and Mondays people work.
    for (from, opens) in
        [("2026-03-27T00:00:00Z", ["06:00", "05:00"]), ("2026-10-23T00:00:00Z", ["05:00", "06:00"])]
    {
        let mut memory = plan.begin(3, moment(from));
        let occupied = point(&plan, "ahu-1.occupied-cmd");
        let (mut last, mut was, mut starts) = (memory.at, false, Vec::new());
        for _ in 0..4 * 96 {
            let all = readings(&plan, &mut memory);
            assert_eq!(memory.at.micros() - last.micros(), 900_000_000);
            assert_eq!(memory.at.micros() % 900_000_000, 0);
            last = memory.at;
            let now = all[occupied].as_ref().unwrap().b.unwrap();
            if now && !was {
                // The reading is at the end of the interval in which they came.
                starts.push(memory.at.plus_micros(-900_000_000).to_string()[11..16].to_owned());
            }
            was = now;
        }
        assert_eq!(starts, opens);
    }
}

#[test]
fn a_changed_description_keeps_what_is_still_there() {
    let plan = default_plan();
    let mut memory = plan.begin(9, moment("2026-05-04T00:00:00Z"));
    run(&plan, &mut memory, 50);
    let next = changed(&[
        ("area: 4982", "area: 9000"),
        ("      core: {", "      annex: { area: 60 }\n      core: {"),
    ]);
    let mut carried = next.carry_over(&memory);
    assert_eq!(carried.at, memory.at);
    assert_eq!(carried.totalizers(), memory.totalizers());
    // What was there before has the same readings to go on from as before.
    let zone = |plan: &Plan, memory: &mut Memory, zone: &str| {
        let index = point(plan, &format!("{zone}.vav.zone-air-temp"));
        readings(plan, memory)[index].as_ref().unwrap().n.unwrap()
    };
    let warm = |plan: &Plan, memory: &Memory| zone(plan, &mut memory.clone(), "floor-3.west");
    assert!((warm(&plan, &memory) - warm(&next, &carried)).abs() < 0.3);
    assert!((15.0..30.0).contains(&zone(&next, &mut carried.clone(), "floor-1.annex")));
    // A step takes over by itself.
    let mut unasked = memory.clone();
    assert!(run(&next, &mut unasked, 3) == run(&next, &mut carried, 3));
    assert_eq!(unasked, carried);
    // The same description changes nothing.
    assert_eq!(plan.carry_over(&memory), memory);
    let totals: BTreeMap<_, _> = carried.totalizers();
    assert!(totals.iter().all(|(key, value)| *value >= memory.totalizers()[key]));
}

#[test]
fn a_longer_interval_starts_with_a_shorter_step() {
    let plan = default_plan();
    let mut memory = plan.begin(9, moment("2026-05-04T00:07:00Z"));
    assert_eq!(memory.at, moment("2026-05-04T00:00:00Z"));
    run(&plan, &mut memory, 1);
    let hourly = every(60);
    let mut memory = hourly.carry_over(&memory);
    run(&hourly, &mut memory, 1);
    assert_eq!(memory.at, moment("2026-05-04T01:00:00Z"));
}
