//! A configuration that came from outside: read, checked, and what is wrong with it told with its place.

use super::{ask::field, making::joined};
use crate::{problem::Problem, routes::poller::TextOrJson};
use building::{
    Plan,
    simulate::{self, Unusable},
};
use domain::simulator::SimulatorConfig;
use serde_json::Value;

/// Minutes of a day.
const DAY: u32 = 1_440;

/// The description as the text that is kept.
pub(super) fn description(pointer: &str, written: TextOrJson) -> Result<String, Problem> {
    match written {
        TextOrJson::Text(text) => Ok(text),
        TextOrJson::Object(object) => {
            serde_saphyr::to_string(&Value::Object(object)).map_err(|error| {
                Problem::field(pointer, format!("it can't be written as YAML: {error}"))
            })
        }
    }
}

/// Where the fields of a draft stand in a body.
pub(super) struct Places {
    /// Its settings.
    pub(super) settings: &'static str,
    /// The description.
    pub(super) building: &'static str,
    /// Minutes between two reports.
    pub(super) minutes: &'static str,
}

/// A configuration that nobody has looked at yet.
pub(super) struct Draft {
    /// As it came.
    pub(super) config: SimulatorConfig,
    /// Minutes between two reports, where the caller says it beside the description.
    pub(super) minutes: Option<u32>,
    /// Where its randomness begins, where the caller says it.
    pub(super) seed: Option<u64>,
    /// What it is to follow; `None`: it is the first.
    pub(super) before: Option<SimulatorConfig>,
}

/// Why a draft is none that can be used.
#[derive(Debug, PartialEq)]
enum Unfit {
    Unusable(Unusable),
    Minutes(String),
}

impl From<Unusable> for Unfit {
    fn from(why: Unusable) -> Self {
        Self::Unusable(why)
    }
}

impl Draft {
    /// Reads the description, aside: a large one takes a while.
    pub(super) async fn checked(self, places: &Places) -> Result<(SimulatorConfig, Plan), Problem> {
        let read = tokio::task::spawn_blocking(|| self.read()).await;
        joined(read)?.map_err(|unfit| unfit.told(places))
    }

    fn read(mut self) -> Result<(SimulatorConfig, Plan), Unfit> {
        let mut plan = simulate::plan(&self.config)?;
        if let Some(minutes) = self.minutes.filter(|it| *it != plan.interval_minutes()) {
            plan = self.set_minutes(minutes, plan.interval_minutes())?;
        }
        let said = |before: &SimulatorConfig| Plan::read(&before.building).ok().map(|it| it.seed());
        self.config.seed = match (self.seed, &self.before) {
            (Some(seed), _) => seed,
            (None, Some(before)) if before.building == self.config.building => before.seed,
            (None, Some(before)) if said(before) == Some(plan.seed()) => before.seed,
            (None, _) => plan.seed(),
        };
        Ok((self.config, plan))
    }

    /// Adds the interval to a description that says none.
    fn set_minutes(&mut self, minutes: u32, said: u32) -> Result<Plan, Unfit> {
        if !DAY.is_multiple_of(minutes) {
            let text =
                format!("{minutes} minutes don't divide a day; expected 1, 5, 10, 15, 30, …");
            return Err(Unfit::Minutes(text));
        }
        let text = format!("{}\ninterval_minutes: {minutes}\n", self.config.building.trim_end());
        self.config.building = text;
        simulate::plan(&self.config)
            .map_err(|_| Unfit::Minutes(format!("the description says {said}; change it there")))
    }
}

impl Unfit {
    fn told(self, places: &Places) -> Problem {
        match self {
            Self::Minutes(text) => Problem::field(places.minutes, text),
            Self::Unusable(Unusable::Description(mistake)) => {
                Problem::field(places.building, mistake.to_string())
            }
            Self::Unusable(Unusable::Setting(text)) => match field(&text) {
                Some((name, detail)) => {
                    Problem::field(format!("{}/{name}", places.settings), detail)
                }
                None => Problem::field(places.building, text),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(building: &str, seed: u64) -> SimulatorConfig {
        SimulatorConfig {
            building: building.to_owned(),
            seed,
            history_hours: 0,
            begins: None,
            autostart: false,
            database_config: None,
        }
    }

    fn draft(building: &str) -> Draft {
        Draft { config: config(building, 1), minutes: None, seed: None, before: None }
    }

    fn with(old: &str, new: &str) -> String {
        assert!(building::DEFAULT.contains(old), "{old:?} isn't in the default description");
        building::DEFAULT.replacen(old, new, 1)
    }

    #[test]
    fn the_seed_is_the_callers_then_the_descriptions_where_that_changed() {
        let seven = with("seed: 1 ", "seed: 7 ");
        let seed = |draft: Draft| draft.read().unwrap().0.seed;
        assert_eq!(seed(draft(&seven)), 7);
        assert_eq!(seed(Draft { seed: Some(3), ..draft(&seven) }), 3);
        let after = |building: &str| Draft {
            before: Some(config(building::DEFAULT, 99)),
            ..draft(building)
        };
        assert_eq!(seed(after(building::DEFAULT)), 99);
        assert_eq!(seed(after(&with("latitude: 52.52", "latitude: 50"))), 99);
        assert_eq!(seed(after(&seven)), 7);
    }

    #[test]
    fn an_interval_is_added_to_a_description_that_says_none() {
        let silent = with("interval_minutes: 15", "");
        let minutes = |building: &str, minutes| {
            let draft = Draft { minutes: Some(minutes), ..draft(building) };
            draft.read().map(|(config, plan)| {
                assert_eq!(Plan::read(&config.building).unwrap().interval_minutes(), minutes);
                plan.interval_minutes()
            })
        };
        assert_eq!(minutes(&silent, 5), Ok(5));
        assert_eq!(minutes(building::DEFAULT, 15), Ok(15));
        for (building, no) in [(building::DEFAULT, 5), (&silent, 7), (&silent, 0), (&silent, 2_880)]
        {
            assert!(matches!(minutes(building, no), Err(Unfit::Minutes(_))), "{no}");
        }
    }

    #[test]
    fn a_description_may_come_as_json() {
        let value: serde_json::Map<String, Value> =
            serde_saphyr::from_str(building::DEFAULT).unwrap();
        let text = description("", TextOrJson::Object(value)).unwrap();
        let (same, plan) = (Plan::read(building::DEFAULT).unwrap(), Plan::read(&text).unwrap());
        assert_eq!(plan.entities(), same.entities());
        let wrong = json!({ "site": { "name": "A", "latitude": "warm", "longitude": 7 } });
        let Value::Object(wrong) = wrong else { unreachable!() };
        let text = description("", TextOrJson::Object(wrong)).unwrap();
        let unfit = draft(&text).read().err().unwrap();
        let Unfit::Unusable(Unusable::Description(mistake)) = unfit else { panic!("{unfit:?}") };
        assert!(mistake.line.is_some() && mistake.key == "site.latitude", "{mistake}");
    }
}
