//! Counts of what a building has, to be shown to whoever wrote its description.

use crate::entity::{Entity, Point};
use domain::tags::TagValue;
use std::{collections::BTreeMap, fmt};

/// How many entities and points a building has, by sort.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Entities without points: `site`, `floor`, `zone`, `ahu`, `vav`, `chiller`, `boiler`, …
    pub entities: BTreeMap<&'static str, usize>,
    /// Points by kind as Project Haystack writes it: `Number`, `Bool`, `Str`, `DateTime`.
    pub points_by_kind: BTreeMap<&'static str, usize>,
    /// Points by the sort of what they are part of.
    pub points_by_equip: BTreeMap<&'static str, usize>,
}

/// Tags that tell the sort, the most telling first.
const SORTS: [&str; 10] = [
    "site",
    "floor",
    "zone",
    "ahu",
    "vav",
    "chiller",
    "boiler",
    "meter",
    "weatherStation",
    "plant",
];

fn sort(entity: &Entity) -> &'static str {
    let has = |tag: &&&str| entity.tags.get(**tag) == Some(&TagValue::Marker);
    SORTS.iter().find(has).copied().unwrap_or("equip")
}

impl Summary {
    pub(crate) fn of(entities: &[Entity], points: &[Point]) -> Self {
        let mut summary = Self::default();
        for entity in entities.iter().filter(|entity| !entity.tags.contains_key("point")) {
            *summary.entities.entry(sort(entity)).or_default() += 1;
        }
        for point in points {
            *summary.points_by_kind.entry(point.kind.haystack()).or_default() += 1;
            let parent = entities[point.entity].parent.map_or("site", |up| sort(&entities[up]));
            *summary.points_by_equip.entry(parent).or_default() += 1;
        }
        summary
    }

    /// All points.
    pub fn points(&self) -> usize {
        self.points_by_kind.values().sum()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&'static str, usize>| {
            let each: Vec<_> = counts.iter().map(|(sort, n)| format!("{n} {sort}")).collect();
            each.join(", ")
        };
        writeln!(f, "entities: {}", list(&self.entities))?;
        writeln!(f, "points:   {} ({})", self.points(), list(&self.points_by_kind))?;
        write!(f, "points of {}", list(&self.points_by_equip))
    }
}
