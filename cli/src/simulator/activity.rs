//! A simulator's activity log.

use crate::databases;
use anyhow::{Context, Result};
use domain::SimulatorId;
use service::Config;
use std::{process::ExitCode, time::Duration};
use store::simulator::{Lines, Logged, activities};

/// How often the log is looked at again.
const EVERY: Duration = Duration::from_millis(500);
/// Most lines at once.
const MOST: u32 = 10_000;

/// Prints the last lines, and what follows where that is wanted.
pub(super) async fn show(
    config: &Config,
    id: SimulatorId,
    limit: u32,
    follow: bool,
    json: bool,
) -> Result<ExitCode> {
    let url = config.state.owner_url().context("state.url is not set")?;
    let database = databases::open(config, url, "simulator")?;
    let mut last = 0;
    let mut most = limit.min(MOST);
    loop {
        for logged in
            activities(&database, id, &Lines { after: last, ..Lines::default() }, most.into())
                .await?
                .0
        {
            last = logged.id;
            print(&logged, json)?;
        }
        if !follow {
            return Ok(ExitCode::SUCCESS);
        }
        most = MOST;
        tokio::time::sleep(EVERY).await;
    }
}

fn print(logged: &Logged, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(logged)?);
    } else {
        let activity = &logged.activity;
        println!(
            "{}  {:10}  {}",
            activity.timestamp,
            activity.event_type.as_str(),
            activity.message
        );
    }
    Ok(())
}
