//! What is wrong with a description.

use serde_saphyr::{Error, Location};

/// A mistake in a description: where it is and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{text}", place(*.line, .key))]
pub struct Mistake {
    /// Line in the text, from 1; none where the place isn't known.
    pub line: Option<u64>,
    /// The key, with the keys above it where the text could be read that far
    /// (`floors.floor-1.zones.north.area`).
    pub key: String,
    /// What is wrong and what was expected.
    pub text: String,
}

impl Mistake {
    /// A mistake at a place.
    pub(crate) fn at(location: Location, key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { line: line_of(location), key: key.into(), text: text.into() }
    }

    /// What the YAML reader found.
    pub(crate) fn unreadable(text: &str, error: &Error) -> Self {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        let said = error.without_snippet().to_string();
        // Where it is stands in `line` already, and nobody who writes a description sets options.
        let ends = [" at line ", ", set DuplicateKeyPolicy"].map(|end| said.find(end));
        let plain = &said[..ends.into_iter().flatten().min().unwrap_or(said.len())];
        let missing = plain.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        let above = path_above(text, location);
        let key = match missing {
            Some(missing) => Some(missing.to_owned()),
            None => key_at(text, location),
        };
        let key = [above, key].into_iter().flatten().collect::<Vec<_>>().join(".");
        Self { line: line_of(location), key, text: in_plain_words(plain) }
    }
}

/// What the YAML reader says, for people who know buildings.
fn in_plain_words(said: &str) -> String {
    let expected = match said {
        _ if said.starts_with("missing field") => "it is missing",
        _ if said.starts_with("invalid u") || said.starts_with("invalid i") => {
            "a whole number is expected"
        }
        _ if said.starts_with("invalid floating point") => "a number is expected, such as 52.5",
        _ if said.starts_with("invalid bool") => "true or false is expected",
        _ if said.starts_with("expected mapping start") => {
            "keys with values are expected below it (key: value)"
        }
        _ if said.starts_with("expected sequence start") => {
            "a list is expected: lines that begin with - below it, or [ … ]"
        }
        _ if said.starts_with("unexpected end of input") => {
            "the description is empty; site, floors and the rest are expected \
             (`docs/building.md`)"
        }
        _ if said.starts_with("comment intercepting") => {
            "the line does not stand as far in as its neighbours, or belongs to nothing"
        }
        _ => return said.to_owned(),
    };
    // The reader's own words too, for whoever looks them up.
    format!("{expected} ({said})")
}

/// The keys above a place, by how far in the lines stand.
fn path_above(text: &str, location: Location) -> Option<String> {
    let index = usize::try_from(location.line()).ok()?.checked_sub(1)?;
    let lines: Vec<&str> = text.lines().take(index + 1).collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut least = depth(lines.get(index)?);
    let mut keys = Vec::new();
    for line in lines[..index].iter().rev() {
        let plain = line.trim_start();
        if plain.is_empty() || plain.starts_with('#') || depth(line) >= least {
            continue;
        }
        // The first key of a thing in a list stands behind the dash, beside the thing's others.
        let inside = plain.trim_start_matches("- ");
        let is_above = depth(line) + plain.len() - inside.len() < least;
        least = depth(line);
        if let (true, Some((key, _))) = (is_above, inside.split_once(':')) {
            keys.push(key.trim().to_owned());
        }
    }
    keys.reverse();
    (!keys.is_empty()).then(|| keys.join("."))
}

/// What stands before the text: `line 12: site.latitude: `.
fn place(line: Option<u64>, key: &str) -> String {
    let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    if key.is_empty() { line } else { format!("{line}{key}: ") }
}

fn line_of(location: Location) -> Option<u64> {
    Some(location.line()).filter(|line| *line > 0)
}

/// The key at a place in the text: the word there if a colon follows, else the last key before it.
fn key_at(text: &str, location: Location) -> Option<String> {
    let index = usize::try_from(location.line()).ok()?.checked_sub(1)?;
    let line = text.lines().nth(index)?;
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let (mut found, mut word, mut start) = (None, String::new(), 1);
    for (place, c) in (1..).zip(line.chars()) {
        if is_word(c) {
            if word.is_empty() {
                start = place;
            }
            word.push(c);
        } else {
            if c == ':' && !word.is_empty() && (start <= column || found.is_none()) {
                found = Some(word.clone());
            }
            word.clear();
        }
    }
    found
}
