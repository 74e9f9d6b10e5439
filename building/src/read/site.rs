//! Site, climate, setpoints, schedules.

use super::check::{NAME, fail, is_name, number, or, time_of_day};
use crate::{
    calendar::Schedule,
    description::{self, At, Cleaning, Day, Description},
    design::{Climate, Design, Setpoints},
    mistake::Mistake,
    plan::date,
    psychrometrics::pressure_at,
};
use libm::{cos, sin};

/// Longest name of a site, in characters.
const MAX_NAME: usize = 100;

/// Place and climate. What the description leaves open follows from latitude and elevation.
pub(super) fn climate(description: &Description) -> Result<Climate, Mistake> {
    let site = &description.site;
    // The climate by latitude holds where people build; nearer the poles nothing is known of it.
    let latitude = number(&site.latitude, "site.latitude", -60.0..=70.0, "° north")?;
    let longitude = number(&site.longitude, "site.longitude", -180.0..=180.0, "° east")?;
    let elevation = or(&site.elevation, "site.elevation", 0.0, -400.0..=5_000.0, "m")?;
    let Ok(time_zone) = site.time_zone.value.parse() else {
        let text =
            format!("no time zone {:?}; expected one like Europe/Berlin", site.time_zone.value);
        return fail(&site.time_zone, "site.time_zone", text);
    };
    let given = &site.climate;
    let mean = 27.0 - 0.0064 * latitude * latitude - 0.0065 * elevation;
    let swing = (0.175 * latitude).clamp(-13.0, 13.0);
    let pressure = pressure_at(elevation);
    let density = 1.204 * pressure / 101_325.0;
    Ok(Climate {
        sin_latitude: sin(latitude.to_radians()),
        cos_latitude: cos(latitude.to_radians()),
        longitude,
        mean: or(&given.mean, "site.climate.mean", mean, -20.0..=32.0, "°C")?,
        seasonal_swing: or(
            &given.seasonal_swing,
            "site.climate.seasonal_swing",
            swing,
            -20.0..=20.0,
            "K",
        )?,
        daily_swing: or(&given.daily_swing, "site.climate.daily_swing", 4.2, 0.0..=12.0, "K")?,
        pressure,
        density,
        heat_capacity: density * 1_006.0,
        time_zone,
    })
}

/// The site's name must be one that people can read in a list.
pub(super) fn name(description: &Description) -> Result<(), Mistake> {
    let name = &description.site.name;
    let fits = (1..=MAX_NAME).contains(&name.value.trim().chars().count());
    if fits && !name.value.chars().any(char::is_control) {
        return Ok(());
    }
    fail(name, "site.name", format!("expected 1 to {MAX_NAME} characters in one line"))
}

/// Floor area of the site, m²: what the description says, else that of its zones.
pub(super) fn area(description: &Description, design: &Design) -> Result<f64, Mistake> {
    let zones: f64 = design.zones.iter().map(|zone| zone.area).sum();
    let Some(area) = &description.site.area else { return Ok(zones) };
    if area.value >= zones * 0.999 && area.value <= 1e7 {
        return Ok(area.value);
    }
    let text =
        format!("{} m² can't hold zones of {zones} m²; expected as much or more", area.value);
    fail(area, "site.area", text)
}

/// Setpoints.
pub(super) fn setpoints(description: &Description) -> Result<Setpoints, Mistake> {
    let given = &description.setpoints;
    let made = Setpoints {
        heating: or(&given.heating, "setpoints.heating", 21.0, 15.0..=26.0, "°C")?,
        cooling: or(&given.cooling, "setpoints.cooling", 24.0, 18.0..=30.0, "°C")?,
        setback: or(&given.setback, "setpoints.setback", 17.0, 12.0..=26.0, "°C")?,
        setup: or(&given.setup, "setpoints.setup", 28.0, 18.0..=35.0, "°C")?,
    };
    let wrong = |at: &Option<At<f64>>, key, text: &str| match at {
        Some(at) => fail(at, key, text),
        None => Err(Mistake { line: None, key: String::from(key), text: text.to_owned() }),
    };
    if made.cooling < made.heating + 1.5 {
        return wrong(&given.cooling, "setpoints.cooling", "expected 1.5 K or more above heating");
    }
    if made.setback > made.heating {
        return wrong(&given.setback, "setpoints.setback", "expected no more than heating");
    }
    if made.setup < made.cooling {
        return wrong(&given.setup, "setpoints.setup", "expected no less than cooling");
    }
    Ok(made)
}

/// Schedules in the order of their names.
pub(super) fn schedules(description: &Description) -> Result<Vec<Schedule>, Mistake> {
    let mut holidays = Vec::with_capacity(description.holidays.len());
    for day in &description.holidays {
        let Some(number) = date(&day.value) else {
            let text = format!("{:?} is no date; expected one like 2026-12-25", day.value);
            return fail(day, "holidays", text);
        };
        holidays.push(number);
    }
    holidays.sort_unstable();
    if description.schedules.is_empty() {
        let text = "expected at least one schedule".to_owned();
        return Err(Mistake { line: None, key: "schedules".to_owned(), text });
    }
    let each = description.schedules.iter();
    each.map(|(name, given)| schedule(name, given, &holidays)).collect()
}

fn schedule(
    name: &str,
    given: &At<description::Schedule>,
    holidays: &[i32],
) -> Result<Schedule, Mistake> {
    let key = |part: &str| format!("schedules.{name}.{part}");
    if !is_name(name) {
        return fail(given, &format!("schedules.{name}"), format!("{name:?} is no name; {NAME}"));
    }
    let value = &given.value;
    let (from, to) = span(&value.from, &value.to, &key("from"), &key("to"))?;
    let working = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri];
    let mut days = [false; 7];
    for day in value.days.as_deref().unwrap_or(&working) {
        days[*day as usize] = true;
    }
    let cleaning = match &value.cleaning {
        Some(Cleaning { from, to }) => {
            Some(span(from, to, &key("cleaning.from"), &key("cleaning.to"))?)
        }
        None => None,
    };
    Ok(Schedule {
        days,
        from,
        to,
        ramp: or(&value.ramp, &key("ramp"), 60.0, 0.0..=240.0, "minutes")? as i32,
        lunch: value.lunch.as_ref().map(|at| time_of_day(at, &key("lunch"))).transpose()?,
        warmup: or(&value.warmup, &key("warmup"), 180.0, 0.0..=600.0, "minutes")? as i32,
        cleaning,
        holidays: holidays.to_vec(),
    })
}

/// Two times of day, the first before the second.
fn span(
    from: &At<String>,
    to: &At<String>,
    key: &str,
    key_to: &str,
) -> Result<(i32, i32), Mistake> {
    let (start, end) = (time_of_day(from, key)?, time_of_day(to, key_to)?);
    if start < end {
        return Ok((start, end));
    }
    fail(to, key_to, format!("{} isn't after {}; expected a later time", to.value, from.value))
}
