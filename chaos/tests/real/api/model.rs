//! Entities and tags: changed with what was seen, listed page by page.

use super::Api;
use reqwest::Method;
use serde_json::json;
use testkit::Platform;

#[tokio::test]
async fn a_change_counts_when_it_is_based_on_what_is_there() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let path = format!("/entity/{point}");
    let seen = api.get(&path).await;
    let etag = seen.etag.clone().unwrap();
    let put = |etag: &str, name: &str| {
        let request = api.request(Method::PUT, &path, &api.admin).header("if-match", etag);
        let request = request
            .json(&json!({ "name": name, "tags": { "area": { "value": 2.5, "unit": "m²" } } }));
        async { api.send(request).await }
    };
    let first = put(&etag, "one").await;
    assert_eq!((first.status, &first.body["name"]), (200, &json!("one")), "{first:?}");
    assert_eq!(put(&etag, "two").await.status, 412);
    assert_eq!(put(&etag, "one").await.status, 200, "its own change again");
    let read = api.get(&path).await;
    assert_eq!(read.etag, first.etag);
    assert_eq!(read.body["tags"], json!({ "area": { "value": 2.5, "unit": "m²" } }));
    assert_eq!(put("nonsense", "x").await.status, 422);
    assert_eq!(api.delete(&path).await.status, 204);
    assert_eq!(api.get(&path).await.status, 404);
    assert_eq!(api.delete(&path).await.status, 204, "whoever repeats it is told that it is done");
    assert_eq!(api.delete("/entity/999999").await.status, 404);
    let other = api.key(1, &["read"]).await;
    let by_reader = api.request(Method::DELETE, &path, &other);
    assert_eq!(api.send(by_reader).await.status, 404);
    // A point of a device stays.
    let (humidity, _) = platform.add_device("TS-9");
    let refused = api.delete(&format!("/entity/{humidity}")).await;
    assert_eq!(refused.status, 409, "{refused:?}");
}

#[tokio::test]
async fn lists_come_in_pages_and_a_request_that_is_repeated_makes_one() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let org = api.org("many").await;
    for number in 0..5 {
        let body = json!({ "org_id": org, "name": format!("e{number}"), "tags": { "site": "M" } });
        let request = || {
            let request = api.request(Method::POST, "/entity", &api.admin);
            request.header("idempotency-key", format!("e{number}")).json(&body)
        };
        let made = api.send(request()).await;
        let again = api.send(request()).await;
        assert_eq!((made.status, again.status), (201, 201), "{again:?}");
        assert_eq!(made.body, again.body);
    }
    let (mut names, mut path) = (Vec::new(), format!("/entity?org_id={org}&limit=2&tag=site"));
    loop {
        let page = api.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        let rows = page.body.as_array().unwrap();
        assert!(rows.len() <= 2);
        names.extend(rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()));
        let Some(next) = page.next else { break };
        path = format!("/entity?org_id={org}&limit=2&tag=site&cursor={next}");
    }
    assert_eq!(names, ["e0", "e1", "e2", "e3", "e4"]);
    assert_eq!(api.get("/entity?limit=0").await.status, 422);
    assert_eq!(api.get("/entity?cursor=x").await.status, 422);
    let tag = format!("/tag_def/{org}/chilled");
    let def = json!({ "value_kind": "Marker", "doc": "cooled" });
    assert_eq!(api.put(&tag, &def).await.status, 200);
    assert_eq!(api.get(&tag).await.body["doc"], "cooled");
    assert_eq!(api.put(&format!("/tag_def/{org}/Bad"), &def).await.status, 422);
    assert_eq!(api.delete(&tag).await.status, 204);
    assert_eq!(api.get(&tag).await.status, 404);
}

#[tokio::test]
async fn values_are_read_by_range_thinned_out_and_newest() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let values: Vec<_> = (0..120)
        .map(|n| {
            super::number(
                point,
                &format!("2026-01-01T{:02}:{:02}:00Z", n / 60, n % 60),
                f64::from(n),
            )
        })
        .collect();
    let stored = api.post("/bulk/value", &json!({ "org_id": 1, "values": values })).await;
    assert_eq!(stored.status, 200, "{stored:?}");
    let day = format!("/value/{point}?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z");
    let all = api.get(&day).await;
    assert_eq!(all.body.as_array().unwrap().len(), 120);
    let newest = api.get(&format!("{day}&limit=1&newest_first=true")).await;
    assert_eq!(newest.body[0]["value_n"], 119.0);
    let hours = api.get(&format!("{day}&every=1h")).await;
    assert_eq!(
        hours.body,
        json!([
            { "ts": "2026-01-01T00:00:00Z", "count": 60, "min": 0.0, "max": 59.0, "mean": 29.5, "first": 0.0, "last": 59.0 },
            { "ts": "2026-01-01T01:00:00Z", "count": 60, "min": 60.0, "max": 119.0, "mean": 89.5, "first": 60.0, "last": 119.0 },
        ])
    );
    let current = api.get(&format!("/value?org_id=1&entity_id={point},999999")).await;
    assert_eq!(current.body.as_array().unwrap().len(), 1);
    for wrong in ["&every=1y", "&limit=0", "&limit=x", "&from=never"] {
        let answer = api.get(&format!("{day}{wrong}")).await;
        assert_eq!(answer.status, 422, "{wrong} {answer:?}");
    }
    assert_eq!(api.get("/value/999999").await.status, 404);
}

