//! Values that callers write: a yes is a COMMIT, and what is repeated is stored once.

use super::{Api, number};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Database, Platform, eventually};

async fn rows(database: &Database, entity: i32) -> Vec<(String, Option<f64>)> {
    let mut connection = testkit::platform::connect(&database.owner()).await.unwrap();
    sqlx::query_as(
        "select to_char(ts at time zone 'UTC', 'MM-DD HH24:MI:SS'), value_n \
         from core.values_demo where entity_id = $1 order by ts",
    )
    .bind(entity)
    .fetch_all(&mut connection)
    .await
    .unwrap()
}

fn bulk(values: &[Value]) -> Value {
    json!({ "org_id": 1, "values": values })
}

#[tokio::test]
async fn a_yes_is_a_commit_in_the_primary_and_the_secondary_catches_up() {
    let platform = Platform::start("").await;
    let mut ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let values: Vec<Value> = (0..5_000)
        .map(|n| {
            number(
                point,
                &format!("2026-01-02T{:02}:{:02}:{:02}Z", n / 3600, n / 60 % 60, n % 60),
                f64::from(n),
            )
        })
        .collect();
    for part in [&values[..280], &values] {
        let answer = api.post("/bulk/value", &bulk(part)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body.as_array().unwrap().len(), part.len());
        // Without another look: it is committed when the answer comes.
        assert_eq!(rows(&platform.primary, point).await.len(), part.len());
    }
    eventually("the secondary has them", || async {
        let there = rows(&platform.secondary, point).await.len();
        if there == 5_000 { Ok(()) } else { Err(format!("{there} rows")) }
    })
    .await;
    // A = 1, A = 2, A = 1 leaves 1; a naive moment is UTC.
    for value in [1.0, 2.0, 1.0] {
        let answer =
            api.post("/bulk/value", &bulk(&[number(point, "2026-01-03T00:00:00", value)])).await;
        assert_eq!(
            answer.body,
            json!([{ "ts": "2026-01-03T00:00:00Z", "entity_id": point,
            "value_n": value, "value_b": null, "value_s": null, "value_ts": null }])
        );
    }
    let last = rows(&platform.primary, point).await.pop();
    assert_eq!(last, Some(("01-03 00:00:00".to_owned(), Some(1.0))));
    let current = api.get(&format!("/value/{point}/current")).await;
    assert_eq!(current.body["value_n"], 1.0);
    assert!(ingest.runs());
}

#[tokio::test]
async fn what_can_not_be_stored_is_refused_with_its_place_and_nothing_of_it_is_stored() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start_with(&platform, &["api.max_values=10", "api.max_values_bytes=4096"]).await;
    let (point, text) = (api.point(1, "Number").await, api.point(1, "Str").await);
    let elsewhere = api.org("other").await;
    let foreign = api.point(elsewhere, "Number").await;
    let good = number(point, "2026-01-01T00:00:00Z", 1.0);
    let with = |bad: Value| bulk(&[good.clone(), bad]);
    let at = "2026-01-01T00:00:00Z";
    for (body, status, pointer) in [
        (with(json!({ "ts": "yesterday", "entity_id": point, "value_n": 1 })), 422, "/values/1/ts"),
        (with(number(point, "1999-12-31T23:59:59Z", 1.0)), 422, "/values/1/ts"),
        (with(number(point, "2099-01-01T00:00:00Z", 1.0)), 422, "/values/1/ts"),
        (with(json!({ "ts": at, "entity_id": point })), 422, "/values/1"),
        (with(json!({ "ts": at, "entity_id": point, "value_s": "x" })), 422, "/values/1/value_s"),
        (with(json!({ "ts": at, "entity_id": text, "value_n": 1 })), 422, "/values/1/value_n"),
        (
            with(json!({ "ts": at, "entity_id": text, "value_s": "a\u{0}b" })),
            422,
            "/values/1/value_s",
        ),
        (with(json!({ "ts": at, "entity_id": "x", "value_n": 1 })), 422, "/values/1/entity_id"),
        (with(json!({ "ts": at, "value_n": 1 })), 422, "/values/1"),
        (with(number(foreign, at, 1.0)), 403, "/values/1/entity_id"),
        (with(number(999_999, at, 1.0)), 403, "/values/1/entity_id"),
        (json!({ "org_id": 999, "values": [good] }), 403, ""),
        (json!({ "values": [] }), 422, ""),
        (bulk(&vec![good.clone(); 11]), 413, ""),
        (bulk(&[json!({ "ts": at, "entity_id": text, "value_s": "x".repeat(5_000) })]), 413, ""),
    ] {
        let answer = api.post("/bulk/value", &body).await;
        assert_eq!(answer.status, status, "{body} {answer:?}");
        assert!(answer.is_problem(), "{answer:?}");
        let named = answer.body["errors"][0]["pointer"].as_str().unwrap_or_default();
        assert_eq!(named, pointer, "{answer:?}");
    }
    let raw = |body: &'static str, media: &str| {
        api.request(Method::POST, "/bulk/value", &api.admin)
            .header("content-type", media)
            .body(body)
    };
    assert_eq!(api.send(raw("{", "application/json")).await.status, 400);
    assert_eq!(api.send(raw("{}", "text/plain")).await.status, 415);
    assert_eq!(api.post("/bulk/value", &bulk(&[])).await.body, json!([]));
    assert_eq!(rows(&platform.primary, point).await, []);
}

