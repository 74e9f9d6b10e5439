//! Points of the weather station.

use super::{PERCENT, Sort};

const TEMP: (f64, f64) = (-60.0, 60.0);

/// The weather station on the roof.
pub(crate) static WEATHER: [Sort; 6] = [
    Sort::number("outside-air-temp", "outside air temp sensor", "°C", 10.0, TEMP, |v, _| {
        v.now.weather.temp
    })
    .noise(0.08),
    Sort::number(
        "outside-air-humidity",
        "outside air humidity sensor",
        "%RH",
        1.0,
        PERCENT,
        |v, _| v.now.weather.humidity,
    )
    .noise(0.7),
    Sort::number("dew-point", "outside air dewPoint sensor", "°C", 10.0, TEMP, |v, _| {
        v.now.weather.dew_point
    })
    .noise(0.1),
    Sort::number("wet-bulb", "outside air wetBulb temp sensor", "°C", 10.0, TEMP, |v, _| {
        v.now.weather.wet_bulb
    })
    .noise(0.1),
    Sort::number(
        "solar-irradiance",
        "solar irradiance sensor",
        "W/m²",
        1.0,
        (0.0, 1_500.0),
        |v, _| v.now.weather.sun.horizontal,
    )
    .relative(0.01),
    Sort::number("wind-speed", "wind speed sensor", "m/s", 10.0, (0.0, 60.0), |v, _| {
        v.now.weather.wind
    })
    .relative(0.05),
];
