//! Faults do what they say, while they are there and no longer.

use crate::{changed, default_plan, moment, point, readings};
use domain::Values;
use haystack_building::Plan;

const START: &str = "2026-06-08T00:00:00Z";

fn with(fault: &str) -> Plan {
    changed(&[("faults: []", &format!("faults:\n  - {{ {fault} }}"))])
}

/// Readings of one point for two days, with and without a fault.
fn both(plan: &Plan, name: &str) -> Vec<(Option<Values>, Option<Values>)> {
    let sound = default_plan();
    let index = point(plan, name);
    let (mut a, mut b) = (plan.begin(1, moment(START)), sound.begin(1, moment(START)));
    let mut step =
        || (readings(plan, &mut a)[index].clone(), readings(&sound, &mut b)[index].clone());
    (0..192).map(|_| step()).collect()
}

#[test]
fn a_stuck_sensor_keeps_its_value() {
    let name = "weather.outside-air-temp";
    let period = "from: 2026-06-08T06:00:00Z, to: 2026-06-08T18:00:00Z";
    let all = both(&with(&format!("fault: stuck, point: {name}, {period}")), name);
    // Readings come at the end of intervals: number 23 is at six o'clock.
    assert!(all[23..71].iter().all(|(faulty, _)| *faulty == all[23].1));
    assert!(all[23..71].iter().any(|(faulty, sound)| faulty != sound));
    assert!(all[..23].iter().chain(&all[71..]).all(|(faulty, sound)| faulty == sound));
}

#[test]
fn a_drifting_sensor_goes_off_by_so_much_a_day() {
    let name = "weather.outside-air-temp";
    let plan = with(&format!("fault: drift, point: {name}, per_day: 2, from: {START}"));
    for (number, (faulty, sound)) in (1_i32..).zip(both(&plan, name)) {
        let off = faulty.unwrap().n.unwrap() - sound.unwrap().n.unwrap();
        assert!((off - 2.0 * f64::from(number) / 96.0).abs() < 0.11, "{off} at {number}");
    }
}

#[test]
fn a_sensor_that_dropped_out_gives_nothing() {
    let name = "ahu-1.mode";
    let period = "from: 2026-06-08T06:00:00Z, to: 2026-06-08T18:00:00Z";
    let all = both(&with(&format!("fault: drop_out, point: {name}, {period}")), name);
    for (number, (faulty, sound)) in all.into_iter().enumerate() {
        assert_eq!(faulty, sound.filter(|_| !(23..71).contains(&number)));
    }
}

#[test]
fn leaking_valves_cost_energy() {
    let run = |plan: &Plan, start: &str| {
        let mut memory = plan.begin(1, moment(start));
        (0..7 * 96).for_each(|_| plan.step(&mut memory, |_, _| {}));
        memory.totalizers()
    };
    let leak = |equip: &str, valve: &str, start: &str| {
        let fault = format!("fault: leaking_valve, equip: {equip}, valve: {valve}, percent: 40");
        run(&with(&format!("{fault}, from: {start}")), start)
    };
    let (winter, summer) = ("2026-01-12T00:00:00Z", "2026-07-13T00:00:00Z");
    let sound = run(&default_plan(), winter);
    let gas = |totals: &std::collections::BTreeMap<String, f64>| totals["meter-gas.volume"];
    assert!(gas(&leak("ahu-1", "heating", winter)) > gas(&sound) * 1.01);
    assert!(gas(&leak("floor-1.core.vav", "reheat", winter)) > gas(&sound) * 1.01);
    let cold =
        |totals: &std::collections::BTreeMap<String, f64>| totals["meter-chilled-water.energy"];
    let sound = run(&default_plan(), summer);
    assert!(cold(&leak("ahu-1", "cooling", summer)) > cold(&sound) * 1.002);
}
