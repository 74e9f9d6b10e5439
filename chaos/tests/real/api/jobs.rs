//! Long work that is asked for over HTTP: comparing, repairing, settling, filling; and who may ask for it.

use super::{Answer, Api};
use domain::failpoint;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{
    Database, Failpoint, Platform, eventually,
    judge::{Numbered, payload},
    platform::change,
};

const SENT: u32 = 500;

async fn run(database: &Database, sql: &str) {
    change(&database.superuser(), sql).await;
}

/// Begins a job; its number.
async fn begin(api: &Api, path: &str, body: &Value) -> i32 {
    let begun = api.post(path, body).await;
    assert_eq!((begun.status, &begun.body["status"]), (202, &"waiting".into()), "{begun:?}");
    begun.number("job_id")
}

/// A job that is over.
pub async fn over(api: &Api, job: i32) -> Answer {
    eventually("the job is over", || async {
        let shown = api.get(&format!("/job/{job}")).await;
        assert_eq!(shown.status, 200, "{shown:?}");
        let open = ["running", "waiting"].contains(&shown.body["status"].as_str().unwrap());
        if open { Err(format!("{shown:?}")) } else { Ok(shown) }
    })
    .await
}

async fn done(api: &Api, path: &str, body: &Value) -> Value {
    let told = over(api, begin(api, path, body).await).await;
    assert_eq!(told.body["status"], "done", "{told:?}");
    told.body["result"].clone()
}

/// A platform with readings of one device in both targets.
async fn filled(platform: &Platform, device: &str) -> i32 {
    let (_, entity) = platform.add_device(device);
    platform.publish(&format!("devices/{device}/telemetry"), (0..SENT).map(payload)).await;
    let readings = Numbered { device: device.to_owned(), entity, sent: SENT };
    for database in [&platform.primary, &platform.secondary] {
        readings.arrives(database, "demo").await;
    }
    entity
}

#[tokio::test]
async fn targets_are_repaired_settled_and_filled_by_the_api() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let api = Api::start(&platform).await;
    let entity = filled(&platform, "JOB-1").await;
    let (table, own) = ("core.values_demo", format!("entity_id = {entity}"));
    assert_eq!(done(&api, "/verify", &json!({})).await["equal"], true);

    // What differs is told, and left as it is.
    run(&platform.secondary, &format!("delete from {table} where {own} and value_n = 20")).await;
    run(
        &platform.primary,
        &format!("update {table} set value_n = -1 where {own} and value_n = 30"),
    )
    .await;
    let verdict = done(&api, "/verify", &json!({ "org_id": 1 })).await;
    assert_eq!((&verdict["equal"], &verdict["repaired"]), (&false.into(), &Value::Null));
    let verdict = done(&api, "/verify", &json!({ "org_id": 1, "repair": true })).await;
    assert_eq!(verdict["equal"], true, "{verdict}");
    assert_eq!(verdict["repaired"][0]["rows"], json!({ "primary": 1, "secondary": 1 }));
    assert!(platform.succeed(&["verify"]).contains("equal"));

    // What was lost in both, and is said to be right.
    for database in [&platform.primary, &platform.secondary] {
        run(database, &format!("delete from {table} where {own} and value_n = 40")).await;
    }
    assert!(!platform.command(&["ledger", "--rows"]).status.success());
    let ledger = done(&api, "/ledger/settle", &Value::Null).await;
    assert_eq!(ledger["balanced"], true, "{ledger}");
    platform.balances().await;

    // A target that lost what the other has.
    run(&platform.secondary, &format!("delete from {table} where {own} and value_n < 10")).await;
    let filled = done(&api, "/target/secondary/backfill", &json!({ "from": "primary" })).await;
    assert_eq!(filled["orgs"][0]["written"], 10, "{filled}");

    let wrong = api.post("/target/secondary/backfill", &json!({ "from": "secondary" })).await;
    assert_eq!((wrong.status, wrong.is_problem()), (422, true), "{wrong:?}");
    let wrong = api.post("/target/third/backfill", &json!({ "from": "primary" })).await;
    assert_eq!((wrong.status, wrong.is_problem()), (404, true), "{wrong:?}");
    let wrong = api.post("/verify", &json!({ "prune": true })).await;
    assert_eq!((wrong.status, wrong.is_problem()), (422, true), "{wrong:?}");

    // The org's admin sees what concerns the org alone; who may only read begins nothing.
    let listed = api.get("/job").await;
    let whats: Vec<&str> =
        listed.body.as_array().unwrap().iter().map(|job| job["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["backfill", "settle", "repair", "verify", "verify"]);
    let (admin, reader) = (api.key(1, &["admin"]).await, api.key(1, &["read"]).await);
    let seen = api.send(api.request(Method::GET, "/job", &admin)).await;
    assert_eq!(seen.body.as_array().unwrap().len(), 2, "{seen:?}");
    let seen = api.send(api.request(Method::GET, "/job", &reader)).await;
    assert_eq!(seen.body, json!([]), "{seen:?}");
    let asked = api.request(Method::POST, "/verify", &reader).json(&json!({ "org_id": 1 }));
    assert_eq!(api.send(asked).await.status, 403);
    let asked = api.request(Method::POST, "/ledger/settle", &admin);
    assert_eq!(api.send(asked).await.status, 403);
    let told = platform.succeed(&["job", "list"]);
    assert!(told.contains("repair") && told.contains("backfill"), "{told}");
    let job = listed.body[2]["job_id"].to_string();
    assert!(platform.succeed(&["job", "show", &job]).contains("\"equal\": true"));
    assert!(platform.fail(&["job", "stop", &job]).contains("is over"));
    assert_eq!(api.post(&format!("/job/{job}/stop"), &Value::Null).await.status, 409);
}

/// Done, and killed before anybody knew: done again by another service, which changes nothing.
#[tokio::test]
async fn a_job_of_a_service_that_died_is_done_by_another() {
    let platform = Platform::start("").await;
    let _bridge = platform.service("bridge");
    let ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let entity = filled(&platform, "JOB-2").await;
    drop(ingest);
    let failpoint = Failpoint { name: failpoint::BEFORE_JOB_DONE, passes: 0 };
    let mut doomed = platform.doomed("ingest", failpoint);
    let change =
        format!("delete from core.values_demo where entity_id = {entity} and value_n = 20");
    run(&platform.secondary, &change).await;
    let job = begin(&api, "/verify", &json!({ "repair": true })).await;
    doomed.died_at(failpoint).await;
    let left = api.get(&format!("/job/{job}")).await;
    assert_eq!(left.body["status"], "running", "{left:?}");
    let _ingest = platform.service("ingest");
    let told = over(&api, job).await;
    assert_eq!(
        (&told.body["status"], &told.body["result"]["equal"]),
        (&"done".into(), &true.into())
    );
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}

/// A database that hangs: the job says that it is running, and can be stopped; the next one is done.
#[tokio::test]
async fn a_job_that_hangs_can_be_stopped() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let api = Api::start(&platform).await;
    filled(&platform, "JOB-3").await;
    platform.secondary_cluster.freeze();
    let job = begin(&api, "/verify", &json!({})).await;
    eventually("somebody works on it", || async {
        let shown = platform.succeed(&["job", "show", &job.to_string()]);
        if shown.contains("state      running") { Ok(()) } else { Err(shown) }
    })
    .await;
    let stopped = api.post(&format!("/job/{job}/stop"), &Value::Null).await;
    assert_eq!((stopped.status, &stopped.body["status"]), (200, &"stopped".into()), "{stopped:?}");
    platform.secondary_cluster.thaw();
    assert_eq!(done(&api, "/verify", &json!({})).await["equal"], true);
    assert_eq!(api.get(&format!("/job/{job}")).await.body["status"], "stopped");
}

