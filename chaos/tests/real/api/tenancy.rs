//! Tenants are apart, on every route that the API's own description names: one that is new and not looked
//! at here fails the test.

use super::{Answer, Api, number};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::Row;
use std::collections::BTreeSet;
use testkit::{Database, Platform};

/// What must never be seen from elsewhere.
const SECRET: &str = "SECRET-OF-DEMO";

/// How a route is tried from another org.
enum Try {
    /// Its path is of a thing of the org `demo`, or its body names that org.
    Theirs(Value),
    /// A list: it is allowed, and nothing of theirs is in it.
    List,
    /// Nothing of any org.
    Own,
}

/// Things of the org `demo`, and the paths under which they stand.
struct Things {
    entity: i32,
    asset: i32,
    simulator: i32,
    key: String,
    user: i32,
    letter: i64,
    replay: i32,
    job: i32,
}

impl Things {
    fn fill(&self, path: &str) -> String {
        path.replace("{entity_id}", &self.entity.to_string())
            .replace("{asset_id}", &self.asset.to_string())
            .replace("{simulator_id}", &self.simulator.to_string())
            .replace("{poller_id}", &self.simulator.to_string())
            .replace("{key_id}", &self.key)
            .replace("{number}", &self.letter.to_string())
            .replace("{replay_id}", &self.replay.to_string())
            .replace("{job_id}", &self.job.to_string())
            .replace("{user_id}", &self.user.to_string())
            .replace("{org_id}", "1")
            .replace("{target}", "secondary")
            .replace("{name}", "secret")
            .replace("{asset_type}", "chiller")
            .replace("{device_type}", "temperature-sensor")
            .replace("{device_id}", "TS-001-2024")
    }

    /// How each route is tried; none: it was forgotten.
    fn attempt(&self, method: &str, path: &str) -> Option<Try> {
        let theirs = |body| Some(Try::Theirs(body));
        let (name, text) = (json!({ "name": SECRET }), json!({ "name": "x", "tags": {} }));
        let value = number(self.entity, "2026-01-01T00:00:00Z", 1.0);
        match (method, path) {
            ("GET", "/me") => Some(Try::Own),
            ("POST", "/org") => theirs(json!({ "org_key": "taken" })),
            ("POST", "/user") => {
                theirs(json!({ "name": "x", "issuer": "https://x.test", "subject": "x" }))
            }
            (
                "GET",
                "/org" | "/user" | "/key" | "/entity" | "/tag_def" | "/device" | "/device_type"
                | "/asset" | "/asset_type" | "/poller" | "/simulator/config" | "/replay" | "/job",
            ) => Some(Try::List),
            (
                "GET",
                "/value" | "/dead-letter" | "/gap" | "/trace" | "/target" | "/ledger" | "/verify",
            )
            | ("POST", "/ledger/settle") => theirs(json!(null)),
            ("POST", "/replay" | "/replay/preview") => theirs(json!({ "org_id": 1,
                "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:01Z" })),
            ("POST", "/verify") => theirs(json!({ "org_id": 1, "repair": true, "prune": true })),
            ("POST", "/target/{target}/backfill") => {
                theirs(json!({ "from": "primary", "org_id": 1 }))
            }
            ("POST", "/dead-letter/redrive") => theirs(json!({ "org_id": 1 })),
            ("POST", "/bulk/value") => theirs(json!({ "org_id": 1, "values": [value] })),
            ("POST", "/api/v1/telemetry") => theirs(json!({ "temperature": 1 })),
            ("POST", "/entity") => theirs(json!({ "org_id": 1, "name": "x" })),
            ("POST", "/key") => {
                theirs(json!({ "org_id": 1, "name": "x", "permissions": ["read"] }))
            }
            ("POST", "/asset") => {
                theirs(json!({ "org_id": 1, "name": "x", "asset_type": "chiller" }))
            }
            ("POST", "/device") => theirs(
                json!({ "org_id": 1, "device_id": "X-1", "device_type": "temperature-sensor" }),
            ),
            ("POST", "/poller") => theirs(json!({ "org_id": 1, "poller_type": "bacnet",
                "poller_name": "x", "config": {} })),
            ("POST", "/simulator/config") => theirs(json!({ "org_id": 1, "simulator_name": "x",
                "building_config": "site: { name: x }" })),
            ("PUT", "/simulator/config/{simulator_id}") => theirs(json!({ "simulator_name": "x" })),
            ("POST", "/simulator/reset/{simulator_id}") => {
                theirs(json!({ "scope": "data", "confirm": true }))
            }
            ("POST", "/simulator/activity/{simulator_id}") => {
                theirs(json!({ "event_type": "config", "message": "x" }))
            }
            ("POST", "/org/{org_id}/permission") => {
                theirs(json!({ "user_id": self.user, "permissions": ["read"] }))
            }
            ("PUT", "/entity/{entity_id}") => theirs(text),
            ("PUT", "/tag_def/{org_id}/{name}") => {
                theirs(json!({ "value_kind": "Str", "doc": "x" }))
            }
            ("PUT", "/asset/{asset_id}") => {
                theirs(json!({ "name": "x", "asset_type": "chiller", "devices": [], "tags": {} }))
            }
            ("PUT", "/asset_type/{org_id}/{asset_type}") => {
                theirs(json!({ "name": "x", "metric_definitions": {} }))
            }
            ("PUT", "/device_type/{org_id}/{device_type}") => theirs(json!({
                "device_type": "temperature-sensor", "processing_mode": "endpoint",
                "protocol_adapter": "json", "metrics": {} })),
            ("PATCH", "/user/{user_id}") => theirs(name),
            ("PATCH", "/poller/{poller_id}") => theirs(json!({ "poller_name": "x" })),
            ("GET" | "DELETE" | "POST", path) if path.contains('{') => theirs(json!({})),
            _ => None,
        }
    }
}

