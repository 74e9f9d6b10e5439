//! The API against its own description: schemathesis makes requests of it, right ones and wrong ones, and
//! looks at every answer. What it looks at stands in `chaos/schemathesis`.
//!
//! `HAYSTACK_SCHEMA_EXAMPLES=500` looks deeper, `HAYSTACK_TEST_SEED` elsewhere.

use super::{Api, number};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use testkit::Platform;
use tokio::process::{Child, Command};

/// Requests that are made up for an operation, beside those that its description gives.
const EXAMPLES: &str = "10";
const SEED: &str = "1";
/// How long all of it may take. What an answer may take is limited in `schemathesis.toml`.
const LIMIT: Duration = Duration::from_mins(8);
/// Operations that need not have been done here: the stream is followed elsewhere, and letters have another
/// number once they were tried again (`letters.rs`), and replays and jobs are done before they are stopped.
const LEFT_OUT: [&str; 7] = [
    "GET /simulator/activity/stream/{simulator_id}",
    "GET /dead-letter/{number}",
    "DELETE /dead-letter/{number}",
    "POST /dead-letter/{number}/redrive",
    "POST /replay/{replay_id}/stop",
    "POST /replay/{replay_id}/resume",
    "POST /job/{job_id}/stop",
];

/// Things that requests may name, as dictionaries of schemathesis.
async fn things(api: &Api) -> BTreeMap<&'static str, Vec<Value>> {
    let made = async |path: &str, body: Value, field: &str| {
        let made = api.post(path, &body).await;
        assert_eq!(made.status, 201, "{path} {made:?}");
        made.body[field].clone()
    };
    let mut things = BTreeMap::from([
        ("org", vec![json!(1)]),
        ("asset_type", vec![json!("chiller")]),
        ("device_type", vec![json!("temperature-sensor")]),
        ("device", vec![json!("TS-001-2024")]),
        ("tag", vec![json!("site")]),
        ("target", vec![json!("secondary")]),
        ("message", vec![json!("TELEMETRY-1")]),
    ]);
    let mut add = |kind, id| things.entry(kind).or_default().push(id);
    let kind = json!({ "name": "Chiller", "metric_definitions": {} });
    assert_eq!(api.put("/asset_type/1/chiller", &kind).await.status, 200);
    let tag = json!({ "value_kind": "Marker", "doc": "A site" });
    assert_eq!(api.put("/tag_def/1/site", &tag).await.status, 200);
    // Some of each: requests take things away too.
    for at in 0..5 {
        let device = format!("TS-{at}");
        let new = json!({ "org_id": 1, "device_id": device, "device_type": "temperature-sensor" });
        add("device", made("/device", new, "device_id").await);
        let new = json!({ "org_id": 1, "name": "A", "asset_type": "chiller" });
        add("asset", made("/asset", new, "asset_id").await);
        let new = json!({ "name": "U", "issuer": "https://issuer.test", "subject": device });
        let user = made("/user", new, "user_id").await;
        let may = json!({ "user_id": user, "permissions": ["read"] });
        assert_eq!(api.post("/org/1/permission", &may).await.status, 200);
        add("user", user);
        let new = json!({ "org_id": 1, "name": "K", "permissions": ["read"] });
        add("key", made("/key", new, "key_id").await);
        let point = api.point(1, "Number").await;
        let values = [number(point, "2026-01-01T00:00:00Z", 1.0)];
        let stored = api.post("/bulk/value", &json!({ "org_id": 1, "values": values })).await;
        assert_eq!(stored.status, 200, "{stored:?}");
        add("entity", json!(point));
        let new = json!({ "org_id": 1, "poller_type": "bacnet", "poller_name": "P", "config": {} });
        add("poller", made("/poller", new, "poller_id").await);
    }
    for _ in 0..4 {
        let new =
            json!({ "org_id": 1, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z" });
        add("replay", made("/replay", new, "replay_id").await);
    }
    let verify = api.post("/verify", &json!({ "org_id": 1 })).await;
    assert_eq!(verify.status, 202, "{verify:?}");
    add("job", verify.body["job_id"].clone());
    for _ in 0..8 {
        add("letter", json!(api.letter("x").await));
    }
    for name in ["North", "South"] {
        let new = json!({ "org_id": 1, "simulator_name": name, "status": "stopped",
            "building_config": building::DEFAULT, "history_hours": 1 });
        add("simulator", made("/simulator/config", new, "simulator_id").await);
    }
    things
}

/// Somebody who listens, so that what devices are told reaches somebody.
fn listener(platform: &Platform) -> Child {
    Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", &platform.mosquitto.port().to_string()])
        .args(["-q", "1", "-t", "devices/+/commands"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("mosquitto_sub is installed (make setup)")
}

fn schemathesis() -> (PathBuf, PathBuf) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let site = here.join("../.tools/schemathesis/site");
    assert!(
        site.join("schemathesis").is_dir(),
        "schemathesis is not installed: sh chaos/schemathesis/install.sh .tools/schemathesis"
    );
    (here.join("schemathesis"), site)
}

fn setting(name: &str, usual: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| usual.to_owned())
}

/// Runs it; the statuses that each operation answered.
async fn tried(
    api: &Api,
    things: &BTreeMap<&str, Vec<Value>>,
) -> BTreeMap<String, BTreeMap<u64, u32>> {
    let (ours, site) = schemathesis();
    let folder = testkit::folder("schemathesis");
    std::fs::create_dir_all(&folder).unwrap();
    let mut config = std::fs::read_to_string(ours.join("schemathesis.toml")).unwrap();
    config += "\n[dictionaries]\n";
    for (name, values) in things {
        config = format!("{config}{name} = {{ values = {} }}\n", Value::from(values.clone()));
    }
    std::fs::write(folder.join("schemathesis.toml"), config).unwrap();
    let report = folder.join("report.ndjson");
    let running = Command::new("python3")
        .args(["-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run"])
        .args([&api.url("/openapi.json"), "--no-color"])
        .args(["--seed", &setting("HAYSTACK_TEST_SEED", SEED)])
        .args(["--max-examples", &setting("HAYSTACK_SCHEMA_EXAMPLES", EXAMPLES)])
        .arg("--report-ndjson-path")
        .arg(&report)
        .current_dir(&folder)
        .env("PYTHONPATH", site)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", ours.join("hooks.py"))
        .env("HAYSTACK_API_KEY", &api.admin)
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let done = tokio::time::timeout(LIMIT, running).await.expect("it ends in time").unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{}", said.rsplit("SUMMARY").next().unwrap_or_default());
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stderr));
    answered(&std::fs::read_to_string(report).unwrap())
}

