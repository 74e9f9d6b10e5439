//! 200, cut, 503, restored, 200.

use super::{Answer, Api, number};
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Platform, Process, eventually};

fn bulk(point: i32, second: u32, value: f64) -> Value {
    let ts = format!("2026-01-01T00:00:{second:02}Z");
    json!({ "org_id": 1, "values": [number(point, &ts, value)] })
}

async fn keyed(api: &Api, key: &str, body: &Value) -> Answer {
    let request =
        api.request(Method::POST, "/bulk/value", &api.admin).header("idempotency-key", key);
    api.send(request.json(body)).await
}

async fn count(platform: &Platform, point: i32) -> i64 {
    let mut connection = testkit::platform::connect(&platform.primary.owner()).await.unwrap();
    sqlx::query_scalar("select count(*) from core.values_demo where entity_id = $1")
        .bind(point)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

async fn until(what: &str, api: &Api, path: &str, status: u16) {
    eventually(what, || async {
        let answer = api.get(path).await;
        if answer.status == status { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_primary_is_cut_and_comes_back() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start_with(&platform, &["api.commit_seconds=2"]).await;
    let point = api.point(1, "Number").await;
    let entity = format!("/entity/{point}");
    assert_eq!(keyed(&api, "a", &bulk(point, 0, 1.0)).await.status, 200);

    platform.primary_cluster.kill9().await;
    let cut = keyed(&api, "b", &bulk(point, 1, 2.0)).await;
    assert_eq!(cut.status, 503, "{cut:?}");
    assert!(cut.retry_after.is_some() && cut.is_problem());
    // Told at once now, with how far it is behind, and nothing more is put into the stream.
    eventually("it is known to be behind", || async {
        let cut = keyed(&api, "c", &bulk(point, 2, 3.0)).await;
        let text = cut.body["detail"].as_str().unwrap_or_default().to_owned();
        if cut.status == 503 && text.contains("behind") { Ok(()) } else { Err(format!("{cut:?}")) }
    })
    .await;
    for path in ["/readyz", &entity, &format!("/value/{point}")] {
        let away = api.get(path).await;
        assert_eq!(away.status, 503, "{path} {away:?}");
        let shown = away.body.to_string();
        assert!(!shown.contains("postgres") && !shown.contains("SQLSTATE"), "{shown}");
    }
    let change = json!({ "name": "changed", "tags": { "point": "M" } });
    assert_eq!(api.put(&entity, &change).await.status, 503);
    assert_eq!(api.get("/healthz").await.status, 200);

    platform.primary_cluster.launch().await;
    until("it is ready", &api, "/readyz", 200).await;
    eventually("what was repeated is stored", || async {
        let again = keyed(&api, "b", &bulk(point, 1, 2.0)).await;
        let more = keyed(&api, "c", &bulk(point, 2, 3.0)).await;
        if (again.status, more.status) == (200, 200) {
            Ok(())
        } else {
            Err(format!("{again:?} {more:?}"))
        }
    })
    .await;
    assert_eq!(count(&platform, point).await, 3);
    assert_eq!(api.put(&entity, &change).await.status, 200);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_told_to_have_succeeded_when_repeated() {
    let platform = Platform::start("").await;
    let mut ingest = platform.service("ingest");
    let api = Api::start_with(&platform, &["api.commit_seconds=1"]).await;
    let point = api.point(1, "Number").await;
    let entity = format!("/entity/{point}");
    let etag = api.get(&entity).await.etag.unwrap();
    ingest.stop().await;
    let change = json!({ "name": "changed", "tags": {} });
    let put = || {
        let request = api.request(Method::PUT, &entity, &api.admin).header("if-match", &etag);
        api.send(request.json(&change))
    };
    let lost = put().await;
    assert_eq!(lost.status, 503, "nobody applies it: {lost:?}");
    let _ingest = platform.service("ingest");
    eventually("it is told that it succeeded", || async {
        let again = put().await;
        if again.status == 200 { Ok(()) } else { Err(format!("{again:?}")) }
    })
    .await;
    let other = api.request(Method::PUT, &entity, &api.admin).header("if-match", &etag);
    let other = api.send(other.json(&json!({ "name": "another", "tags": {} }))).await;
    assert_eq!(other.status, 412, "{other:?}");
}

#[tokio::test]
async fn announcements_that_are_lost_are_made_up_for_by_the_consumers_position() {
    let platform = Platform::start("").await;
    let mut ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    ingest.stop().await;
    // A user that may not announce: what ingest says reaches nobody.
    deafen(&platform).await;
    let _ingest = platform.service("ingest");
    let answer = keyed(&api, "a", &bulk(point, 0, 1.0)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(count(&platform, point).await, 1);
}

/// Takes the right to announce from ingest, and lets the server read its configuration anew.
async fn deafen(platform: &Platform) {
    let file = platform.nats.server().folder().join("nats-server.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"outcome.>\","));
    std::fs::write(&file, text.replacen("\"dead.>\", \"outcome.>\",", "\"dead.>\",", 1)).unwrap();
    platform.nats.restart().await;
}

#[tokio::test]
async fn the_stream_server_restarts_under_requests() {
    let platform = Platform::start("").await;
    let mut ingest: Process = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    platform.nats.kill9().await;
    let cut = keyed(&api, "a", &bulk(point, 0, 1.0)).await;
    assert_eq!(cut.status, 503, "{cut:?}");
    assert_eq!(api.get(&format!("/value/{point}")).await.status, 200, "reads go on");
    platform.nats.launch().await;
    eventually("it is stored", || async {
        let again = keyed(&api, "a", &bulk(point, 0, 1.0)).await;
        if again.status == 200 { Ok(()) } else { Err(format!("{again:?}")) }
    })
    .await;
    assert_eq!(count(&platform, point).await, 1);
    assert!(ingest.runs());
}

#[tokio::test]
async fn it_starts_though_nothing_is_there_and_stops_cleanly() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    platform.nats.kill9().await;
    platform.primary_cluster.kill9().await;
    let mut api = Api::launch(&platform, &[]);
    eventually("it says that it is alive", || async {
        let answer = api.client.get(api.url("/healthz")).send().await;
        answer.map(drop).map_err(|error| error.to_string())
    })
    .await;
    for path in ["/readyz", "/entity"] {
        assert_eq!(api.get(path).await.status, 503, "{path}");
    }
    platform.nats.launch().await;
    platform.primary_cluster.launch().await;
    api.ready().await;
    assert_eq!(api.get("/entity").await.status, 200);
    let status = api.process.stop().await;
    assert!(status.success(), "{status}");
}