async fn things(api: &Api) -> Things {
    let made = |answer: Answer| {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        answer
    };
    let tags = json!({ "note": SECRET });
    let entity =
        made(api.post("/entity", &json!({ "org_id": 1, "name": SECRET, "tags": tags })).await);
    made(api.put("/tag_def/1/secret", &json!({ "value_kind": "Str", "doc": SECRET })).await);
    let kind = json!({ "name": SECRET, "metric_definitions": {} });
    made(api.put("/asset_type/1/chiller", &kind).await);
    let asset = json!({ "org_id": 1, "name": SECRET, "asset_type": "chiller" });
    let asset = made(api.post("/asset", &asset).await);
    let user = json!({ "name": SECRET, "issuer": "https://issuer.test", "subject": SECRET });
    let user = made(api.post("/user", &user).await);
    let grant = json!({ "user_id": user.number("user_id"), "permissions": ["read"] });
    made(api.post("/org/1/permission", &grant).await);
    let key = json!({ "org_id": 1, "name": SECRET, "permissions": ["read"] });
    let key = made(api.post("/key", &key).await);
    let values = [number(entity.number("entity_id"), "2026-01-01T00:00:00Z", 1.0)];
    made(api.post("/bulk/value", &json!({ "org_id": 1, "values": values })).await);
    let letter = api.letter(SECRET).await;
    let replay =
        json!({ "org_id": 1, "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z" });
    let replay = made(api.post("/replay", &replay).await);
    let job = api.post("/verify", &json!({ "org_id": 1 })).await;
    assert_eq!(job.status, 202, "{job:?}");
    let pollers = made(api.get("/poller?type=simulator").await);
    Things {
        entity: entity.number("entity_id"),
        asset: asset.number("asset_id"),
        simulator: pollers.body[0]["poller_id"].as_i64().unwrap() as i32,
        key: key.body["key_id"].as_str().unwrap().to_owned(),
        user: user.number("user_id"),
        letter,
        replay: replay.number("replay_id"),
        job: job.number("job_id"),
    }
}

