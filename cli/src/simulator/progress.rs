//! How far a simulator is, until it has arrived.

use super::{ask, describe};
use anyhow::Result;
use domain::{
    SimulatorId, Timestamp,
    simulator::{Ask, State, Status},
};
use nats::Wire;
use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

/// How often it is asked.
const EVERY: Duration = Duration::from_millis(250);
/// Longest silence of a simulator.
const PATIENCE: Duration = Duration::from_secs(30);
/// Width of the bar, in characters.
const WIDTH: usize = 30;

/// Shows a bar until the simulator stops, fails or was told to stop.
pub(super) async fn follow(wire: &Wire, id: SimulatorId) -> Result<ExitCode> {
    let terminal = std::io::stderr().is_terminal();
    let mut from: Option<Timestamp> = None;
    let mut answered = Instant::now();
    loop {
        let state = match ask(wire, id, "state", &Ask::State).await {
            Ok(state) => state,
            // Its service was killed: another takes it over, and it goes on.
            Err(_) if answered.elapsed() < PATIENCE => {
                tokio::time::sleep(EVERY).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        answered = Instant::now();
        let at = state.last_run_timestamp.unwrap_or(Timestamp::EPOCH);
        let begin = *from.get_or_insert(at);
        if terminal {
            eprint!("\r{}", bar(&state, begin, at));
            std::io::stderr().flush()?;
        }
        match state.status {
            Status::Stopped => {
                if terminal {
                    eprintln!();
                }
                println!("{}", describe::line(&state));
                return Ok(ExitCode::SUCCESS);
            }
            Status::Error => anyhow::bail!("{}", describe::line(&state)),
            _ => tokio::time::sleep(EVERY).await,
        }
    }
}

fn bar(state: &State, from: Timestamp, at: Timestamp) -> String {
    let Some(until) = state.pace.until.or(state.due) else { return describe::line(state) };
    let whole = (until.micros() - from.micros()).max(1) as f64;
    let share = ((at.micros() - from.micros()) as f64 / whole).clamp(0.0, 1.0);
    let full = (share * WIDTH as f64) as usize;
    let readings = state.counters.get("readings").copied().unwrap_or(0);
    format!(
        "[{}{}] {:3.0} %  {at}  {readings} readings",
        "#".repeat(full),
        " ".repeat(WIDTH - full),
        share * 100.0
    )
}
