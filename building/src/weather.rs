//! The weather at a minute: a pure function of seed, place and time, with no memory.

use crate::{
    design::Climate,
    noise::{drift, stream},
    psychrometrics::{dew_point, humidity_ratio, relative_humidity, saturation, wet_bulb},
    sun::{Irradiance, day_of_year, irradiance, solar_hour},
};
use libm::cos;
use std::f64::consts::TAU;

/// Weather outside the building.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Weather {
    /// Dry bulb, °C.
    pub(crate) temp: f64,
    /// Relative humidity, %.
    pub(crate) humidity: f64,
    /// Humidity ratio, kg/kg.
    pub(crate) moisture: f64,
    /// Dew point, °C.
    pub(crate) dew_point: f64,
    /// Wet bulb, °C.
    pub(crate) wet_bulb: f64,
    /// Wind, m/s.
    pub(crate) wind: f64,
    /// Sun, W/m².
    pub(crate) sun: Irradiance,
}

const DAY: i64 = 1_440;

impl Weather {
    /// The weather at a minute since 1970 UTC.
    pub(crate) fn at(climate: &Climate, seed: u64, minute: i64) -> Self {
        let line = |name, period| drift(seed, stream(name), minute, period);
        let front = 0.9 * line("weather.front", 4 * DAY) + 0.44 * line("weather.day", DAY + 60);
        let cloud = 0.55 - 0.15 * front
            + 0.35 * line("weather.cloud", 7 * 60)
            + 0.15 * line("weather.gap", 47);
        let cloud = cloud.clamp(0.0, 1.0);

        let season = cos(TAU * (day_of_year(minute) - 201.0) / 365.2425);
        let hour = cos(TAU * (solar_hour(minute, climate.longitude) - 15.0) / 24.0);
        let mean = climate.mean + climate.seasonal_swing * season + 3.4 * front;
        let swing = climate.daily_swing * (1.25 - 0.7 * cloud) * hour;
        let ripple = 0.7 * line("weather.hours", 5 * 60) + 0.12 * line("weather.minutes", 17);
        let temp = (mean + swing + ripple).clamp(-60.0, 55.0);

        // Moisture follows air masses, not the hour: near the temperature before sunrise.
        let depression = 4.5 + 4.0 * (1.0 - cloud) + 1.5 * line("weather.dew", 9 * 60);
        let vapour = saturation((mean - depression).min(temp - 0.2).min(27.0));
        let vapour = vapour.max(0.08 * saturation(temp));
        let moisture = humidity_ratio(vapour, climate.pressure);
        let humidity = relative_humidity(temp, moisture, climate.pressure);
        let gust = 1.0 + 0.45 * line("weather.wind", 6 * 60) + 0.2 * line("weather.gust", 11);
        Self {
            temp,
            humidity,
            moisture,
            dew_point: dew_point(vapour).min(temp),
            wet_bulb: wet_bulb(temp, humidity),
            wind: (3.3 * gust + 0.8 * hour).clamp(0.1, 25.0),
            sun: irradiance(minute, climate, cloud),
        }
    }
}
