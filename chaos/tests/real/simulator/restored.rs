//! A state that does not belong to its stream, or can't be run: restored from a copy, spoiled,
//! robbed of its entities. Nothing is made of it, and a person has a way out.

use super::{FROM, commands::stopped_at, create, oracle::moment, tell};
use sqlx::PgConnection;
use testkit::{Platform, Process, eventually};

const SIX: &str = "2026-01-05T06:00:00Z";
const NOON: &str = "2026-01-05T12:00:00Z";
const EVENING: &str = "2026-01-05T18:00:00Z";

async fn admin(platform: &Platform) -> PgConnection {
    let state = platform.state.as_ref().unwrap();
    testkit::platform::connect(&state.superuser()).await.unwrap()
}

async fn run(admin: &mut PgConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(admin).await.unwrap();
}

/// Runs it up to a moment and waits until it stands there.
async fn run_to(platform: &Platform, id: &str, until: &str) {
    tell(platform, &["start", id, "--until", until]).await;
    stopped_at(platform, id, until).await;
}

async fn says(platform: &Platform, id: &str, part: &str) {
    eventually(&format!("simulator {id} to say {part:?}"), || async {
        let output = platform.command(&["simulator", "health", id]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.contains(part) { Ok(()) } else { Err(text) }
    })
    .await;
}

fn refused(platform: &Platform, arguments: &[&str], part: &str) {
    let output = platform.command(&[&["simulator"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains(part), "{arguments:?}: {error}");
}

/// Restores the state of a moment at which another description was to follow.
async fn restored(platform: &Platform, id: &str, simulator: &mut Process) -> Process {
    let mut admin = admin(platform).await;
    run_to(platform, id, SIX).await;
    run(&mut admin, "create table public.kept as select * from core.simulator_state").await;
    let file = platform.config().with_file_name("building.yaml");
    std::fs::write(&file, building::DEFAULT).unwrap();
    // There and back again: the last description is the first.
    for (seed, until) in [("7", NOON), ("1", EVENING)] {
        tell(platform, &["configure", id, file.to_str().unwrap(), "--seed", seed]).await;
        run_to(platform, id, until).await;
    }
    simulator.kill9().await;
    let restore = "update core.simulator_state s set memory = k.memory, config = k.config, \
        lineage = k.lineage, last_run_timestamp = k.last_run_timestamp, changed = k.changed \
        from public.kept k where s.simulator_id = k.simulator_id";
    run(&mut admin, restore).await;
    platform.service("simulator")
}

#[tokio::test]
async fn an_old_state_makes_nothing_until_it_is_reset() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let id = oracle.id.to_string();
    let mut simulator = platform.service("simulator");
    let _simulator = restored(&platform, &id, &mut simulator).await;
    says(&platform, &id, "put back to an older state").await;
    let before = oracle.published().await.len();
    refused(&platform, &["start", &id], "can't be told to start");
    // Stopping it is no way round.
    tell(&platform, &["stop", &id]).await;
    refused(&platform, &["start", &id], "can't be told to start");
    let file = platform.config().with_file_name("building.yaml");
    tell(&platform, &["configure", &id, file.to_str().unwrap(), "--seed", "3"]).await;
    refused(&platform, &["start", &id], "can't be told to start");
    let from = ["reset", &id, "--scope", "data", "--from", FROM, "--confirm"];
    refused(&platform, &from, "its past is not known");
    assert_eq!(oracle.published().await.len(), before, "nothing was made");
    tell(&platform, &["reset", &id, "--scope", "data", "--confirm"]).await;
    run_to(&platform, &id, SIX).await;
}

#[tokio::test]
async fn a_state_that_can_not_be_read_can_be_begun_anew() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let id = oracle.id.to_string();
    let mut simulator = platform.service("simulator");
    run_to(&platform, &id, SIX).await;
    simulator.kill9().await;
    let mut admin = admin(&platform).await;
    run(&mut admin, "update core.simulator_state set memory = 'nonsense'").await;
    let _simulator = platform.service("simulator");
    says(&platform, &id, "its memory can't be read").await;
    refused(&platform, &["start", &id], "`reset` begins anew");
    tell(&platform, &["reset", &id, "--scope", "state", "--confirm"]).await;
    run_to(&platform, &id, NOON).await;
    let points = oracle.expected(moment("2026-01-05T00:15:00Z")).len();
    assert_eq!(oracle.published().await.len(), points * 12 * 4, "each interval once");
}

/// A message that is not ours on the simulator's own subject.
#[tokio::test]
async fn a_strangers_message_in_the_chain_stops_it() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let id = oracle.id.to_string();
    let mut simulator = platform.service("simulator");
    run_to(&platform, &id, SIX).await;
    simulator.stop().await;
    oracle.stranger().await;
    let _simulator = platform.service("simulator");
    says(&platform, &id, "somebody else has written").await;
    refused(&platform, &["start", &id], "can't be told to start");
    tell(&platform, &["reset", &id, "--scope", "state", "--confirm"]).await;
    run_to(&platform, &id, NOON).await;
}

#[tokio::test]
async fn one_that_is_removed_is_run_by_nobody() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let id = oracle.id.to_string();
    let _simulator = platform.service("simulator");
    tell(&platform, &["state", &id]).await;
    refused(&platform, &["create", "--name", "a 1"], "simulator 1 of org demo is called");
    refused(&platform, &["create", "--name", " "], "1 to 100 characters");
    platform.succeed(&["simulator", "remove", &id]);
    assert!(platform.succeed(&["simulator", "remove", &id]).contains("it was so"));
    eventually("nobody to run it", || async {
        let output = platform.command(&["simulator", "state", &id]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if error.contains("no service answers") { Ok(()) } else { Err(error) }
    })
    .await;
    assert!(platform.succeed(&["simulator", "list"]).contains("no simulators"));
}