/// Reads a report: the statuses that each operation answered.
fn answered(report: &str) -> BTreeMap<String, BTreeMap<u64, u32>> {
    let mut answers: BTreeMap<String, BTreeMap<u64, u32>> = BTreeMap::new();
    for line in report.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let recorder = &event["ScenarioFinished"]["recorder"];
        for (id, case) in recorder["cases"].as_object().into_iter().flatten() {
            let text = |field: &str| case["value"][field].as_str().unwrap_or_default();
            let operation = format!("{} {}", text("method"), text("path"));
            if let Some(status) = recorder["interactions"][id]["response"]["status_code"].as_u64() {
                *answers.entry(operation).or_default().entry(status).or_default() += 1;
            }
        }
    }
    answers
}

#[tokio::test]
async fn every_answer_is_one_that_the_description_names() {
    let platform = Platform::with_simulators("").await;
    let (_ingest, _bridge) = (platform.service("ingest"), platform.service("bridge"));
    let _simulator = platform.service("simulator");
    // Other tests want the processors too: a database that is slow is no fault.
    let patient = ["api.commit_seconds=40", "api.request_seconds=50"];
    let api = Api::start_with(&platform, &patient).await;
    let things = things(&api).await;
    let _listener = listener(&platform);
    let answers = tried(&api, &things).await;
    let document = api.get("/openapi.json").await.body;
    let mut never = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            let operation = format!("{} {path}", method.to_uppercase());
            if item.get(method).is_none() || LEFT_OUT.contains(&operation.as_str()) {
                continue;
            }
            let done = answers.get(&operation).is_some_and(|it| it.keys().any(|it| *it < 300));
            if !done {
                never.insert(operation);
            }
        }
    }
    assert!(never.is_empty(), "these never did what they are for: {never:#?}\n{answers:#?}");
}

