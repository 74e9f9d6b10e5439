//! What the configuration is and where each value came from.

use super::Loaded;
use figment::value::{Dict, Value};
use serde::Serialize;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `section.key`
    pub key: String,
    /// Its value, as JSON would write it.
    pub value: String,
    /// Built-in default, a file, an environment variable.
    pub source: String,
}

/// Every setting. The configuration holds no secrets, only where they lie; a password that a URL
/// holds all the same is refused before this.
pub fn show(loaded: &Loaded) -> Vec<Shown> {
    let mut shown = Vec::new();
    let root: Dict = loaded.figment.extract().unwrap_or_default();
    for (key, value) in root {
        walk(loaded, &key, &value, &mut shown);
    }
    shown
}

fn walk(loaded: &Loaded, path: &str, value: &Value, shown: &mut Vec<Shown>) {
    if let Value::Dict(_, dict) = value {
        for (key, value) in dict {
            walk(loaded, &format!("{path}.{key}"), value, shown);
        }
        return;
    }
    let value = serde_json::to_string(value).unwrap_or_default();
    shown.push(Shown { key: path.to_owned(), value, source: source(loaded, path) });
}

fn source(loaded: &Loaded, path: &str) -> String {
    let Some(metadata) = loaded.figment.find_metadata(path) else {
        return "unknown".to_owned();
    };
    match &metadata.source {
        Some(figment::Source::File(file)) => file.display().to_string(),
        Some(figment::Source::Code(_)) => "default".to_owned(),
        _ => metadata.name.to_string(),
    }
}
