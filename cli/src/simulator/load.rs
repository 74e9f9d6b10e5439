//! Load: a building as large and a simulated time as fast as is asked for.

use super::{found, progress, start};
use anyhow::{Context, Result};
use building::{Plan, simulate};
use clap::Args;
use domain::{
    Clock, OrgKey, SystemClock,
    model::SIMULATOR,
    simulator::{MAX_SPEED, SimulatorConfig},
};
use nats::{Wire, registry};
use std::{fmt::Write, process::ExitCode, time::Instant};

/// Zones of each floor.
const ZONES: u32 = 20;
/// Most floors of a building.
const MOST_FLOORS: u32 = 200;

#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Points that report, at least; a few more come with them
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=40_000))]
    entities: u32,
    /// Readings a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// For how long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Org
    #[arg(long, default_value = "demo")]
    org: OrgKey,
}

/// Simulated time goes as fast as the rate asks for. It begins so far in the past that it does not
/// run ahead of the clock.
pub(super) async fn run(wire: &Wire, args: &LoadArgs) -> Result<ExitCode> {
    let (building, plan) = building_with(args.entities)?;
    let (points, interval) = (plan.points().len(), f64::from(plan.interval_minutes()) * 60.0);
    let speed = f64::from(args.rate) * interval / points as f64;
    anyhow::ensure!(
        (1.0..=MAX_SPEED).contains(&speed),
        "{} readings a second of {points} points can't be made: between {:.0} and {:.0} a second \
         is expected",
        args.rate,
        (points as f64 / interval).ceil(),
        MAX_SPEED * points as f64 / interval
    );
    let now = SystemClock.now();
    let begins = now.plus_micros(-(speed * f64::from(args.seconds) * 1e6) as i64);
    let config = SimulatorConfig {
        building,
        seed: 1,
        history_hours: 0,
        begins: Some(begins),
        autostart: false,
        database_config: None,
    };
    let (text, wanted) = (serde_json::to_string(&config)?, simulate::wanted(&plan));
    println!("registering {} entities", wanted.len());
    let name = format!("Load of {points} points");
    let poller = registry::add_poller(wire, &args.org, SIMULATOR, name, text, &wanted).await?;
    println!("made simulator {}: {points} points, {} readings a second", poller.id, args.rate);
    found(wire, poller.id).await?;
    let begun = Instant::now();
    start(wire, poller.id, Some(speed), Some(now)).await?;
    let done = progress::follow(wire, poller.id).await?;
    println!("it took {:.1} s", begun.elapsed().as_secs_f64());
    Ok(done)
}

/// A description with at least so many points, one report a minute.
fn building_with(points: u32) -> Result<(String, Plan)> {
    let mut floors = 1;
    loop {
        let text = description(floors);
        let plan = Plan::read(&text).context("the building of the load")?;
        let found = plan.points().len() as u32;
        if found >= points || floors == MOST_FLOORS {
            return Ok((text, plan));
        }
        // The first is not more than one floor and the plant: never too many.
        floors = (floors * points / found).clamp(floors + 1, MOST_FLOORS);
    }
}

fn description(floors: u32) -> String {
    let mut zones = String::new();
    for zone in 1..=ZONES {
        let _ = writeln!(zones, "      zone-{zone}: {{ area: 60 }}");
    }
    format!(
        "interval_minutes: 1\nsite: {{ name: Load, latitude: 50, longitude: 10, time_zone: UTC }}\n\
         schedules:\n  always: {{ from: \"07:00\", to: \"19:00\" }}\n\
         ahus:\n  - {{ name: \"ahu-{{n}}\", count: {floors} }}\n\
         floors:\n  - name: \"floor-{{n}}\"\n    count: {floors}\n    ahu: \"ahu-{{n}}\"\n    \
         schedule: always\n    zones:\n{zones}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_building_has_the_points_that_are_asked_for() {
        for points in [1, 300, 1_000, 10_000] {
            let (_, plan) = building_with(points).unwrap();
            let found = plan.points().len() as u32;
            assert!(found >= points && found < points + 600, "{points}: {found}");
        }
    }
}
