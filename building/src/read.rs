//! From a description to a plan: all checks that the shape of the text alone does not make.

mod air;
mod check;
mod directory;
mod faults;
mod plant;
mod site;
mod zones;

use crate::{
    description::Description, design::Design, mistake::Mistake, plan::Plan, step::Counter,
};
use check::{count_in, fail};
use directory::Directory;

/// Most floors of a building.
pub(crate) const MAX_FLOORS: usize = 200;
/// Most air handlers.
pub(crate) const MAX_AHUS: usize = 200;
/// Most zones.
pub(crate) const MAX_ZONES: usize = 5_000;
/// Most points: the readings of one interval fit a message of the stream.
pub(crate) const MAX_POINTS: usize = 100_000;
/// Minutes between two reports where the description does not say it.
pub(crate) const USUAL_INTERVAL: u32 = 15;
/// Most faults.
const MAX_FAULTS: usize = 1_000;

/// Makes a plan of the text of a description.
pub(crate) fn plan(text: &str) -> Result<Plan, Mistake> {
    let description: Description =
        serde_saphyr::from_str(text).map_err(|error| Mistake::unreadable(text, &error))?;
    site::name(&description)?;
    let interval = interval(&description)?;
    let schedules = site::schedules(&description)?;
    let names: Vec<&String> = description.schedules.keys().collect();
    let climate = site::climate(&description)?;
    let setpoints = site::setpoints(&description)?;
    let mut ahus = air::ahus(&description)?;
    let (floors, zones) = air::zones(&description, &climate, &names, &mut ahus)?;
    air::size(&mut ahus, &zones);
    let design = Design {
        chillers: plant::chillers(&description, &zones, &climate)?,
        boiler: plant::boiler(&description, &zones, &climate)?,
        loss: plant::loss(&description)?,
        floors: floors.len(),
        climate,
        setpoints,
        schedules,
        zones,
        ahus,
    };
    let area = site::area(&description, &design)?;
    let mut directory = Directory::default();
    directory.build(&description, &design, &floors, area);
    check_keys(&directory)?;
    let (faulty, leaks) = faults::faults(&description, &design, &mut directory.sensors)?;
    let Directory { entities, points, sensors, counters, .. } = directory;
    let seed = description.seed.unwrap_or(1);
    Ok(Plan { seed, interval, design, entities, points, sensors, counters, faulty, leaks })
}

fn interval(description: &Description) -> Result<u32, Mistake> {
    let Some(minutes) = &description.interval_minutes else { return Ok(USUAL_INTERVAL) };
    let value = count_in(minutes, "interval_minutes", 1..=1_440)?;
    if 1_440 % value != 0 {
        let text = format!("{value} minutes don't divide a day; expected 1, 5, 10, 15, 30, 60, …");
        return fail(minutes, "interval_minutes", text);
    }
    Ok(value)
}

/// Keys are unique: an air handler may not be called like a floor or a meter.
fn check_keys(directory: &Directory) -> Result<(), Mistake> {
    let place = |key: &str, text: String| Err(Mistake { line: None, key: key.to_owned(), text });
    if directory.points.len() > MAX_POINTS {
        let text = format!("{} points; expected at most {MAX_POINTS}", directory.points.len());
        return place("floors", text);
    }
    let mut keys: Vec<&str> = directory.entities.iter().map(|e| e.key.as_str()).collect();
    keys.sort_unstable();
    for pair in keys.windows(2) {
        if pair[0] == pair[1] {
            let text = "this name is there twice; expected names of floors and air handlers \
                        that differ from each other and from the building's own equipment";
            return place(pair[0], text.to_owned());
        }
    }
    let counters: &[Counter] = &directory.counters;
    debug_assert!(counters.iter().all(|counter| keys.binary_search(&&*counter.key).is_ok()));
    Ok(())
}
