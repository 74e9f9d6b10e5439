//! What simulators are told, and what they answer.

use super::{
    FROM, create,
    oracle::{moment, same},
    services, start, tell,
};
use testkit::{Platform, eventually};

const NOON: &str = "2026-01-05T12:00:00Z";

#[tokio::test]
async fn what_a_status_forbids_is_refused_and_a_repeated_order_changes_nothing() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let id = oracle.id.to_string();
    let refused = |arguments: &[&str], part: &str| {
        let output = platform.command(&[&["simulator"], arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(part), "{error}");
    };
    refused(&["state", &id], "no service answers");
    refused(&["state", "99"], "there is no simulator 99");
    let _simulator = platform.service("simulator");
    // The pace of one day in a minute and a half: it is running while it is told things.
    start(&platform, &oracle, 1_000, "2026-01-06T00:00:00Z").await;
    tell(&platform, &["start", &id]).await;
    refused(&["start", &id, "--speed", "7"], "another pace");
    refused(&["reset", &id, "--scope", "state", "--confirm"], "can't be told to reset");
    tell(&platform, &["stop", &id]).await;
    tell(&platform, &["stop", &id]).await;
    refused(&["reset", &id, "--scope", "state"], "confirm");
    refused(&["start", &id, "--speed", "0.5"], "speed");
    let late = "2027-01-01T00:00:00Z";
    refused(&["reset", &id, "--scope", "data", "--from", late, "--confirm"], "where it stopped");
    assert!(oracle.micro_services().await.contains("simulator.1.configure"));
    assert!(oracle.events().await > 0, "who looks on is told");
    let log = platform.succeed(&["simulator", "activity", &id]);
    for (what, times) in [("startup", 1), ("  start ", 1), ("  stop ", 1)] {
        assert_eq!(log.matches(what).count(), times, "{log}");
    }
}

#[tokio::test]
async fn reset_data_leaves_nothing_old_though_a_target_was_away() {
    let platform = Platform::with_simulators("").await;
    let ingest = services(&platform);
    let oracle = create(&platform, "a", 1).await;
    let _simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    tell(&platform, &["start", &id, "--until", NOON]).await;
    oracle.arrives(&platform, NOON).await;
    // More of the old run reaches one target, and waits for the other.
    platform.secondary_cluster.stop().await;
    let later = "2026-01-05T18:00:00Z";
    tell(&platform, &["start", &id, "--until", later]).await;
    stopped_at(&platform, &id, later).await;
    tell(&platform, &["reset", &id, "--scope", "data", "--confirm"]).await;
    // Another seed from here on: what is old can be told from what is new.
    let building = platform.config().with_file_name("building.yaml");
    std::fs::write(&building, building::DEFAULT).unwrap();
    tell(&platform, &["configure", &id, building.to_str().unwrap(), "--seed", "99"]).await;
    configured(&platform, &id, "\"seed\": 99").await;
    // The building was begun with the old seed: begun anew, it is all of the new one.
    tell(&platform, &["reset", &id, "--scope", "state", "--confirm"]).await;
    let until = "2026-01-05T06:00:00Z";
    tell(&platform, &["start", &id, "--until", until]).await;
    stopped_at(&platform, &id, until).await;
    platform.secondary_cluster.launch().await;
    let new = super::Oracle::new(&platform, oracle.id).await;
    assert_eq!(new.config.seed, 99);
    let expected = new.expected(moment(until));
    for database in [&platform.primary, &platform.secondary] {
        eventually("nothing but the new run", || async {
            same(&new.stored(database).await?, &expected)
        })
        .await;
    }
    platform.succeed(&["verify"]);
    platform.balances().await;
    drop(ingest);
}

#[tokio::test]
async fn reset_from_a_moment_keeps_what_is_older() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 1).await;
    let _simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    let later = "2026-01-05T18:00:00Z";
    tell(&platform, &["start", &id, "--until", later]).await;
    oracle.arrives(&platform, later).await;
    tell(&platform, &["reset", &id, "--scope", "data", "--from", NOON, "--confirm"]).await;
    let kept = oracle.expected(moment(NOON));
    for database in [&platform.primary, &platform.secondary] {
        eventually("what is older to be left", || async {
            same(&oracle.stored(database).await?, &kept)
        })
        .await;
    }
    // It goes on with the building as it was then: the same readings, meters and all.
    let end = "2026-01-05T20:00:00Z";
    tell(&platform, &["start", &id, "--until", end]).await;
    let expected = oracle.expected(moment(end));
    for database in [&platform.primary, &platform.secondary] {
        eventually("what it makes again to be the same", || async {
            same(&oracle.stored(database).await?, &expected)
        })
        .await;
    }
    let early = "2026-01-04T00:00:00Z";
    assert!(early < FROM);
    let arguments = ["simulator", "reset", &id, "--scope", "data", "--from", early, "--confirm"];
    let refused = platform.command(&arguments);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("where it began"), "{refused:?}");
}

