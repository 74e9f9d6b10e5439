//! Mistakes in a description are told with line, key and what is expected.

use crate::changed_text;
use haystack_building::{DEFAULT, Mistake, Plan};

/// The mistake of the default description with one text replaced; it must be on the line where the
/// replacement ends up.
fn mistake(old: &str, new: &str) -> Mistake {
    let text = changed_text(&[(old, new)]);
    let mistake = Plan::read(&text).err().unwrap_or_else(|| panic!("{new:?} was taken"));
    let start = DEFAULT.find(old).unwrap();
    let first = text[..start].lines().count().max(1) as u64;
    let lines = first..=first + new.lines().count() as u64;
    assert!(mistake.line.is_some_and(|line| lines.contains(&line)), "{mistake:?} not in {lines:?}");
    assert!(mistake.to_string().starts_with("line "), "{mistake}");
    mistake
}

#[test]
fn each_mistake_is_told_with_line_key_and_what_is_expected() {
    for (old, new, key, text) in [
        ("seed: 1 ", "sead: 1 ", "sead", "unknown field"),
        ("latitude: 52.52", "latitude: warm", "site.latitude", "a number is expected"),
        ("site:\n  name: ", "site:\n  name: \"\" # ", "site.name", "1 to 100 characters"),
        ("latitude: 52.52", "latitude: 91", "site.latitude", "-60 to 70 ° north"),
        ("latitude: 52.52", "latitude: .nan", "site.latitude", "expected -60 to 70"),
        ("Europe/Berlin", "Europe/Nowhere", "site.time_zone", "expected one like Europe/Berlin"),
        ("interval_minutes: 15", "interval_minutes: 7", "interval_minutes", "divide a day"),
        ("interval_minutes: 15", "interval_minutes: 0", "interval_minutes", "expected 1 to 1440"),
        ("area: 4982", "area: 100", "site.area", "expected as much or more"),
        ("area: 984", "area: -984", "floors.floor-1.zones.core.area", "expected 2 to 20000 m²"),
        ("faces: east", "faces: up", "floors.zones.faces", "unknown variant"),
        ("ahu: ahu-{n}", "ahu: ahu-9", "floors.floor-1.zones.core.ahu", "expected one of ahu-1"),
        ("core: {", "Core: {", "floors.floor-1.zones.Core", "a-z"),
        (
            "core: { area: 984",
            "core: { glass: 4, area: 984",
            "floors.floor-1.zones.core.faces",
            "faces",
        ),
        ("      east: {", "      core: {", "floors.zones.core", "duplicate"),
        ("name: floor-{n}", "name: floor", "floors.name", "needs {n}"),
        ("name: floor-{n}", "name: ahu-{n}", "", ""),
        ("count: 3", "count: 300", "ahus.count", "expected 1 to 200"),
        ("from: \"07:00\"", "from: \"20:00\"\n    # late", "schedules.office.to", "later time"),
        ("lunch: \"12:30\"", "lunch: \"12.30\"", "schedules.office.lunch", "07:30"),
        ("- 2026-05-01", "- 2026-02-30", "holidays", "no date"),
        ("cooling: 24", "cooling: 21.5", "setpoints.cooling", "above heating"),
        ("people: 8 }", "people: 8", "floors.zones.people", ""),
        ("chillers: 2", "chillers: 3", "chiller_plant.chillers", "expected 1 to 2"),
        ("loss: 1.5", "loss: -1", "meters.loss", "expected 0 to 20 %"),
        ("supply_mild: 50", "supply_mild: 80", "boiler_plant.supply_mild", "expected 35 to 75"),
    ] {
        if key.is_empty() {
            // Two things of one name are found when all are made: there is a key, but no one line.
            let both = Plan::read(&changed_text(&[(old, new)])).unwrap_err();
            assert_eq!((both.line, both.key.as_str()), (None, "ahu-1"), "{both}");
            continue;
        }
        let found = mistake(old, new);
        assert_eq!(found.key, key, "{found}");
        assert!(found.text.contains(text), "{found}");
    }
}

#[test]
fn a_key_that_is_missing_is_named() {
    let text = changed_text(&[("  time_zone: Europe/Berlin", "  # none")]);
    let mistake = Plan::read(&text).unwrap_err();
    assert_eq!(
        (mistake.key.as_str(), mistake.text.as_str()),
        ("site.time_zone", "it is missing (missing field `time_zone`)")
    );
    assert!(mistake.line.is_some_and(|line| (9..=16).contains(&line)), "{mistake}");
}

#[test]
fn faults_are_checked() {
    let from = "from: 2026-01-01T00:00:00Z";
    for (fault, key, text) in [
        (format!("fault: stuck, point: nothing, {from}"), "faults.point", "expected one like"),
        (format!("fault: stuck, {from}"), "faults.point", "expected the point's key"),
        (format!("fault: melted, {from}"), "faults.fault", "unknown variant"),
        (
            format!("fault: drift, point: ahu-1.mixed-air-temp, {from}"),
            "faults.per_day",
            "each day",
        ),
        (format!("fault: drift, per_day: 1, point: ahu-1.mode, {from}"), "faults.point", "numbers"),
        (
            format!("fault: drift, per_day: -1, point: meter-main.energy, {from}"),
            "faults.point",
            "totalizer",
        ),
        ("fault: stuck, point: ahu-1.mode, from: yesterday".to_owned(), "faults.from", "no moment"),
        (
            format!("fault: stuck, point: ahu-1.mode, {from}, to: 2025-01-01T00:00:00Z"),
            "faults.to",
            "later moment",
        ),
        (format!("fault: leaking_valve, equip: ahu-7, {from}"), "faults.equip", "no equipment"),
        (
            format!("fault: leaking_valve, equip: ahu-1, {from}"),
            "faults.valve",
            "cooling or heating",
        ),
        (
            format!("fault: leaking_valve, equip: ahu-1, valve: cooling, percent: 101, {from}"),
            "faults.percent",
            "0 to 100",
        ),
    ] {
        let found = mistake("faults: []", &format!("faults:\n  - {{ {fault} }}"));
        assert_eq!(found.key, key, "{found}");
        assert!(found.text.contains(text), "{found}");
    }
}

#[test]
fn the_default_says_what_its_comments_say() {
    let text = DEFAULT.replace("faults: []\n# -", "faults:\n# -").replace("# - {", "  - {");
    Plan::read(&text).unwrap();
}

#[test]
fn no_text_is_too_broken_to_be_told_so() {
    let ends = DEFAULT.char_indices().map(|(end, _)| end).step_by(151);
    for text in ends.map(|end| &DEFAULT[..end]).chain(["", "- 1", "site: [", "\u{0}", "a: &a [*a]"])
    {
        // Some of the cuts are descriptions, for what comes last may be left out.
        if let Err(mistake) = Plan::read(text) {
            assert!(
                !mistake.text.is_empty() && mistake.to_string().lines().count() == 1,
                "{mistake}"
            );
        }
    }
}
