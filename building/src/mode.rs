//! What an air handler is about, decided by what its zones say together.

use crate::memory::AhuMode;

/// What the zones of an air handler say together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Call {
    /// Whether any of them is in working hours.
    pub(crate) occupied: bool,
    /// Whether it is time to make any of them ready for working hours.
    pub(crate) make_ready: bool,
    /// How far the coldest is below its setback, K.
    pub(crate) cold: f64,
    /// How far the hottest is above its setup, K.
    pub(crate) hot: f64,
}

/// What an air handler is to be about next.
pub(crate) fn next_mode(mode: AhuMode, call: &Call) -> AhuMode {
    if call.occupied {
        AhuMode::Occupied
    } else if call.make_ready {
        AhuMode::WarmUp
    } else if call.cold > 0.5 || (mode == AhuMode::NightHeating && call.cold > -1.0) {
        AhuMode::NightHeating
    } else if call.hot > 0.5 || (mode == AhuMode::NightCooling && call.hot > -1.5) {
        AhuMode::NightCooling
    } else {
        AhuMode::Off
    }
}

impl AhuMode {
    /// As its point reads.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::WarmUp => "warm-up",
            Self::Occupied => "occupied",
            Self::NightHeating => "night-heating",
            Self::NightCooling => "night-cooling",
        }
    }
}