#[tokio::test]
async fn a_repeated_request_is_stored_once_and_another_body_is_refused() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let other = api.key(1, &["write"]).await;
    let send = |key: String, id: &'static str, value: f64| {
        let body = bulk(&[number(point, "2026-01-01T00:00:00Z", value)]);
        let request = api.request(Method::POST, "/bulk/value", &key).header("idempotency-key", id);
        api.send(request.json(&body))
    };
    let admin = || api.admin.clone();
    assert_eq!(send(admin(), "k", 1.0).await.status, 200);
    assert_eq!(send(other.clone(), "k", 2.0).await.status, 200, "another caller's key is another");
    // Repeated: what it did stays behind what came after it.
    assert_eq!(send(admin(), "k", 1.0).await.status, 200);
    assert_eq!(rows(&platform.primary, point).await[0].1, Some(2.0));
    let refused = send(admin(), "k", 3.0).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    // Many at once are one.
    let before = platform.succeed(&["status", "--json"]);
    let at_once = futures_util::future::join_all((0..8).map(|_| send(admin(), "m", 4.0))).await;
    assert!(at_once.iter().all(|answer| answer.status == 200), "{at_once:?}");
    let messages = |text: &str| {
        let status: Value = serde_json::from_str(text).unwrap();
        let streams = status["streams"].as_array().unwrap().clone();
        let telemetry = streams.iter().find(|it| it["name"] == "TELEMETRY").unwrap();
        telemetry["messages"].as_u64().unwrap()
    };
    let after = platform.succeed(&["status", "--json"]);
    assert_eq!(messages(&after) - messages(&before), 1);
}

#[tokio::test]
async fn a_row_that_the_primary_refuses_is_named() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    testkit::platform::change(
        &platform.primary.owner(),
        "create function core.no_13() returns trigger language plpgsql as $$ begin \
           if new.value_n = 13 then raise exception 'no' using errcode = '22000'; end if; \
           return new; end $$; \
         create trigger no_13 before insert on core.values_demo \
           for each row execute function core.no_13()",
    )
    .await;
    let body = bulk(&[
        number(point, "2026-01-01T00:00:00Z", 12.0),
        number(point, "2026-01-01T00:00:01Z", 13.0),
        number(point, "2026-01-01T00:00:02Z", 14.0),
    ]);
    let answer = api.post("/bulk/value", &body).await;
    assert_eq!(
        (answer.status, &answer.body["errors"][0]["pointer"]),
        (422, &json!("/values/1")),
        "{answer:?}"
    );
    assert_eq!(rows(&platform.primary, point).await.len(), 2, "its neighbours are stored");
}

#[tokio::test]
async fn who_does_not_want_to_wait_need_not() {
    let platform = Platform::start("").await;
    let api = Api::start(&platform).await;
    let point = api.point_without_ingest(&platform).await;
    let request =
        api.request(Method::POST, "/bulk/value", &api.admin).header("prefer", "respond-async");
    let answer = api.send(request.json(&bulk(&[number(point, "2026-01-01T00:00:00Z", 5.0)]))).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(1)), "{answer:?}");
    let _ingest = platform.service("ingest");
    eventually("it is stored", || async {
        let there = rows(&platform.primary, point).await;
        if there.len() == 1 { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

impl Api {
    /// A point that is applied by an ingest service which is gone again.
    async fn point_without_ingest(&self, platform: &Platform) -> i32 {
        let mut ingest = platform.service("ingest");
        let point = self.point(1, "Number").await;
        ingest.stop().await;
        point
    }
}
