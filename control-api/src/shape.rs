//! What values look like in bodies whose types belong to other rooms: for the description alone. Tests hold
//! them against those types.

#![allow(dead_code, reason = "the description reads them, and nothing else")]

use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A device's name, unique in the platform.
#[derive(Serialize, ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", example = "TS-001-2024")]
pub(crate) struct DeviceId(String);

/// A target's name.
#[derive(Serialize, ToSchema)]
#[schema(pattern = "^[a-z][a-z0-9_-]{0,30}$", example = "secondary")]
pub(crate) struct TargetName(String);

/// A type's name, unique in its org.
#[derive(Serialize, ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{1,64}$", example = "temperature-sensor")]
pub(crate) struct TypeId(String);

/// Tags of Project Haystack, by name.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"point": "M", "kind": "Number", "unit": "°C", "siteRef": "@7"}))]
pub(crate) struct Tags(BTreeMap<String, Tag>);

/// `M` is a marker, `@7` a reference, an object a number with its unit.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Tag {
    /// It is so, or not.
    Bool(bool),
    /// A number without a unit.
    Number(f64),
    /// A text, a marker or a reference.
    Text(String),
    /// A number with its unit.
    Measure {
        /// How many.
        value: f64,
        /// Of what.
        #[schema(example = "m²")]
        unit: String,
    },
}

/// What somebody may do in an org.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Permission {
    /// See entities, values, devices, simulators.
    Read,
    /// Write values.
    Write,
    /// Change entities, tags, device types, devices, assets, pollers.
    Model,
    /// Start, stop, reset and edit simulators, and tell devices what to do.
    Control,
    /// Send as a device.
    Telemetry,
    /// Users, permissions and keys of the org, and all of the above.
    Admin,
}

/// Permissions for single entities, by their numbers.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"7": ["read"]}))]
pub(crate) struct Entities(BTreeMap<String, Vec<Permission>>);

/// What somebody may do in one org.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rights {
    /// In all of it.
    permissions: Vec<Permission>,
    /// For single entities, beside that.
    entities: Entities,
}

/// What happened to a simulator.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EventType {
    /// Readings were made.
    Generation,
    /// A gap was filled.
    GapFill,
    /// Something failed.
    Error,
    /// A service took it over.
    Startup,
    /// A service let it go.
    Shutdown,
    /// It was told to go on.
    Start,
    /// It was told to stop.
    Stop,
    /// It began anew.
    Reset,
    /// It simulates something else.
    Config,
}

/// One message of a device, or several.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(example = json!({"ts": "2026-01-01T00:00:00Z", "temperature": 21.5, "humidity": 40.2}))]
pub(crate) enum Messages {
    /// A message, as the device's type describes it.
    #[schema(value_type = Object)]
    One(serde_json::Map<String, serde_json::Value>),
    /// At most 1,024 of them.
    #[schema(value_type = Vec<Object>)]
    Many(Vec<serde_json::Map<String, serde_json::Value>>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use utoipa::PartialSchema;

    fn schema<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()
    }

    fn names<T: PartialSchema>() -> Vec<String> {
        let schema = schema::<T>();
        serde_json::from_value(schema["enum"].clone()).unwrap()
    }

    #[test]
    fn the_words_are_those_of_the_types() {
        let permissions = domain::access::Permission::ALL.map(|it| it.as_str().to_owned());
        assert_eq!(names::<Permission>(), permissions);
        let known = |name: &String| serde_json::from_value(json!(name));
        for name in names::<EventType>() {
            let event: domain::simulator::EventType = known(&name).unwrap();
            assert_eq!(event.as_str(), name);
        }
        // It names those that there are.
        let no = serde_json::from_value::<domain::simulator::EventType>(json!("no"));
        let told = no.unwrap_err().to_string();
        assert_eq!(told.matches('`').count(), 2 * (1 + names::<EventType>().len()), "{told}");
    }

    #[test]
    fn the_examples_are_what_the_types_take() {
        let tags = schema::<Tags>()["example"].clone();
        assert_eq!(serde_json::from_value::<domain::tags::Tags>(tags).unwrap().len(), 4);
        let entities = schema::<Entities>()["example"].clone();
        let rights = json!({ "permissions": [], "entities": entities });
        assert!(!serde_json::from_value::<domain::access::Rights>(rights).unwrap().is_empty());
        let types = schema::<Tag>();
        let types: Vec<_> = types["oneOf"].as_array().unwrap().iter().collect();
        assert_eq!(types.len(), 4, "{types:?}");
    }

    #[test]
    fn an_id_is_what_the_pattern_says() {
        let pattern = json!("^[A-Za-z0-9_-]{1,64}$");
        assert_eq!(schema::<DeviceId>()["pattern"], pattern);
        assert_eq!(schema::<TypeId>()["pattern"], pattern);
        for (text, is) in [("TS-001_x", true), ("", false), ("a.b", false), ("ü", false)] {
            assert_eq!(domain::DeviceId::parse(text).is_ok(), is, "{text}");
            assert_eq!(domain::TypeId::parse(text).is_ok(), is, "{text}");
        }
        for (length, is) in [(64, true), (65, false)] {
            assert_eq!(domain::DeviceId::parse(&"x".repeat(length)).is_ok(), is);
            assert_eq!(domain::TypeId::parse(&"x".repeat(length)).is_ok(), is);
        }
    }
}
