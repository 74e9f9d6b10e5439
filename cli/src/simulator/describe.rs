//! Buildings' descriptions, and simulators in a line.

use anyhow::{Context, Result};
use building::{Plan, simulate};
use domain::{
    OrgKey,
    model::SIMULATOR,
    simulator::{SimulatorConfig, State},
};
use nats::{Wire, registry};
use std::{path::Path, process::ExitCode};

/// Largest description.
const MAX_FILE: u64 = 1 << 20;
/// What a newcomer finds to look at.
const HISTORY_HOURS: u32 = 24;

/// Reads a description; a mistake in it is told with its line and key.
pub(super) fn read(file: &Path) -> Result<String> {
    let name = || file.display().to_string();
    let size = std::fs::metadata(file).with_context(name)?.len();
    anyhow::ensure!(size <= MAX_FILE, "{}: larger than {MAX_FILE} bytes", file.display());
    let text = std::fs::read_to_string(file).with_context(name)?;
    Plan::read(&text).map_err(|mistake| anyhow::anyhow!("{}: {mistake}", file.display()))?;
    Ok(text)
}

/// The same, or the building that `up` starts with.
pub(super) fn read_or_default(file: Option<&Path>) -> Result<String> {
    file.map_or_else(|| Ok(building::DEFAULT.to_owned()), read)
}

/// What a building makes.
pub(super) fn check(file: Option<&Path>) -> Result<ExitCode> {
    let plan = Plan::read(&read_or_default(file)?)?;
    println!("{}", plan.summary());
    Ok(ExitCode::SUCCESS)
}

/// What a simulator does, and at what pace where that is not the clock's.
pub(super) fn doing(state: &State) -> String {
    let mut doing = state.status.as_str().to_owned();
    if state.pace.speed > 1.0 {
        doing = format!("{doing} at {:.0} times the clock's pace", state.pace.speed);
    }
    match state.pace.until {
        Some(until) => format!("{doing}, until {until}"),
        None => doing,
    }
}

/// A simulator in a line.
pub(super) fn line(state: &State) -> String {
    let last = state.last_run_timestamp.map_or("never".to_owned(), |at| at.to_string());
    let why = state.error_message.as_ref().map_or(String::new(), |why| format!(": {why}"));
    format!(
        "simulator {} ({}) is {}{why}; readings up to {last}, {} points every {} minutes",
        state.simulator_id,
        state.name,
        doing(state),
        state.points,
        state.interval_minutes
    )
}

/// Makes the simulator that a new platform starts with.
pub(crate) async fn demonstration(wire: &Wire, org: &OrgKey) -> Result<()> {
    let config = SimulatorConfig {
        building: building::DEFAULT.to_owned(),
        seed: 1,
        history_hours: HISTORY_HOURS,
        begins: None,
        autostart: true,
        database_config: None,
    };
    let plan = simulate::plan(&config)?;
    let (text, wanted) = (serde_json::to_string(&config)?, simulate::wanted(&plan));
    registry::add_poller(wire, org, SIMULATOR, simulate::site(&plan), text, &wanted).await?;
    Ok(())
}
