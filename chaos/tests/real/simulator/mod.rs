//! Simulators against the oracle: whatever is killed, frozen, full or away, each interval is in
//! both databases, exactly once, and says what the building says.

mod commands;
mod oracle;
mod outages;
mod restored;

use domain::SimulatorId;
use oracle::Oracle;
use testkit::{Platform, Process, eventually};

/// Where the tests' buildings begin.
const FROM: &str = "2026-01-05T00:00:00Z";

/// Makes a simulator that waits at [`FROM`]; its oracle.
async fn create(platform: &Platform, name: &str, seed: u32) -> Oracle {
    let range = format!("{FROM}..2026-01-06T00:00:00Z");
    let seed = seed.to_string();
    let name = &format!("{name} {seed}");
    let made = platform.succeed(&[
        "simulator",
        "create",
        "--name",
        name,
        "--seed",
        &seed,
        "--backfill",
        &range,
        "--stopped",
    ]);
    let number = made.strip_prefix("made simulator ").and_then(|text| text.split(':').next());
    let id = SimulatorId(number.expect("it says its number").parse().expect("a number"));
    Oracle::new(platform, id).await
}

/// Tells a simulator something until it is taken: a service that was just started may not have
/// found it yet, one that was killed may still be missed.
async fn tell(platform: &Platform, arguments: &[&str]) {
    let arguments = [&["simulator"], arguments].concat();
    eventually(&format!("haystack {arguments:?}"), || async {
        let output = platform.command(&arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(error) }
    })
    .await;
}

/// Starts it towards a moment; `speed` in simulated seconds a second.
async fn start(platform: &Platform, oracle: &Oracle, speed: u32, until: &str) {
    let (id, speed) = (oracle.id.to_string(), speed.to_string());
    tell(platform, &["start", &id, "--speed", &speed, "--until", until]).await;
}

fn services(platform: &Platform) -> [Process; 1] {
    [platform.service("ingest")]
}
