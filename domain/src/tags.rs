//! Haystack tags of an entity.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Tags by name.
pub type Tags = BTreeMap<String, TagValue>;

/// A tag's value. In files and JSON a marker is written `M`, a reference `@id`, a number with a
/// unit as a map; the rest is what it looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum TagValue {
    /// The tag is there.
    Marker,
    /// A boolean.
    Bool(bool),
    /// A number, with its unit where it has one.
    Number(f64, Option<String>),
    /// A reference to another entity, without the `@`.
    Ref(String),
    /// A text.
    Str(String),
}

impl TagValue {
    /// The name of its kind in Project Haystack.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Marker => "Marker",
            Self::Bool(_) => "Bool",
            Self::Number(..) => "Number",
            Self::Ref(_) => "Ref",
            Self::Str(_) => "Str",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a tag is M (a marker), true, false, a number, a text, @id, or { value, unit }"
)]
enum Written {
    Bool(bool),
    Number(f64),
    Text(String),
    Measure { value: f64, unit: String },
}

impl From<Written> for TagValue {
    fn from(written: Written) -> Self {
        match written {
            Written::Bool(b) => Self::Bool(b),
            Written::Number(n) => Self::Number(n, None),
            Written::Measure { value, unit } => Self::Number(value, Some(unit)),
            Written::Text(text) if text == "M" => Self::Marker,
            Written::Text(text) => match text.strip_prefix('@') {
                Some(id) => Self::Ref(id.to_owned()),
                None => Self::Str(text),
            },
        }
    }
}

impl From<TagValue> for Written {
    fn from(value: TagValue) -> Self {
        match value {
            TagValue::Marker => Self::Text("M".to_owned()),
            TagValue::Bool(b) => Self::Bool(b),
            TagValue::Number(n, None) => Self::Number(n),
            TagValue::Number(value, Some(unit)) => Self::Measure { value, unit },
            TagValue::Ref(id) => Self::Text(format!("@{id}")),
            TagValue::Str(text) => Self::Text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_written_as_people_write_them() {
        let text = r#"{"area":{"value":12.5,"unit":"m²"},"n":3.0,"point":"M","siteRef":"@7"}"#;
        let tags: Tags = serde_json::from_str(text).unwrap();
        assert_eq!(tags["point"], TagValue::Marker);
        assert_eq!(tags["siteRef"], TagValue::Ref("7".to_owned()));
        assert_eq!(serde_json::to_string(&tags).unwrap(), text);
    }
}
