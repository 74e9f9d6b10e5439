//! Physics: balances close, values are plausible everywhere and all year.

use crate::{changed, default_plan, every, key, moment, point, readings};
use domain::{Values, device_type::Kind};
use haystack_building::{Memory, Plan};

/// kWh in a cubic metre of gas.
const GAS: f64 = 10.4;

#[test]
fn the_heat_of_each_zone_adds_up_over_a_day() {
    let plan = default_plan();
    for start in ["2026-01-20T00:00:00Z", "2026-07-14T00:00:00Z", "2026-04-11T00:00:00Z"] {
        let mut memory = plan.begin(2, moment(start));
        let mut zones = vec![(0.0, 0.0, 0.0); 15];
        for _ in 0..96 {
            plan.step_with(
                &mut memory,
                |_, _| {},
                |zone, minute| {
                    let (sources, stored, moved) = &mut zones[zone];
                    *sources += minute.sources();
                    *stored += minute.stored;
                    *moved += minute.air.abs() + minute.envelope.abs() + minute.plugs;
                },
            );
        }
        for (sources, stored, moved) in zones {
            assert!(moved > 1e6);
            assert!((sources - stored).abs() < 1e-6 * moved, "{sources} {stored} {moved}");
        }
    }
}

/// What a number may be, by its unit and name.
fn range(plan: &Plan, point: usize) -> (f64, f64) {
    let name = key(plan, point);
    match plan.points()[point].unit.as_deref() {
        _ if name.ends_with("zone-air-temp") => (10.0, 40.0),
        Some("%" | "%RH") => (0.0, 100.0),
        Some("°C") if name.starts_with("boiler") => (5.0, 95.0),
        Some("°C") if name.starts_with("weather") => (-55.0, 50.0),
        Some("°C") => (-5.0, 45.0),
        Some("ppm") => (380.0, 2_000.0),
        Some("W/m²") => (0.0, 1_300.0),
        Some("Pa") => (0.0, 1_000.0),
        Some("m/s") => (0.0, 30.0),
        Some("kW" | "kWh" | "L/s" | "m³" | "m³/h") => (0.0, 2e6),
        other => panic!("{name} is in {other:?}"),
    }
}

/// Runs a day in hours; each value must be in its range.
fn day_in_range(plan: &Plan, ranges: &[Option<(f64, f64)>], memory: &mut Memory) {
    for _ in 0..24 {
        plan.step(memory, |point, values| match (&values, ranges[point]) {
            (Values { n: Some(n), .. }, Some((low, high))) => {
                assert!(n.is_finite() && (low..=high).contains(n), "{} {n}", key(plan, point));
            }
            (_, None) => assert_eq!(values.n, None),
            (_, Some(_)) => panic!("{} gives no number", key(plan, point)),
        });
    }
}

fn ranges(plan: &Plan) -> Vec<Option<(f64, f64)>> {
    let number = |point: usize| plan.points()[point].kind == Kind::Number;
    (0..plan.points().len()).map(|i| number(i).then(|| range(plan, i))).collect()
}

#[test]
fn a_year_is_plausible_totalizers_never_fall_and_sub_meters_add_up() {
    let plan = every(60);
    let mut memory = plan.begin(1, moment("2026-01-01T00:00:00Z"));
    let ranges = ranges(&plan);
    let mut before = memory.totalizers();
    let (mut january, mut july) = ((0.0, 0.0), (0.0, 0.0));
    for day in 0..365 {
        day_in_range(&plan, &ranges, &mut memory);
        let now = memory.totalizers();
        for (key, value) in &now {
            assert!(value >= &before[key], "{key} fell before {}", memory.at);
        }
        let used = |key: &str| now[key] - before[key];
        let (gas, cold) = (used("meter-gas.volume") * GAS, used("meter-chilled-water.energy"));
        match day {
            0..31 => january = (january.0 + gas, january.1 + cold),
            181..212 => july = (july.0 + gas, july.1 + cold),
            _ => {}
        }
        before = now;
    }
    let of = |names: &[&str]| -> f64 {
        names.iter().map(|name| before[&format!("{name}.energy")]).sum()
    };
    let parts = of(&["meter-hvac", "meter-plant", "meter-lighting", "meter-plugs"]);
    let main = of(&["meter-main"]);
    assert!((main / parts - 1.015).abs() < 1e-9, "{main} of {parts}");
    let fans = before.iter().filter(|(key, _)| key.ends_with("fan-energy"));
    let fans: f64 = fans.map(|(_, kwh)| kwh).sum();
    assert!((fans / of(&["meter-hvac"]) - 1.0).abs() < 1e-9);

    let per_area = (main + before["meter-gas.volume"] * GAS) / 4_982.0;
    assert!((100.0..300.0).contains(&per_area), "{per_area} kWh/m²");
    assert!(january.0 > 10.0 * july.0, "{january:?} {july:?}");
    assert!(july.1 > 20.0 * (january.1 + 1.0), "{january:?} {july:?}");
}