#[tokio::test]
async fn one_key_at_once_makes_one_thing() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    for round in 0..5 {
        let body = json!({ "org_id": 1, "name": format!("once {round}") });
        let send = || {
            let request = api.request(Method::POST, "/entity", &api.admin);
            api.send(request.header("idempotency-key", format!("once {round}")).json(&body))
        };
        let made = futures_util::future::join_all((0..8).map(|_| send())).await;
        let made: std::collections::BTreeSet<i32> =
            made.iter().map(|answer| answer.number("entity_id")).collect();
        assert_eq!(made.len(), 1, "{made:?}");
    }
}

#[tokio::test]
async fn of_two_changes_of_a_user_at_once_both_are_in_the_end() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let user =
        json!({ "name": "a", "issuer": "https://i.test", "subject": "a", "platform_admin": true });
    let user = api.post("/user", &user).await.number("user_id");
    let path = format!("/user/{user}");
    let change = |body: serde_json::Value| {
        api.send(api.request(Method::PATCH, &path, &api.admin).json(&body))
    };
    for round in 0..10 {
        change(json!({ "active": true, "platform_admin": true })).await;
        let off = change(json!({ "active": false, "platform_admin": false }));
        let named = change(json!({ "name": format!("n{round}") }));
        let (off, named) = tokio::join!(off, named);
        assert_eq!((off.status, named.status), (200, 200));
        let now = api.get(&path).await.body;
        assert_eq!(
            (&now["active"], &now["platform_admin"]),
            (&json!(false), &json!(false)),
            "{now}"
        );
        assert_eq!(now["name"], format!("n{round}"));
    }
}

#[tokio::test]
async fn answers_are_bounded_by_bytes_and_say_so() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Str").await;
    let text = "x".repeat(60_000);
    for minute in 0..2 {
        let values: Vec<_> = (0..50)
            .map(|second| {
                json!({ "ts": format!("2026-01-01T00:{minute:02}:{second:02}Z"),
                    "entity_id": point, "value_s": text })
            })
            .collect();
        let stored = api.post("/bulk/value", &json!({ "org_id": 1, "values": values })).await;
        assert_eq!(stored.status, 200);
    }
    let path = format!("/value/{point}?from=2026-01-01T00:00:00Z");
    assert_eq!(api.get(&path).await.status, 422);
    assert_eq!(api.get(&format!("{path}&limit=20")).await.body.as_array().unwrap().len(), 20);
    let doc = "d".repeat(900_000);
    for number in 0..6 {
        let def = json!({ "value_kind": "Str", "doc": doc });
        assert_eq!(api.put(&format!("/tag_def/1/t{number}"), &def).await.status, 200);
    }
    let (mut seen, mut path) = (0, "/tag_def?org_id=1".to_owned());
    loop {
        let page = api.get(&path).await;
        seen += page.body.as_array().unwrap().len();
        let Some(next) = page.next else { break };
        path = format!("/tag_def?org_id=1&cursor={next}");
    }
    assert_eq!(seen, 6, "in pages that are small enough");
    let log = api.get("/org/1/audit?limit=1000").await;
    assert!(log.status == 200 && log.body.to_string().len() < 6 << 20, "{}", log.status);
    let mut before = log.body.as_array().unwrap().last().unwrap()["revision"].clone();
    let mut changes = log.body.as_array().unwrap().len();
    loop {
        let log = api.get(&format!("/org/1/audit?limit=1000&before={before}")).await;
        let Some(last) = log.body.as_array().unwrap().last() else { break };
        changes += log.body.as_array().unwrap().len();
        before = last["revision"].clone();
    }
    assert!(changes >= 7, "{changes}: none is left out");
}

#[tokio::test]
async fn a_repeated_request_brings_nothing_back() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let body = json!({ "org_id": 1, "name": "once", "tags": { "site": "M" } });
    let send = || {
        let request = api.request(Method::POST, "/entity", &api.admin);
        api.send(request.header("idempotency-key", "once").json(&body))
    };
    let made = send().await;
    assert_eq!(made.status, 201);
    let path = format!("/entity/{}", made.number("entity_id"));
    let renamed = json!({ "name": "renamed", "tags": {} });
    assert_eq!(api.put(&path, &renamed).await.status, 200);
    assert_eq!(send().await.status, 201, "it was made once, and is told so");
    assert_eq!(api.get(&path).await.body["name"], "renamed");
    assert_eq!(api.delete(&path).await.status, 204);
    assert_eq!(send().await.status, 409);
    assert_eq!(api.get(&path).await.status, 404, "what was taken away stays away");
}