/// Repairs that are killed between two pieces count each row once, whether it was lost, or had never been given.
#[tokio::test]
async fn a_repair_that_is_killed_leaves_the_ledger_right() {
    let platform = Platform::start("").await;
    let _bridge = platform.service("bridge");
    let mut ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let entity = filled(&platform, "JOB-4").await;
    platform.balances().await;
    let delete = |rows: &str| {
        format!("delete from core.values_demo where entity_id = {entity} and value_n {rows}")
    };
    // Never given to the secondary, as far as its ledger knows.
    run(&platform.secondary, &delete("< 100")).await;
    platform.succeed(&["ledger", "--rows", "--settle"]);
    // Lost by the secondary, and by both.
    run(&platform.secondary, &delete("between 100 and 149")).await;
    for database in [&platform.primary, &platform.secondary] {
        run(database, &delete(">= 400")).await;
    }
    ingest.stop().await;
    let job = begin(&api, "/verify", &json!({ "repair": true })).await;
    // After the secondary's rows, then after those that the primary has lost, too.
    for _ in 0..2 {
        let failpoint = Failpoint { name: failpoint::AFTER_MENDED, passes: 0 };
        platform.doomed("ingest", failpoint).died_at(failpoint).await;
    }
    let _ingest = platform.service("ingest");
    let told = over(&api, job).await;
    assert_eq!(
        (&told.body["status"], &told.body["result"]["equal"]),
        (&"done".into(), &true.into())
    );
    let lost = told.body["result"]["lost"].as_array().cloned().unwrap_or_default();
    assert!(lost.iter().all(|lost| lost["missing"] == 0), "{told:?}");
    platform.balances().await;
    let readings = Numbered { device: "JOB-4".to_owned(), entity, sent: SENT };
    for database in [&platform.primary, &platform.secondary] {
        readings.arrives(database, "demo").await;
    }
}

/// An org can't take all the room, nor read by a preview what it may not read; what is detached is not filled.
#[tokio::test]
async fn jobs_of_one_org_leave_room_for_others() {
    let platform = Platform::start("").await;
    let mut ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let (both, model) = (api.key(1, &["model", "read"]).await, api.key(1, &["model"]).await);
    let other = api.org("other").await;
    let admin = api.key(other, &["admin"]).await;
    // Nobody works on them.
    ingest.stop().await;
    let span = json!({ "org_id": 1, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z" });
    let ask = async |key: &str, path: &str, body: &Value| {
        api.send(api.request(Method::POST, path, key).json(body)).await.status
    };
    assert_eq!(ask(&model, "/replay/preview", &span).await, 403);
    for _ in 0..4 {
        assert_eq!(ask(&both, "/replay/preview", &span).await, 202);
    }
    let more = (0..8).map(|_| ask(&both, "/replay/preview", &span));
    assert_eq!(futures_util::future::join_all(more).await, [409; 8]);
    assert_eq!(ask(&admin, "/verify", &json!({ "org_id": other })).await, 202);
    assert_eq!(ask(&api.admin, "/verify", &json!({})).await, 202);
    let listed = api.send(api.request(Method::GET, "/job", &both)).await.body;
    let open = listed.as_array().unwrap().iter().filter(|job| job["status"] == "waiting").count();
    assert_eq!(open, 4, "{listed}");

    assert_eq!(api.post("/target/secondary/detach", &Value::Null).await.status, 200);
    let refused = api.post("/target/secondary/backfill", &json!({ "from": "primary" })).await;
    assert_eq!((refused.status, refused.is_problem()), (409, true), "{refused:?}");
    let refused = platform.fail(&["targets", "backfill", "secondary", "--from", "primary"]);
    assert!(refused.contains("or it is detached"), "{refused}");
}
