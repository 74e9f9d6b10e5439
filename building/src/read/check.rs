//! Checks of single values; each failure says place, key and what was expected.

use crate::{
    description::{At, Maybe},
    mistake::Mistake,
};
use std::ops::RangeInclusive;

/// A mistake at a value.
pub(super) fn fail<T, R>(at: &At<T>, key: &str, text: impl Into<String>) -> Result<R, Mistake> {
    Err(Mistake::at(at.referenced, key, text))
}

/// A number within a range; `unit` says what it is in.
pub(super) fn number(
    at: &At<f64>,
    key: &str,
    range: RangeInclusive<f64>,
    unit: &str,
) -> Result<f64, Mistake> {
    if range.contains(&at.value) {
        return Ok(at.value);
    }
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let (low, high) = (range.start(), range.end());
    fail(at, key, format!("{} is out of range; expected {low} to {high}{unit}", at.value))
}

/// The same for a number that may be left out.
pub(super) fn or(
    at: &Maybe,
    key: &str,
    default: f64,
    range: RangeInclusive<f64>,
    unit: &str,
) -> Result<f64, Mistake> {
    at.as_ref().map_or(Ok(default), |at| number(at, key, range, unit))
}

/// A whole number within a range.
pub(super) fn count_in(
    at: &At<u32>,
    key: &str,
    range: RangeInclusive<u32>,
) -> Result<u32, Mistake> {
    if range.contains(&at.value) {
        return Ok(at.value);
    }
    let (low, high) = (range.start(), range.end());
    fail(at, key, format!("{} is out of range; expected {low} to {high}", at.value))
}

/// Minutes since midnight of a time of day written `07:30`; `24:00` is the end of the day.
pub(super) fn time_of_day(at: &At<String>, key: &str) -> Result<i32, Mistake> {
    let parse = || {
        let (hours, minutes) = at.value.split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(hours) || !digits(minutes) {
            return None;
        }
        let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
        (minutes < 60 && hours * 60 + minutes <= 1_440).then_some(hours * 60 + minutes)
    };
    let text = || format!("{:?} is no time of day; expected one like \"07:30\"", at.value);
    parse().map_or_else(|| fail(at, key, text()), Ok)
}

/// A name that can be part of a key.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=40).contains(&name.len()) && name.chars().all(fits)
}

/// What a name may look like, for messages.
pub(super) const NAME: &str = "expected 1 to 40 of a-z, 0-9 and -";

/// Where `{n}` in names stands for a number, the numbers.
pub(super) struct Repeat {
    pub(super) numbers: std::ops::Range<u32>,
}

impl Repeat {
    /// Of a thing that is there `count` times, numbered from `first`.
    pub(super) fn of(
        name: &At<String>,
        count: Option<&At<u32>>,
        first: Option<u16>,
        key: &str,
    ) -> Result<Self, Mistake> {
        let first = u32::from(first.unwrap_or(1));
        let Some(count) = count else { return Ok(Self { numbers: first..first + 1 }) };
        let key_of_count = format!("{key}.count");
        let value = count_in(count, &key_of_count, 1..=200)?;
        if value > 1 && !name.value.contains("{n}") {
            let text = "a name that is used more than once needs {n}; expected one like floor-{n}";
            return fail(name, &format!("{key}.name"), text);
        }
        Ok(Self { numbers: first..first + value })
    }
}

/// A name with its number put in, checked.
pub(super) fn numbered(name: &At<String>, number: u32, key: &str) -> Result<String, Mistake> {
    let made = name.value.replace("{n}", &number.to_string());
    if is_name(&made) {
        return Ok(made);
    }
    fail(name, key, format!("{made:?} is no name; {NAME}"))
}