#[test]
fn every_value_is_plausible_from_the_far_south_to_the_far_north() {
    for (seed, latitude) in [(1, -60.0), (2, -33.9), (3, 0.0), (4, 25.0), (5, 45.0), (6, 70.0)] {
        let plan = changed(&[
            ("interval_minutes: 15", "interval_minutes: 60"),
            ("latitude: 52.52", &format!("latitude: {latitude}")),
        ]);
        let ranges = ranges(&plan);
        let mut memory = plan.begin(seed, moment("2026-01-01T00:00:00Z"));
        // One day in twelve: the jump in time is a jump in weather, no harm to a building.
        for _ in 0..31 {
            day_in_range(&plan, &ranges, &mut memory);
            memory.at = memory.at.plus_micros(11 * 86_400_000_000);
        }
    }
}

#[test]
fn occupied_zones_are_near_their_setpoint_summer_and_winter() {
    let plan = default_plan();
    for start in ["2026-01-12T00:00:00Z", "2026-07-13T00:00:00Z", "2026-10-12T00:00:00Z"] {
        let mut memory = plan.begin(4, moment(start));
        let occupied = point(&plan, "ahu-1.occupied-cmd");
        let temps: Vec<usize> = (0..plan.points().len())
            .filter(|i| key(&plan, *i).ends_with("zone-air-temp"))
            .collect();
        assert_eq!(temps.len(), 15);
        let (mut good, mut all) = (0, 0);
        for _ in 0..7 * 96 {
            let now = readings(&plan, &mut memory);
            if now[occupied].as_ref().unwrap().b == Some(true) {
                for temp in &temps {
                    let temp = now[*temp].as_ref().unwrap().n.unwrap();
                    good += usize::from((20.0..=26.0).contains(&temp));
                    all += 1;
                }
            }
        }
        assert!(all > 3_000 && good * 100 >= all * 95, "{good} of {all} from {start}");
    }
}

#[test]
fn a_cold_night_is_heated_in_bursts_and_never_cooled() {
    let plan = every(1);
    let mut memory = plan.begin(1, moment("2026-11-20T18:00:00Z"));
    let of = |name: &str| (0..plan.points().len()).find(|&i| key(&plan, i) == name).unwrap();
    let (mode, valve) = (of("ahu-3.mode"), of("ahu-3.cooling-valve-cmd"));
    let (mut longest, mut lasted, mut nights) = (0, 0, 0);
    for _ in 0..48 * 60 {
        let (mut heating, mut open) = (false, 0.0);
        plan.step(&mut memory, |point, values| {
            if point == mode {
                heating = values.s.as_deref() == Some("night-heating");
            } else if point == valve {
                open = values.n.unwrap();
            }
        });
        nights += u32::from(heating);
        lasted = if heating { lasted + 1 } else { 0 };
        longest = longest.max(lasted);
        // What was open before closes within minutes.
        assert!(lasted < 15 || open < 1.0, "{}: {open} %", memory.at);
    }
    assert!(nights > 0, "the weekend is cold enough");
    assert!(longest < 4 * 60, "{longest} minutes in one go");
}
