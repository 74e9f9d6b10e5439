//! Pollers and simulators over HTTP: made, told, watched; and what is said when nobody runs them.

use super::{Answer, Api};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::PgConnection;
use testkit::{Platform, Process, eventually};

/// A simulator that waits to be started.
fn waiting(name: &str) -> Value {
    json!({ "org_id": 1, "simulator_name": name, "building_config": building::DEFAULT,
        "status": "stopped", "history_hours": 1 })
}

/// Repeats a request until it is a 200: a service that was just started has to find the simulator.
async fn told(api: &Api, path: &str, body: &Value) -> Answer {
    eventually(path, || async {
        let answer = api.post(path, body).await;
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
    .await
}

async fn state_admin(platform: &Platform) -> PgConnection {
    let state = platform.state.as_ref().unwrap();
    testkit::platform::connect(&state.superuser()).await.unwrap()
}

async fn note(api: &Api, id: i32, message: &str) -> Answer {
    let body = json!({ "event_type": "config", "message": message, "details": { "by": "hand" } });
    api.post(&format!("/simulator/activity/{id}"), &body).await
}

#[tokio::test]
async fn pollers_are_made_listed_and_changed_without_losing_what_others_wrote() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let other = api.org("other").await;
    let new = json!({ "org_id": 1, "poller_type": "bacnet", "poller_name": "Roof",
        "config": { "address": "192.0.2.7" } });
    let keyed = || api.request(Method::POST, "/poller", &api.admin).header("idempotency-key", "k");
    let made = api.send(keyed().json(&new)).await;
    assert_eq!((made.status, &made.body["status"]), (201, &json!("active")), "{made:?}");
    assert_eq!(made.body["config"], "{\"address\":\"192.0.2.7\"}");
    assert_eq!(made.body["id"], made.body["poller_id"]);
    let again = api.send(keyed().json(&new)).await;
    assert_eq!(again.body, made.body, "one, not two");
    let path = format!("/poller/{}", made.number("poller_id"));
    assert_eq!(api.get(&path).await.body, made.body);

    let text = json!({ "org_id": other, "poller_type": "modbus", "poller_name": "Cellar",
        "config": "{ \"unit\": 1 }", "status": "inactive" });
    assert_eq!(api.post("/poller", &text).await.body["config"], "{ \"unit\": 1 }");
    for (query, found) in [
        ("/poller", 1),
        ("/poller?status=all", 2),
        ("/poller?status=inactive", 1),
        ("/poller?type=modbus", 0),
        ("/poller?type=modbus&status=all", 1),
        ("/poller?org_id=1&status=all", 1),
        ("/org/1/poller", 1),
        (&format!("/org/{other}/poller"), 0),
        (&format!("/org/{other}/poller?status=all"), 1),
    ] {
        let listed = api.get(query).await;
        assert_eq!(listed.body.as_array().map(Vec::len), Some(found), "{query} {listed:?}");
    }

    let change = |etag: &str, body: Value| {
        let request = api.request(Method::PATCH, &path, &api.admin).header("if-match", etag);
        api.send(request.json(&body))
    };
    let seen = made.etag.clone().unwrap();
    let renamed = change(&seen, json!({ "poller_name": "Attic" })).await;
    assert_eq!((renamed.status, &renamed.body["poller_name"]), (200, &json!("Attic")));
    assert_eq!(renamed.body["config"], made.body["config"]);
    let repeated = change(&seen, json!({ "poller_name": "Attic" })).await;
    assert_eq!((repeated.status, &repeated.etag), (200, &renamed.etag), "its own change");
    assert_eq!(change(&seen, json!({ "status": "inactive" })).await.status, 412);
    assert_eq!(change("*", json!({ "status": "inactive" })).await.status, 200);
    assert_eq!(api.get("/poller").await.body, json!([]));
    assert_eq!(api.get(&path).await.body["status"], "inactive");

    for (field, value) in [
        ("poller_type", json!("simulator")),
        ("poller_type", json!("BACnet")),
        ("poller_name", json!(" ")),
        ("config", json!("address: 7")),
        ("config", json!(7)),
        ("status", json!("all")),
    ] {
        let mut wrong = new.clone();
        wrong[field] = value;
        let answer = api.post("/poller", &wrong).await;
        assert_eq!(answer.status, 422, "{field} {answer:?}");
        assert_eq!(answer.body["errors"][0]["pointer"], format!("/{field}"), "{answer:?}");
    }
    let reader = api.key(other, &["read"]).await;
    let shown = |path: &str| api.send(api.request(Method::GET, path, &reader));
    assert_eq!(shown(&path).await.status, 404);
    assert_eq!(shown("/org/1/poller").await.status, 404);
    assert_eq!(shown("/poller?status=all").await.body.as_array().unwrap().len(), 1);
    let refused = api.request(Method::PATCH, &path, &reader).json(&json!({ "status": "active" }));
    assert_eq!(api.send(refused).await.status, 404);
}

#[tokio::test]
async fn a_mistake_in_a_building_is_told_with_its_line() {
    let platform = Platform::with_simulators("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let with = |field: &str, value: Value| {
        let mut body = waiting("a");
        body[field] = value;
        body
    };
    let wrong = building::DEFAULT.replace("latitude: 52.52", "latitude: 91");
    let line = 1 + wrong.lines().position(|line| line.contains("latitude: 91")).unwrap();
    for (field, value, told) in [
        ("building_config", json!(wrong), format!("line {line}: site.latitude: ")),
        ("building_config", json!({ "site": 7 }), "line ".to_owned()),
        ("building_config", json!("a\0b"), "NUL".to_owned()),
        ("building_config", json!(7), "a text".to_owned()),
        ("interval_minutes", json!(5), "the description says 15".to_owned()),
        ("interval_minutes", json!(7), "divide a day".to_owned()),
        ("history_hours", json!(1_000_000), "at most".to_owned()),
        ("status", json!("sleeping"), "running".to_owned()),
        ("simulator_name", json!(""), "characters".to_owned()),
        ("database_config", json!({ "a": "b\0" }), "NUL".to_owned()),
    ] {
        let answer = api.post("/simulator/config", &with(field, value)).await;
        assert_eq!((answer.status, answer.is_problem()), (422, true), "{field} {answer:?}");
        let error = &answer.body["errors"][0];
        assert_eq!(error["pointer"], format!("/{field}"), "{answer:?}");
        assert!(error["detail"].as_str().unwrap().contains(&told), "{answer:?}");
    }
    assert_eq!(api.get("/simulator/config").await.body, json!([]), "none was made");

    // The same as JSON, with an interval that the description leaves open.
    let described = json!({
        "site": { "name": "House", "latitude": 50, "longitude": 10, "time_zone": "UTC" },
        "schedules": { "always": { "from": "07:00", "to": "19:00" } },
        "ahus": [{ "name": "ahu-1" }],
        "floors": [{ "name": "floor-1", "ahu": "ahu-1", "schedule": "always",
            "zones": { "one": { "area": 60 }, "two": { "area": 60 } } }],
    });
    let mut body = with("building_config", described);
    body["interval_minutes"] = json!(5);
    body["database_config"] = json!({ "host": "elsewhere" });
    let post = || api.request(Method::POST, "/simulator/config", &api.admin);
    let keyed = || post().header("idempotency-key", "k").json(&body);
    let made = api.send(keyed()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.body["interval_minutes"], 5);
    assert_eq!(made.body["database_config"], json!({ "host": "elsewhere" }));
    assert_eq!(made.body["status"], "stopped");
    assert!(made.body["created_at"].is_string() && made.body["updated_at"].is_string());
    assert_eq!(api.send(keyed()).await.body, made.body, "repeated, it is the same");
    let taken = api.post("/simulator/config", &waiting("a")).await;
    assert_eq!(taken.status, 409, "{taken:?}");
    let id = made.number("simulator_id");
    assert_eq!(api.get(&format!("/simulator/config/{id}")).await.body, made.body);
    assert_eq!(api.get("/simulator/config?org_id=1").await.body, json!([made.body]));
    assert_eq!(api.get("/simulator/config?org_id=2").await.body, json!([]));
    let config = json!({ "config": {} });
    let patch = api.request(Method::PATCH, &format!("/poller/{id}"), &api.admin).json(&config);
    assert_eq!(api.send(patch).await.status, 422);

    // Two at once of the same name: one is made.
    let (one, two) = (waiting("b"), waiting("b"));
    let (one, two) =
        tokio::join!(api.post("/simulator/config", &one), api.post("/simulator/config", &two));
    let statuses = [one.status, two.status];
    assert!(statuses.contains(&201) && statuses != [201, 201], "{one:?} {two:?}");

    strangers(&api, id).await;
}

/// Another org's is not there, and whoever may only look may tell it nothing.
async fn strangers(api: &Api, id: i32) {
    let other = api.org("other").await;
    let stranger = api.key(other, &["read", "model", "control"]).await;
    let reader = api.key(1, &["read"]).await;
    for path in ["config", "state", "health", "metrics", "activity", "activity/stream"] {
        let path = format!("/simulator/{path}/{id}");
        let answer = api.send(api.request(Method::GET, &path, &stranger)).await;
        assert_eq!(answer.status, 404, "{path} {answer:?}");
    }
    for order in ["start", "stop"] {
        let path = format!("/simulator/{order}/{id}");
        assert_eq!(api.send(api.request(Method::POST, &path, &stranger)).await.status, 404);
        assert_eq!(api.send(api.request(Method::POST, &path, &reader)).await.status, 403);
    }
}

#[tokio::test]
async fn simulators_are_told_over_http_what_they_are_told_by_hand() {
    let platform = Platform::with_simulators("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let made = api.post("/simulator/config", &waiting("a")).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.number("simulator_id");
    let at = |verb: &str| format!("/simulator/{verb}/{id}");
    let none = json!({});

    // Nobody runs it: told as such, and its health is told all the same.
    for (method, verb) in [(Method::GET, "state"), (Method::POST, "start"), (Method::POST, "stop")]
    {
        let answer = api.send(api.request(method, &at(verb), &api.admin)).await;
        let detail = answer.body["detail"].as_str().unwrap();
        assert_eq!(answer.status, 503, "{verb} {answer:?}");
        assert!(
            detail.contains("no simulator service") && answer.retry_after.is_some(),
            "{detail}"
        );
    }
    let health = api.get(&at("health")).await;
    assert_eq!((health.status, &health.body["status"]), (200, &json!("unknown")));
    assert_eq!(health.body["healthy"], false);
    let points = health.body["total_points"].as_u64().unwrap();
    assert!(points > 200);
    assert_eq!(api.get(&at("metrics")).await.body["points_generated"], Value::Null);
    assert_eq!(note(&api, id, "too early").await.status, 503);

    let mut simulator = platform.service("simulator");
    let started = told(&api, &at("start"), &none).await;
    assert_eq!(started.body["simulator_id"], id);
    assert!(
        started.body["config"]["building"].is_string() && started.body["created_at"].is_string()
    );
    assert_eq!(told(&api, &at("start"), &none).await.status, 200, "repeated, it changes nothing");
    eventually("it runs, and the targets have its readings", || async {
        let health = api.get(&at("health")).await;
        let lag = &health.body["databases"]["primary"]["lag_messages"];
        let metrics = api.get(&at("metrics")).await;
        let made = metrics.body["points_generated"].as_u64().unwrap_or_default();
        let well = health.body["status"] == "running" && health.body["healthy"] == true;
        if well && lag == 0 && made >= 4 * points && metrics.body["publish_seconds"].is_f64() {
            return Ok(());
        }
        Err(format!("{health:?} {metrics:?}"))
    })
    .await;

    forbidden(&api, id).await;
    edited(&api, id, made.etag.as_deref().unwrap()).await;
    removed(&platform, &api, id, &mut simulator).await;
}

/// What its state forbids is a 409, what makes no sense a 422 with its place, and one reset is one.
async fn forbidden(api: &Api, id: i32) {
    let at = |verb: &str| format!("/simulator/{verb}/{id}");
    let reset = json!({ "scope": "state", "confirm": true });
    let refused = api.post(&at("reset"), &reset).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let pace = json!({ "pace": { "speed": 7.0 } });
    assert_eq!(api.post(&at("state"), &pace).await.status, 409);
    assert_eq!(told(api, &at("stop"), &json!({})).await.body["status"], "stopped");
    let unsure = api.post(&at("reset"), &json!({ "scope": "state" })).await;
    assert_eq!((unsure.status, &unsure.body["errors"][0]["pointer"]), (422, &json!("/confirm")));
    let slow = api.post(&at("state"), &json!({ "pace": { "speed": 0.5 } })).await;
    assert_eq!(slow.body["errors"][0]["pointer"], "/pace/speed", "{slow:?}");
    let far = json!({ "scope": "data", "from": "2999-01-01T00:00:00Z", "confirm": true });
    let far = api.post(&at("reset"), &far).await;
    assert_eq!((far.status, &far.body["errors"][0]["pointer"]), (422, &json!("/from")), "{far:?}");
    let mistaken = json!({ "config": { "building": "site: 7" } });
    let mistaken = api.post(&at("state"), &mistaken).await;
    assert_eq!(mistaken.body["errors"][0]["pointer"], "/config/building", "{mistaken:?}");
    let keyed =
        || api.request(Method::POST, &at("reset"), &api.admin).header("idempotency-key", "r");
    for _ in 0..2 {
        assert_eq!(api.send(keyed().json(&reset)).await.status, 200);
    }
    let resets = api.get(&format!("{}?type=reset", at("activity"))).await;
    assert_eq!(resets.body.as_array().unwrap().len(), 1, "{resets:?}");
}

/// Its description, seed and name; `old` is what was seen before.
async fn edited(api: &Api, id: i32, old: &str) {
    let at = |verb: &str| format!("/simulator/{verb}/{id}");
    let edited = api.post(&at("state"), &json!({ "config": { "seed": 99 } })).await;
    assert_eq!(edited.status, 200, "{edited:?}");
    eventually("it simulates what it is told", || async {
        let state = api.get(&at("state")).await;
        let health = api.get(&at("health")).await;
        if state.body["config"]["seed"] == 99 && health.body["config_status"] == "applied" {
            return Ok(());
        }
        Err(format!("{state:?} {health:?}"))
    })
    .await;
    let before = api.get(&at("config")).await;
    let change = json!({ "simulator_name": "b", "building_config":
        building::DEFAULT.replace("interval_minutes: 15", "interval_minutes: 5") });
    let put = |etag: &str| {
        let request = api.request(Method::PUT, &at("config"), &api.admin).header("if-match", etag);
        api.send(request.json(&change))
    };
    assert_eq!(put(old).await.status, 412);
    let changed = put(before.etag.as_deref().unwrap()).await;
    assert_eq!(
        (changed.status, &changed.body["interval_minutes"]),
        (200, &json!(5)),
        "{changed:?}"
    );
    assert_eq!((&changed.body["simulator_name"], &changed.body["seed"]), (&json!("b"), &json!(99)));
    assert_eq!(put(before.etag.as_deref().unwrap()).await.status, 200, "its own change, repeated");
    let author = api.get("/org/1/audit?limit=200").await;
    let of_poller = |row: &&Value| row["subject"] == format!("model.demo.poller.{id}");
    let rows: Vec<&Value> = author.body.as_array().unwrap().iter().filter(of_poller).collect();
    assert!(
        rows.iter().all(|row| row["changed_by"].as_str().unwrap().starts_with("key:")),
        "{rows:?}"
    );
}

/// A simulator that is inactive is run by nobody, and one that is removed is not there.
async fn removed(platform: &Platform, api: &Api, id: i32, simulator: &mut Process) {
    let patch = |status: &str| {
        let request = api.request(Method::PATCH, &format!("/poller/{id}"), &api.admin);
        api.send(request.json(&json!({ "status": status })))
    };
    let start = format!("/simulator/start/{id}");
    assert_eq!(patch("asleep").await.status, 422);
    assert_eq!(patch("inactive").await.status, 200);
    eventually("nobody to run it", || async {
        let answer = api.post(&start, &json!({})).await;
        if answer.status == 409 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    assert_eq!(patch("active").await.status, 200);
    told(api, &start, &json!({})).await;
    // Another service takes it over, and answers by itself.
    simulator.kill9().await;
    let _other = platform.instance("simulator", "simulator-2");
    let taken = told(api, &start, &json!({})).await;
    assert_eq!(taken.body["service_name"], "simulator-2", "{taken:?}");
    assert_eq!(patch("removed").await.status, 200);
    assert_eq!(api.get(&format!("/simulator/config/{id}")).await.status, 404);
    assert_eq!(api.post(&start, &json!({})).await.status, 404);
    assert_eq!(api.get(&format!("/poller/{id}")).await.body["status"], "removed");
    assert_eq!(patch("active").await.status, 409);
}

/// Reads a stream of events.
struct Reader {
    response: Response,
    text: String,
}

impl Reader {
    async fn open(api: &Api, id: i32, key: &str, after: Option<&str>) -> Self {
        let path = format!("/simulator/activity/stream/{id}");
        let request = api.request(Method::GET, &path, key);
        let request = after.iter().fold(request, |it, after| it.header("last-event-id", *after));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next block; `None`: the stream ended.
    async fn block(&mut self) -> Option<String> {
        let reading = async {
            loop {
                if let Some(end) = self.text.find("\n\n") {
                    let block: String = self.text.drain(..end + 2).collect();
                    return Some(block.trim_end().to_owned());
                }
                let chunk = self.response.chunk().await.ok()??;
                self.text.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, reading).await.expect("an event or the end within 30 s")
    }

    /// Events up to that of a message: their ids and messages.
    async fn up_to(&mut self, message: &str) -> Vec<(String, String)> {
        let mut events = Vec::new();
        loop {
            let block = self.block().await.expect("the stream goes on");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let Some(data) = field("data: ") else { continue };
            let row: Value = serde_json::from_str(data).unwrap();
            assert_eq!(field("event: ").unwrap(), row["event_type"]);
            assert_eq!(field("id: ").unwrap(), row["id"].to_string());
            let said = row["message"].as_str().unwrap().to_owned();
            events.push((row["id"].to_string(), said.clone()));
            if said == message {
                return events;
            }
        }
    }
}

#[tokio::test]
async fn a_reader_of_events_misses_none_and_gets_none_twice() {
    let platform = Platform::with_simulators("").await;
    let _ingest = platform.service("ingest");
    let mut api = Api::start_with(&platform, &["api.max_streams=2"]).await;
    let made = api.post("/simulator/config", &waiting("a")).await;
    let id = made.number("simulator_id");
    let _simulator = platform.service("simulator");
    told(&api, &format!("/simulator/stop/{id}"), &json!({})).await;
    let first = note(&api, id, "first").await;
    assert_eq!((first.status, &first.body["event_type"]), (201, &json!("config")), "{first:?}");
    assert!(first.body["id"].is_i64() && first.body["timestamp"].is_string());
    assert_eq!(note(&api, id, "a\0b").await.status, 422);

    // From now on, then exactly behind what it has.
    let key = api.key(1, &["read"]).await;
    let mut reader = Reader::open(&api, id, &key, None).await;
    note(&api, id, "second").await;
    let events = reader.up_to("second").await;
    assert_eq!(events.len(), 1, "{events:?}");
    let last = events[0].0.clone();
    drop(reader);
    for message in ["third", "fourth"] {
        note(&api, id, message).await;
    }
    let mut reader = Reader::open(&api, id, &key, Some(&last)).await;
    let missed: Vec<String> = reader.up_to("fourth").await.into_iter().map(|it| it.1).collect();
    assert_eq!(missed, ["third", "fourth"]);

    // The log can't be read for a while: nothing ends, is lost or comes twice.
    let mut admin = state_admin(&platform).await;
    let told = |sql: &'static str| sqlx::raw_sql(sql);
    told("revoke select on core.simulator_activity_log from haystack_api")
        .execute(&mut admin)
        .await
        .unwrap();
    let unread = note(&api, id, "fifth").await;
    assert_eq!((unread.status, &unread.body["id"]), (201, &Value::Null));
    let away = api.get(&format!("/simulator/activity/{id}")).await;
    assert_eq!(away.status, 503, "{away:?}");
    assert!(!away.body.to_string().contains("permission"), "{away:?}");
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    told("grant select on core.simulator_activity_log to haystack_api")
        .execute(&mut admin)
        .await
        .unwrap();
    note(&api, id, "sixth").await;
    let after: Vec<String> = reader.up_to("sixth").await.into_iter().map(|it| it.1).collect();
    assert_eq!(after, ["fifth", "sixth"]);

    // No more at once than are allowed.
    let mut other = Reader::open(&api, id, &api.admin, Some("0")).await;
    let busy = api.get(&format!("/simulator/activity/stream/{id}")).await;
    assert_eq!(busy.status, 503, "{busy:?}");
    let all: Vec<String> = other.up_to("sixth").await.into_iter().map(|it| it.1).collect();
    assert_eq!(all[all.len() - 6..], ["first", "second", "third", "fourth", "fifth", "sixth"]);
    let pages = pages(&api, id).await;
    assert_eq!(pages, all, "the log and the stream say the same");

    // A key that is revoked ends its stream, and a service that stops says when to come back.
    let number = key.split('_').nth(1).unwrap();
    assert_eq!(api.delete(&format!("/key/{number}")).await.status, 204);
    assert_eq!(reader.block().await, None);
    let (_, last) = tokio::join!(api.process.stop(), other.block());
    assert_eq!(last.as_deref(), Some("retry: 1000"));
    assert_eq!(other.block().await, None);
}

/// The whole log, a page of three at a time.
async fn pages(api: &Api, id: i32) -> Vec<String> {
    let (mut messages, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let path = format!("/simulator/activity/{id}?limit=3&cursor={cursor}");
        let page = api.get(&path).await;
        let rows = page.body.as_array().unwrap_or_else(|| panic!("{page:?}"));
        messages.extend(rows.iter().map(|row| row["message"].as_str().unwrap().to_owned()));
        let Some(next) = page.next else { return messages };
        cursor = next;
    }
}