async fn last_change(database: &Database) -> i64 {
    let mut connection = testkit::platform::connect(&database.owner()).await.unwrap();
    let asked = sqlx::query_scalar("select sequence from core.model_position");
    asked.fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn another_orgs_caller_sees_and_changes_nothing_on_any_route() {
    let platform = Platform::with_simulators("").await;
    platform.succeed(&["simulator", "create", "--name", SECRET, "--history-hours", "1"]);
    let (_ingest, _bridge) = (platform.service("ingest"), platform.service("bridge"));
    let _simulator = platform.service("simulator");
    let api = Api::start(&platform).await;
    let things = things(&api).await;
    let other = api.org("other").await;
    let all = ["read", "write", "model", "control", "telemetry", "admin"];
    let stranger = api.key(other, &all).await;
    let before = last_change(&platform.primary).await;
    let document: Value =
        serde_json::from_slice(&platform.command(&["control-api", "--openapi"]).stdout).unwrap();
    let open = BTreeSet::from(["/healthz", "/readyz", "/metrics"]);
    let mut tried = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if item.get(method).is_none() {
                continue;
            }
            let name = method.to_uppercase();
            let verb = Method::from_bytes(name.as_bytes()).unwrap();
            let mut filled = things.fill(path);
            if open.contains(path.as_str()) {
                assert_eq!(api.send(api.request(verb, &filled, "")).await.status, 200);
                continue;
            }
            match path.as_str() {
                "/dead-letter/{number}" => filled += "?reason=x",
                "/dead-letter" | "/gap" | "/verify" => filled += "?org_id=1",
                "/trace" => filled += "?message_id=TELEMETRY-1",
                "/trace/{entity_id}" => filled += "?at=2026-01-01T00:00:00Z",
                "/value" => filled = format!("{filled}?org_id=1&entity_id={}", things.entity),
                "/api/v1/telemetry" => filled += "?device_id=TS-001-2024",
                _ => {}
            }
            let attempt = things.attempt(&name, path);
            let attempt = attempt.unwrap_or_else(|| panic!("{name} {path} is not looked at here"));
            let body = if let Try::Theirs(body) = &attempt { body.clone() } else { Value::Null };
            let send = |key: &str| {
                let request = api.request(verb.clone(), &filled, key);
                api.send(if verb == Method::GET { request } else { request.json(&body) })
            };
            let anonymous = send("").await;
            assert_eq!(anonymous.status, 401, "{name} {path} {anonymous:?}");
            let answer = send(&stranger).await;
            let shown = answer.body.to_string();
            assert!(!shown.contains(SECRET), "{name} {path} {answer:?}");
            match attempt {
                Try::Own => assert_eq!(answer.status, 200, "{name} {path} {answer:?}"),
                Try::List => {
                    assert_eq!(answer.status, 200, "{name} {path} {answer:?}");
                    assert!(!shown.contains("demo") && !shown.contains("TS-001"), "{answer:?}");
                }
                Try::Theirs(_) => {
                    let refused = [403, 404].contains(&answer.status);
                    assert!(refused && answer.is_problem(), "{name} {path} {answer:?}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
    assert_eq!(last_change(&platform.primary).await, before, "something was changed");
}

#[tokio::test]
async fn the_apis_role_sees_the_rows_of_its_callers_orgs_and_no_others() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let other = api.org("other").await;
    let (mine, theirs) = (api.point(other, "Number").await, api.point(1, "Number").await);
    for (org, point) in [(other, mine), (1, theirs)] {
        let values = [number(point, "2026-01-01T00:00:00Z", 1.0)];
        let stored = api.post("/bulk/value", &json!({ "org_id": org, "values": values })).await;
        assert_eq!(stored.status, 200, "{stored:?}");
        assert_eq!(
            api.put(&format!("/tag_def/{org}/x"), &json!({ "value_kind": "Str", "doc": "" }))
                .await
                .status,
            200
        );
    }
    let mut role = testkit::platform::connect(&platform.primary.api()).await.unwrap();
    let guarded =
        ["org", "entity", "tag_def", "device_types", "devices", "audit_log", "device_type_current"];
    // Nobody's caller sees nothing.
    for table in guarded.iter().chain(&["entity_tag", "device_point", "acl_user"]) {
        let sql = format!("select count(*) from core.{table}");
        let rows: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut role).await.unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    let set = format!("set haystack.orgs = '{{{other}}}'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut role).await.unwrap();
    for table in guarded {
        let sql =
            format!("select count(*) filter (where org_id <> {other}), count(*) from core.{table}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&mut role).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 0, "{table}");
    }
    let read = "select count(*) from core.read_values($1, array[$2::integer, $3::integer], '-infinity', 'infinity', false, 10)";
    let of = |org: i32| sqlx::query_scalar::<_, i64>(read).bind(org).bind(mine).bind(theirs);
    assert_eq!(of(other).fetch_one(&mut role).await.unwrap(), 1, "its own alone");
    let refused = of(1).fetch_one(&mut role).await.unwrap_err();
    assert!(refused.to_string().contains("not open"), "{refused}");
    for forbidden in [
        "select * from core.values_demo",
        "select * from core.values_other",
        "select * from core.values_other_current",
        "select * from core.telemetry_raw",
        "select * from core.telemetry_history",
        "insert into core.org values (9, 'x', 'x', 1)",
        "update core.entity set name = 'x'",
        "delete from core.audit_log",
        "create table core.x (a int)",
        "set role haystack_ingest",
        "set row_security = off; select * from core.entity",
        "select core.create_values_tables('x')",
        "select core.checked_values(1)",
    ] {
        let tried = sqlx::raw_sql(forbidden).execute(&mut role).await;
        assert!(tried.is_err(), "{forbidden}");
    }
}