#[tokio::test]
async fn what_was_found_once_stays_mended() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    // What is not there is a 404, and no outage and no wrong field.
    let none = api.get("/value?org_id=4711&entity_id=1").await;
    assert_eq!((none.status, none.is_problem()), (404, true), "{none:?}");
    let none = api.delete("/org/1/permission/4711").await;
    assert_eq!((none.status, none.is_problem()), (404, true), "{none:?}");
    // A list is no object, though its items are what the object holds.
    let point = api.point(1, "Number").await;
    let value = json!(["2026-01-01T00:00:00Z", point, 1.0, null, null, null]);
    for (path, body, pointer) in [
        ("/entity", json!([1, "x", {}]), ""),
        ("/bulk/value", json!([1, []]), ""),
        ("/bulk/value", json!({ "org_id": 1, "values": [value] }), "/values/0"),
        ("/simulator/state/1", json!([null, null]), ""),
        ("/simulator/state/1", json!({ "pace": [2.0, null] }), "/pace"),
    ] {
        let refused = api.post(path, &body).await;
        assert_eq!(refused.status, 422, "{path} {body} {refused:?}");
        assert_eq!(refused.body["errors"][0]["pointer"], pointer, "{refused:?}");
    }
    let unnamed =
        api.request(Method::POST, "/bulk/value", &api.admin).header("idempotency-key", "");
    let refused = api.send(unnamed.json(&json!({ "org_id": 1, "values": [] }))).await;
    assert_eq!(refused.status, 422, "{refused:?}");
}

/// A number that can be stored can be read back, as it was: one that could not took every list with it.
#[tokio::test]
async fn numbers_are_read_back_to_the_last_digit() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let numbers = [f64::MAX, -f64::MAX, f64::MIN_POSITIVE, 0.1 + 0.2, 93.241_907_412_051_66, 1e23];
    let tags: BTreeMap<_, _> = (0..).zip(numbers).map(|(at, n)| (format!("n{at}"), n)).collect();
    let body = json!({ "org_id": 1, "name": "numbers", "tags": tags });
    let made = api.post("/entity", &body).await;
    assert_eq!((made.status, &made.body["tags"]), (201, &body["tags"]), "{made:?}");
    let id = made.number("entity_id");
    for path in ["/entity".to_owned(), format!("/entity/{id}"), "/org/1/audit".to_owned()] {
        let shown = api.get(&path).await;
        assert_eq!(shown.status, 200, "{path} {shown:?}");
    }
    assert_eq!(api.get(&format!("/entity/{id}")).await.body["tags"], body["tags"]);
    let values: Vec<_> = (0..).zip(numbers).map(|(at, n)| number(id, &at_second(at), n)).collect();
    let stored = api.post("/bulk/value", &json!({ "org_id": 1, "values": values })).await;
    assert_eq!(stored.status, 200, "{stored:?}");
    let path = format!("/value/{id}?from={}&to={}", at_second(0), at_second(59));
    let read = api.get(&path).await;
    let read: Vec<_> = read.body.as_array().unwrap().iter().map(|row| &row["value_n"]).collect();
    assert_eq!(read, numbers.map(Value::from).iter().collect::<Vec<_>>());
}

fn at_second(second: u32) -> String {
    format!("2026-01-01T00:00:{second:02}Z")
}
