//! Entities, tags, points, counts.

use crate::{changed, default_plan};
use domain::{device_type::Kind, tags::TagValue};
use haystack_building::Plan;
use std::collections::BTreeSet;

#[test]
fn the_default_building_has_about_280_points_of_all_kinds() {
    let plan = default_plan();
    let summary = plan.summary();
    assert!((260..=300).contains(&summary.points()), "{summary}");
    assert_eq!(summary.points(), plan.points().len());
    for kind in ["Number", "Bool", "Str", "DateTime"] {
        assert!(summary.points_by_kind[kind] >= 3, "{summary}");
    }
    for (sort, count) in [("site", 1), ("floor", 3), ("zone", 15), ("ahu", 3), ("vav", 15)] {
        assert_eq!(summary.entities[sort], count);
    }
    assert_eq!(plan.interval_minutes(), 15);
}

fn is_sound(plan: &Plan) {
    let all = plan.entities();
    let keys: BTreeSet<&str> = all.iter().map(|entity| entity.key.as_str()).collect();
    assert_eq!(keys.len(), all.len());
    for (index, entity) in all.iter().enumerate() {
        assert!(entity.parent.is_none_or(|parent| parent < index));
        assert_eq!(entity.parent.is_none(), entity.key == "site");
        assert_eq!(entity.tags.contains_key("siteRef"), entity.key != "site");
        for (tag, value) in &entity.tags {
            if let TagValue::Ref(to) = value {
                assert!(keys.contains(to.as_str()), "{}.{tag} is {to}", entity.key);
            }
        }
    }
    for point in plan.points() {
        let entity = &all[point.entity];
        assert_eq!(point.unit.is_some(), point.kind == Kind::Number, "{}", entity.key);
        let roles = ["sensor", "cmd", "sp"].iter().filter(|role| entity.tags.contains_key(**role));
        assert_eq!(roles.count(), 1, "{}", entity.key);
        assert_eq!(entity.tags["point"], TagValue::Marker);
        let equip = &all[entity.parent.unwrap()];
        assert_eq!(entity.tags["equipRef"], TagValue::Ref(equip.key.clone()));
        assert!(equip.tags.contains_key("equip"));
    }
}

#[test]
fn entities_are_sound() {
    is_sound(&default_plan());
    // A tower of a hundred like floors on two air handlers.
    let tower = changed(&[
        ("area: 4982", "elevation: 40 # "),
        ("  elevation: 40 # m\n", ""),
        ("    count: 3\n    ahu: ahu-{n}", "    count: 100\n    ahu: ahu-2"),
        ("    count: 3\n    discharge", "    first: 2\n    discharge"),
    ]);
    is_sound(&tower);
    assert_eq!(tower.summary().entities["zone"], 500);
}
