//! A description as its YAML says it. Values carry their place in the text, so that a mistake can
//! be shown where it is.

use serde::Deserialize;
use serde_saphyr::Spanned;
use std::collections::BTreeMap;

/// A value and where it stands.
pub(crate) type At<T> = Spanned<T>;
/// A number that may be left out.
pub(crate) type Maybe = Option<At<f64>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    pub(crate) seed: Option<u64>,
    pub(crate) interval_minutes: Option<At<u32>>,
    pub(crate) site: Site,
    #[serde(default)]
    pub(crate) envelope: Envelope,
    #[serde(default)]
    pub(crate) loads: Loads,
    #[serde(default)]
    pub(crate) setpoints: Setpoints,
    pub(crate) schedules: BTreeMap<String, At<Schedule>>,
    #[serde(default)]
    pub(crate) holidays: Vec<At<String>>,
    pub(crate) ahus: Vec<At<Ahu>>,
    pub(crate) floors: Vec<At<Floor>>,
    #[serde(default)]
    pub(crate) chiller_plant: ChillerPlant,
    #[serde(default)]
    pub(crate) boiler_plant: BoilerPlant,
    #[serde(default)]
    pub(crate) meters: Meters,
    #[serde(default)]
    pub(crate) faults: Vec<At<Fault>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Site {
    pub(crate) name: At<String>,
    pub(crate) latitude: At<f64>,
    pub(crate) longitude: At<f64>,
    pub(crate) elevation: Maybe,
    pub(crate) time_zone: At<String>,
    pub(crate) area: Maybe,
    #[serde(default)]
    pub(crate) climate: Climate,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Climate {
    pub(crate) mean: Maybe,
    pub(crate) seasonal_swing: Maybe,
    pub(crate) daily_swing: Maybe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) wall_u: Maybe,
    pub(crate) glass_u: Maybe,
    pub(crate) roof_u: Maybe,
    pub(crate) glass_shgc: Maybe,
    pub(crate) infiltration: Maybe,
    pub(crate) heat_capacity: Maybe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Loads {
    pub(crate) lighting: Maybe,
    pub(crate) plugs: Maybe,
    pub(crate) daylight_saving: Maybe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setpoints {
    pub(crate) heating: Maybe,
    pub(crate) cooling: Maybe,
    pub(crate) setback: Maybe,
    pub(crate) setup: Maybe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Schedule {
    pub(crate) days: Option<Vec<Day>>,
    pub(crate) from: At<String>,
    pub(crate) to: At<String>,
    pub(crate) ramp: Maybe,
    pub(crate) lunch: Option<At<String>>,
    pub(crate) warmup: Maybe,
    pub(crate) cleaning: Option<Cleaning>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cleaning {
    pub(crate) from: At<String>,
    pub(crate) to: At<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reset {
    Outdoor,
    Demand,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ahu {
    pub(crate) name: At<String>,
    pub(crate) count: Option<At<u32>>,
    pub(crate) first: Option<u16>,
    pub(crate) discharge_cold: Maybe,
    pub(crate) discharge_warm: Maybe,
    pub(crate) reset: Option<Reset>,
    pub(crate) economizer: Option<bool>,
    pub(crate) economizer_limit: Maybe,
    pub(crate) static_pressure: Maybe,
    pub(crate) fan_pressure: Maybe,
    pub(crate) fan_efficiency: Maybe,
    pub(crate) filter_clean: Maybe,
    pub(crate) filter_dirty: Maybe,
    pub(crate) filter_hours: Maybe,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Floor {
    pub(crate) name: At<String>,
    pub(crate) count: Option<At<u32>>,
    pub(crate) first: Option<u16>,
    pub(crate) ahu: Option<At<String>>,
    pub(crate) schedule: Option<At<String>>,
    pub(crate) height: Maybe,
    pub(crate) zones: BTreeMap<String, At<Zone>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    North,
    NorthEast,
    East,
    SouthEast,
    South,
    SouthWest,
    West,
    NorthWest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Zone {
    pub(crate) area: At<f64>,
    pub(crate) faces: Option<Side>,
    pub(crate) wall: Maybe,
    pub(crate) glass: Maybe,
    pub(crate) people: Maybe,
    pub(crate) ahu: Option<At<String>>,
    pub(crate) schedule: Option<At<String>>,
    pub(crate) lighting: Maybe,
    pub(crate) plugs: Maybe,
    pub(crate) airflow: Maybe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChillerPlant {
    pub(crate) chillers: Option<At<u32>>,
    pub(crate) capacity: Maybe,
    pub(crate) cop: Maybe,
    pub(crate) supply_temp: Maybe,
    pub(crate) lockout: Maybe,
    pub(crate) pump: Maybe,
    pub(crate) condenser_pump: Maybe,
    pub(crate) tower_fan: Maybe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BoilerPlant {
    pub(crate) capacity: Maybe,
    pub(crate) efficiency: Maybe,
    pub(crate) supply_hot: Maybe,
    pub(crate) supply_mild: Maybe,
    pub(crate) lockout: Maybe,
    pub(crate) gas_heat: Maybe,
    pub(crate) pump: Maybe,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meters {
    pub(crate) loss: Maybe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultSort {
    Stuck,
    Drift,
    DropOut,
    LeakingValve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ValveSort {
    Cooling,
    Heating,
    Reheat,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    #[serde(rename = "fault")]
    pub(crate) sort: FaultSort,
    pub(crate) point: Option<At<String>>,
    pub(crate) equip: Option<At<String>>,
    pub(crate) valve: Option<At<ValveSort>>,
    pub(crate) per_day: Maybe,
    pub(crate) percent: Maybe,
    pub(crate) from: At<String>,
    pub(crate) to: Option<At<String>>,
}
