//! From what a person describes to what the platform registers: a plan, and the entities that it wants.
//! Whoever makes a simulator and whoever runs it must come to the same.

use crate::{Mistake, Plan};
use domain::{model::Wanted, simulator::SimulatorConfig, tags::TagValue};
use serde::Deserialize;

/// Why nothing can be simulated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Something beside the description is wrong; `name: what is expected`.
    #[error("{0}")]
    Setting(String),
    /// The description has a mistake.
    #[error("the building's description: {0}")]
    Description(#[from] Mistake),
}

/// The plan of a configuration, where all of it can be used.
pub fn plan(config: &SimulatorConfig) -> Result<Plan, Unusable> {
    config.check().map_err(Unusable::Setting)?;
    Ok(Plan::read(&config.building)?)
}

/// The entities of a building, as the registry wants them.
pub fn wanted(plan: &Plan) -> Vec<Wanted> {
    let entities = plan.entities().iter();
    let mut wanted: Vec<Wanted> = entities
        .map(|entity| Wanted {
            key: entity.key.clone(),
            name: entity.name.clone(),
            tags: entity.tags.clone(),
        })
        .collect();
    for point in plan.points() {
        let tags = &mut wanted[point.entity].tags;
        let text = |text: &str| TagValue::Str(text.to_owned());
        tags.insert("kind".to_owned(), text(point.kind.haystack()));
        if let Some(unit) = &point.unit {
            tags.insert("unit".to_owned(), text(unit));
        }
        // It has a history and a current value (Project Haystack, points).
        for marker in ["his", "cur"] {
            tags.insert(marker.to_owned(), TagValue::Marker);
        }
    }
    wanted
}

/// The name of a building's site.
pub fn site(plan: &Plan) -> String {
    plan.entities().first().map_or_else(String::new, |site| site.name.clone())
}

/// Minutes between two reports, as a description says it that was read before: the rest of it is not
/// looked at. `None`: it can't be read at all.
pub fn interval_minutes(description: &str) -> Option<u32> {
    #[derive(Deserialize)]
    struct Interval {
        interval_minutes: Option<u32>,
    }
    let read: Interval = serde_saphyr::from_str(description).ok()?;
    Some(read.interval_minutes.unwrap_or(crate::read::USUAL_INTERVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(building: &str) -> SimulatorConfig {
        SimulatorConfig {
            building: building.to_owned(),
            seed: 1,
            history_hours: 0,
            begins: None,
            autostart: false,
            database_config: None,
        }
    }

    #[test]
    fn a_point_is_told_with_its_kind_and_what_it_has() {
        let plan = plan(&config(crate::DEFAULT)).unwrap();
        let wanted = wanted(&plan);
        assert_eq!(wanted.len(), plan.entities().len());
        let point = &plan.points()[0];
        let tags = &wanted[point.entity].tags;
        assert_eq!(tags["kind"], TagValue::Str(point.kind.haystack().to_owned()));
        assert_eq!((&tags["his"], &tags["cur"]), (&TagValue::Marker, &TagValue::Marker));
        assert!(!wanted[0].tags.contains_key("his"), "a site has no history");
    }

    #[test]
    fn a_mistake_is_told_with_its_line_and_a_setting_by_name() {
        let wrong = crate::DEFAULT.replace("latitude: 52.52", "latitude: 91");
        let why = plan(&config(&wrong)).unwrap_err().to_string();
        assert!(why.starts_with("the building's description: line "), "{why}");
        let long = SimulatorConfig { history_hours: u32::MAX, ..config(crate::DEFAULT) };
        let why = plan(&long).unwrap_err();
        assert!(matches!(&why, Unusable::Setting(text) if text.starts_with("history_hours: ")));
    }

    #[test]
    fn the_interval_is_found_without_the_rest() {
        let hourly = crate::DEFAULT.replace("interval_minutes: 15", "interval_minutes: 60");
        let silent = crate::DEFAULT.replace("interval_minutes: 15", "");
        for (text, minutes) in [(crate::DEFAULT, 15), (&hourly, 60), (&silent, 15)] {
            assert_eq!(interval_minutes(text), Some(minutes));
            assert_eq!(Plan::read(text).unwrap().interval_minutes(), minutes);
        }
        assert_eq!(interval_minutes("{"), None);
    }
}
