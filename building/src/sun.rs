//! Where the sun stands and what it gives to each side of a building.
//!
//! Position after Duffie and Beckman, Solar Engineering of Thermal Processes, chapter 1; clear sky
//! after Haurwitz (1945); clouds after Kasten and Czeplak (1980); the diffuse part after Erbs and
//! others (1982); sky and ground isotropic (Liu and Jordan 1963).

use crate::design::Climate;
use libm::{cos, exp, pow, sin};
use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};

/// Sides of a building, clockwise from north, in eighths of a turn.
pub(crate) const SIDES: usize = 8;

/// East and north part of each side's outward normal.
const NORMALS: [(f64, f64); SIDES] = [
    (0.0, 1.0),
    (FRAC_1_SQRT_2, FRAC_1_SQRT_2),
    (1.0, 0.0),
    (FRAC_1_SQRT_2, -FRAC_1_SQRT_2),
    (0.0, -1.0),
    (-FRAC_1_SQRT_2, -FRAC_1_SQRT_2),
    (-1.0, 0.0),
    (-FRAC_1_SQRT_2, FRAC_1_SQRT_2),
];

/// W/m² outside of the atmosphere.
const SOLAR_CONSTANT: f64 = 1_361.0;
/// Part of the light that the ground gives back.
const ALBEDO: f64 = 0.2;

/// Day of the year with its fraction, 1 at the start of January (UTC). A mean year, so that it has
/// no jump at a leap day.
pub(crate) fn day_of_year(minute: i64) -> f64 {
    let days = minute as f64 / 1_440.0;
    1.0 + days - libm::floor(days / 365.2425) * 365.2425
}

/// Hours of solar time, 12 when the sun is highest.
pub(crate) fn solar_hour(minute: i64, longitude: f64) -> f64 {
    let angle = TAU * (day_of_year(minute) - 81.0) / 364.0;
    let equation = 9.87 * sin(2.0 * angle) - 7.53 * cos(angle) - 1.5 * sin(angle);
    let utc = minute.rem_euclid(1_440) as f64;
    (utc + 4.0 * longitude + equation) / 60.0
}

/// Direction to the sun: parts up, east and north, together of length 1.
fn direction(minute: i64, climate: &Climate) -> [f64; 3] {
    let declination = 23.45_f64.to_radians() * sin(TAU * (284.0 + day_of_year(minute)) / 365.0);
    let hour = (solar_hour(minute, climate.longitude) - 12.0) * PI / 12.0;
    let (sin_d, cos_d, cos_h) = (sin(declination), cos(declination), cos(hour));
    let (sin_l, cos_l) = (climate.sin_latitude, climate.cos_latitude);
    [
        sin_l * sin_d + cos_l * cos_d * cos_h,
        -cos_d * sin(hour),
        cos_l * sin_d - sin_l * cos_d * cos_h,
    ]
}

/// What falls on a building, W/m².
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Irradiance {
    /// On the roof.
    pub(crate) horizontal: f64,
    /// On each side, clockwise from north.
    pub(crate) sides: [f64; SIDES],
}

/// Irradiance under `cloud` cover (0 to 1).
pub(crate) fn irradiance(minute: i64, climate: &Climate, cloud: f64) -> Irradiance {
    let [up, east, north] = direction(minute, climate);
    if up <= 0.01 {
        return Irradiance::default();
    }
    let clear = 1_098.0 * up * exp(-0.057 / up);
    let horizontal = clear * (1.0 - 0.75 * pow(cloud, 3.4));
    let diffuse = horizontal * diffuse_part(horizontal / (SOLAR_CONSTANT * up));
    // Low sun would make this ratio explode where the correlations no longer hold.
    let beam = ((horizontal - diffuse) / up.max(0.05)).min(1_050.0);
    let spread = 0.5 * diffuse + 0.5 * ALBEDO * horizontal;
    let side = |(e, n): (f64, f64)| spread + beam * (east * e + north * n).max(0.0);
    Irradiance { horizontal, sides: NORMALS.map(side) }
}

/// The part of horizontal light that comes from the whole sky, by clearness index.
fn diffuse_part(clearness: f64) -> f64 {
    let k = clearness.clamp(0.0, 1.0);
    if k <= 0.22 {
        1.0 - 0.09 * k
    } else if k <= 0.8 {
        0.9511 + k * (-0.1604 + k * (4.388 + k * (-16.638 + k * 12.336)))
    } else {
        0.165
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minute of an hour (UTC) of a day of 2026.
    fn minute(day: i64, hour: i64) -> i64 {
        (20_454 + day - 1) * 1_440 + hour * 60
    }

    #[test]
    fn the_sun_is_where_it_is() {
        let berlin = Climate::at(52.5, 13.4);
        // Noon in Berlin at midsummer, about 11:08 UTC: 61° high, in the south.
        let [up, east, north] = direction(minute(172, 11), &berlin);
        assert!((libm::asin(up).to_degrees() - 60.9).abs() < 0.5);
        assert!(north < -0.4 && east.abs() < 0.05);
        assert!(direction(minute(172, 6), &berlin)[1] > 0.5);
        assert!(direction(minute(355, 16), &berlin)[0] < 0.0);
        let sydney = Climate::at(-33.9, 151.2);
        assert!(direction(minute(355, 2), &sydney)[0] > 0.97);
    }

    #[test]
    fn clouds_take_light_and_sides_get_their_share() {
        let berlin = Climate::at(52.5, 13.4);
        let clear = irradiance(minute(172, 11), &berlin, 0.0);
        let dull = irradiance(minute(172, 11), &berlin, 1.0);
        assert!((850.0..950.0).contains(&clear.horizontal));
        assert!((dull.horizontal / clear.horizontal - 0.25).abs() < 1e-9);
        assert!(clear.sides[4] > 2.0 * clear.sides[0]);
        let night = irradiance(minute(172, 23), &berlin, 0.0);
        assert!(night.horizontal <= 0.0 && night.sides.iter().all(|side| *side <= 0.0));
    }
}
