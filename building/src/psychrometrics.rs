//! Moist air: saturation, humidity ratio, relative humidity, wet bulb.
//!
//! Temperatures in °C, pressures in Pa, humidity ratios in kg of water a kg of dry air.

use libm::{atan, exp, log, pow, sqrt};

/// Heat that evaporates water, J/kg, at room temperature.
pub(crate) const EVAPORATION: f64 = 2.45e6;

/// Vapour pressure over water at saturation (Magnus, coefficients of Alduchov and Eskridge 1996).
pub(crate) fn saturation(temp: f64) -> f64 {
    610.94 * exp(17.625 * temp / (temp + 243.04))
}

/// The temperature at which `vapour` pressure saturates: [`saturation`] the other way round.
pub(crate) fn dew_point(vapour: f64) -> f64 {
    let ln = log(vapour / 610.94);
    243.04 * ln / (17.625 - ln)
}

/// Humidity ratio from vapour pressure (ASHRAE Fundamentals, Psychrometrics).
pub(crate) fn humidity_ratio(vapour: f64, pressure: f64) -> f64 {
    0.621_945 * vapour / (pressure - vapour).max(1_000.0)
}

/// Vapour pressure from humidity ratio.
pub(crate) fn vapour_pressure(ratio: f64, pressure: f64) -> f64 {
    pressure * ratio / (0.621_945 + ratio)
}

/// Relative humidity in %, 0 to 100.
pub(crate) fn relative_humidity(temp: f64, ratio: f64, pressure: f64) -> f64 {
    (100.0 * vapour_pressure(ratio, pressure) / saturation(temp)).clamp(0.0, 100.0)
}

/// Wet bulb from temperature and relative humidity in % (Stull 2011), never above dry bulb.
pub(crate) fn wet_bulb(temp: f64, humidity: f64) -> f64 {
    let rh = humidity.clamp(5.0, 99.0);
    let wet = temp * atan(0.151_977 * sqrt(rh + 8.313_659)) + atan(temp + rh)
        - atan(rh - 1.676_331)
        + 0.003_918_38 * rh * sqrt(rh) * atan(0.023_101 * rh)
        - 4.686_035;
    wet.min(temp)
}

/// Pressure of the standard atmosphere at an elevation in m.
pub(crate) fn pressure_at(elevation: f64) -> f64 {
    101_325.0 * pow(1.0 - 2.255_77e-5 * elevation, 5.2559)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_agree_with_the_tables() {
        assert!((saturation(20.0) - 2_339.0).abs() < 10.0);
        assert!((wet_bulb(20.0, 50.0) - 13.7).abs() < 0.2);
        assert!((pressure_at(1_500.0) - 84_556.0).abs() < 50.0);
        let ratio = humidity_ratio(saturation(25.0) * 0.5, 101_325.0);
        assert!((ratio - 0.009_9).abs() < 0.000_1);
        assert!((relative_humidity(25.0, ratio, 101_325.0) - 50.0).abs() < 1e-9);
        assert!((dew_point(saturation(7.5)) - 7.5).abs() < 1e-9);
    }
}