/// The default building, reporting every hour.
fn hourly(platform: &Platform) -> String {
    let file = platform.config().with_file_name("hourly.yaml");
    let text = building::DEFAULT.replace("interval_minutes: 15", "interval_minutes: 60");
    assert_ne!(text, building::DEFAULT);
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_new_description_is_not_forgotten_by_who_takes_over() {
    let platform = Platform::with_simulators("").await;
    let _ingest = services(&platform);
    let oracle = create(&platform, "a", 1).await;
    let mut simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    // Not a moment that both descriptions have: the new one has to wait for the next full hour.
    let quarter = "2026-01-05T06:15:00Z";
    tell(&platform, &["start", &id, "--until", quarter]).await;
    stopped_at(&platform, &id, quarter).await;
    tell(&platform, &["configure", &id, &hourly(&platform)]).await;
    simulator.kill9().await;
    let _simulator = platform.service("simulator");
    tell(&platform, &["start", &id, "--until", NOON]).await;
    stopped_at(&platform, &id, NOON).await;
    configured(&platform, &id, "\"interval_minutes\": 60").await;
    let points = oracle.expected(moment("2026-01-05T00:15:00Z")).len();
    // Seven hours by the quarter, five by the hour.
    assert_eq!(oracle.published().await.len(), points * (7 * 4 + 5));
}

#[tokio::test]
async fn a_reset_that_can_not_be_saved_is_not_followed_by_another() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let mut simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    tell(&platform, &["start", &id, "--until", NOON]).await;
    stopped_at(&platform, &id, NOON).await;
    let state = platform.state.as_ref().unwrap();
    let mut admin = testkit::platform::connect(&state.superuser()).await.unwrap();
    sqlx::raw_sql("revoke update on core.simulator_state from haystack_simulator")
        .execute(&mut admin)
        .await
        .unwrap();
    let reset = ["simulator", "reset", &id, "--scope", "state", "--confirm"];
    platform.command(&reset);
    let again = platform.command(&reset);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    simulator.kill9().await;
    sqlx::raw_sql("grant update on core.simulator_state to haystack_simulator")
        .execute(&mut admin)
        .await
        .unwrap();
    let _simulator = platform.service("simulator");
    tell(&platform, &["state", &id]).await;
    stopped_at(&platform, &id, NOON).await;
    let log = platform.succeed(&["simulator", "activity", &id]);
    assert_eq!(log.matches("run 2 begins").count(), 1, "{log}");
}

pub(super) async fn stopped_at(platform: &Platform, id: &str, at: &str) {
    eventually(&format!("simulator {id} to stop at {at}"), || async {
        let state = platform.succeed(&["simulator", "state", id]);
        let there = state.contains("\"stopped\"") && state.contains(at);
        if there { Ok(()) } else { Err(state) }
    })
    .await;
}

async fn configured(platform: &Platform, id: &str, part: &str) {
    eventually("the new configuration to be taken over", || async {
        let state = platform.succeed(&["simulator", "state", id]);
        if state.contains(part) { Ok(()) } else { Err(state) }
    })
    .await;
}

#[tokio::test]
async fn an_order_that_can_not_be_saved_is_refused_and_leaves_no_trace() {
    let platform = Platform::with_simulators("").await;
    let oracle = create(&platform, "a", 1).await;
    let _simulator = platform.service("simulator");
    let id = oracle.id.to_string();
    tell(&platform, &["state", &id]).await;
    stopped_at(&platform, &id, FROM).await;
    // Its own takeover is saved before: from here on only the order is refused.
    eventually("the takeover to be saved", || async {
        let log = platform.succeed(&["simulator", "activity", &id]);
        if log.contains("startup") { Ok(()) } else { Err(log) }
    })
    .await;
    let state = platform.state.as_ref().unwrap();
    let mut admin = testkit::platform::connect(&state.superuser()).await.unwrap();
    sqlx::raw_sql("revoke update on core.simulator_state from haystack_simulator")
        .execute(&mut admin)
        .await
        .unwrap();
    let refused = platform.command(&["simulator", "start", &id, "--until", NOON]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("state database"), "{refused:?}");
    sqlx::raw_sql("grant update on core.simulator_state to haystack_simulator")
        .execute(&mut admin)
        .await
        .unwrap();
    tell(&platform, &["start", &id, "--until", NOON]).await;
    stopped_at(&platform, &id, NOON).await;
    let log = platform.succeed(&["simulator", "activity", &id]);
    assert_eq!(log.matches("goes on from").count(), 1, "{log}");
}
