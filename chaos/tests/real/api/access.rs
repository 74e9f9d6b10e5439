//! Keys and what they open.

use super::{Api, number};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use testkit::{Platform, eventually};

#[tokio::test]
async fn keys_are_made_shown_once_and_revoked_by_the_api_and_by_hand() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let status = |key: String| {
        let request = api.request(Method::GET, "/entity", &key);
        async { api.send(request).await.status }
    };
    assert_eq!(status(api.admin.clone()).await, 200);
    for none in ["", "hsk_", "hsk_aaaaaaaaaaaa_bbbb", &format!("{}x", api.admin), "Basic"] {
        assert_eq!(status(none.to_owned()).await, 401, "{none}");
    }
    let (start, end) = api.admin.split_at(api.admin.len() - 1);
    let other = if end == "A" { "B" } else { "A" };
    assert_eq!(status(format!("{start}{other}")).await, 401, "a letter is wrong");
    let key = api.key(1, &["read"]).await;
    assert_eq!(status(key.clone()).await, 200);
    let listed = api.get("/key?org_id=1").await;
    assert!(listed.body[0]["key"].is_null() && listed.body[0].get("hash").is_none(), "{listed:?}");
    let id = listed.body[0]["key_id"].as_str().unwrap();
    assert!(!listed.body.to_string().contains(&key));
    assert_eq!(api.delete(&format!("/key/{id}")).await.status, 204);
    assert_eq!(status(key).await, 401, "at once");
    // By hand, within a second.
    let by_hand = platform.succeed(&["key", "add", "hand", "--org", "demo", "--may", "read,write"]);
    let by_hand = by_hand.trim().to_owned();
    eventually("it opens", || async {
        if status(by_hand.clone()).await == 200 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    let began = Instant::now();
    // All of it may be given; what is wrong with it is not repeated.
    platform.succeed(&["key", "revoke", &by_hand]);
    let refused = platform.fail(&["key", "revoke", "hsk_secret"]);
    assert!(!refused.contains("secret"), "{refused}");
    eventually("it opens nothing", || async {
        if status(by_hand.clone()).await == 401 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let over = ["key", "add", "e", "--platform", "--expires", "2020-01-01T00:00:00Z"];
    assert!(platform.fail(&over).contains("past"));
    let strange = ["key", "add", "e", "--org", "demo", "--entity", "999999=read"];
    assert!(platform.fail(&strange).contains("999999"));
    let no_org = ["key", "add", "e", "--platform", "--may", "read"];
    assert!(platform.fail(&no_org).contains("--org"), "a key that may more than was asked for");
    assert_eq!(api.post("/key", &json!({ "name": "everything?" })).await.status, 422);
    let expires = json!({ "name": "e", "org_id": 1, "permissions": ["read"],
        "expires_at": "2020-01-01T00:00:00Z" });
    assert_eq!(api.post("/key", &expires).await.status, 422);
}

#[tokio::test]
async fn nobody_does_or_gives_away_more_than_the_own_rights() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let reader = api.key(1, &["read"]).await;
    let org_admin = api.key(1, &["admin"]).await;
    let as_key = |key: &str, method: Method, path: &str, body: serde_json::Value| {
        let request = api.request(method, path, key).json(&body);
        async { api.send(request).await.status }
    };
    let value = json!({ "org_id": 1, "values": [number(point, "2026-01-01T00:00:00Z", 1.0)] });
    let entity = json!({ "org_id": 1, "name": "x" });
    assert_eq!(as_key(&reader, Method::POST, "/bulk/value", value.clone()).await, 403);
    assert_eq!(as_key(&reader, Method::POST, "/entity", entity).await, 403);
    assert_eq!(as_key(&reader, Method::POST, "/org", json!({ "org_key": "mine" })).await, 403);
    let platform_key = json!({ "name": "all", "platform": true });
    assert_eq!(as_key(&org_admin, Method::POST, "/key", platform_key).await, 403);
    assert_eq!(as_key(&org_admin, Method::POST, "/org", json!({ "org_key": "mine" })).await, 403);
    let own = json!({ "name": "w", "org_id": 1, "entities": { point.to_string(): ["write"] } });
    let made = api.send(api.request(Method::POST, "/key", &org_admin).json(&own)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let writer = made.body["key"].as_str().unwrap();
    assert_eq!(as_key(writer, Method::POST, "/bulk/value", value).await, 200);
    let other = json!({ "org_id": 1, "values": [number(1, "2026-01-01T00:00:00Z", 1.0)] });
    assert_eq!(as_key(writer, Method::POST, "/bulk/value", other).await, 403);
}

#[tokio::test]
async fn who_changed_what_is_on_record() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let point = api.point(1, "Number").await;
    let changed =
        api.put(&format!("/entity/{point}"), &json!({ "name": "after", "tags": {} })).await;
    platform.succeed(&["key", "add", "by hand", "--org", "demo", "--may", "read"]);
    eventually("both are on record", || async {
        let log = api.get("/org/1/audit").await;
        let rows = log.body.as_array().cloned().unwrap_or_default();
        let entity = rows.iter().find(|row| row["request_id"] == changed.request_id.as_str());
        let key = rows.iter().find(|row| row["changed_by"].as_str().unwrap().starts_with("cli:"));
        let (Some(entity), Some(key)) = (entity, key) else { return Err(format!("{log:?}")) };
        assert_eq!(entity["before"]["entity"]["name"], "p");
        assert_eq!(entity["after"]["entity"]["name"], "after");
        assert!(entity["changed_by"].as_str().unwrap().starts_with("key:"), "{entity}");
        assert!(!key.to_string().contains("hash"), "{key}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_subject_is_one_user_however_often_it_is_made_at_once() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let user = |number: usize| json!({ "name": format!("name {number}"), "issuer": "https://issuer.test", "subject": "ada" });
    let made = join_all((0..6).map(|number| {
        let request = api.request(Method::POST, "/user", &api.admin).json(&user(number));
        api.send(request)
    }));
    let made = made.await;
    let statuses: Vec<u16> = made.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{made:?}");
    assert!(statuses.iter().all(|status| [200, 201].contains(status)), "{made:?}");
    let ids: BTreeSet<i32> = made.iter().map(|answer| answer.number("user_id")).collect();
    assert_eq!(ids.len(), 1);
    let listed = api.get("/user").await;
    assert_eq!(listed.body.as_array().unwrap().len(), 1, "{listed:?}");
    let id = ids.first().unwrap().to_string();
    platform.succeed(&["user", "deactivate", &id]);
    eventually("the user is off", || async {
        let user = api.get(&format!("/user/{id}")).await;
        if user.body["active"] == false { Ok(()) } else { Err(format!("{user:?}")) }
    })
    .await;
}

#[tokio::test]
async fn an_admin_of_an_org_learns_of_nobody_elses_users_by_their_numbers() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let other = api.post("/org", &json!({ "org_key": "other" })).await.number("org_id");
    let user = json!({ "name": "Eve", "issuer": "https://issuer.test", "subject": "eve" });
    let user = api.post("/user", &user).await.number("user_id");
    let org_admin = api.key(1, &["admin"]).await;
    let grant = json!({ "user_id": user, "permissions": ["read"] });
    let by = |key: &str| {
        let request = api.request(Method::POST, "/org/1/permission", key).json(&grant);
        async { api.send(request).await.status }
    };
    assert_eq!(by(&org_admin).await, 422);
    let elsewhere = api.post(&format!("/org/{other}/permission"), &grant).await;
    assert_eq!(elsewhere.status, 200);
    assert_eq!(by(&org_admin).await, 422, "known elsewhere is not known here");
    assert_eq!(by(&api.admin).await, 200);
    assert_eq!(by(&org_admin).await, 200, "who is in the org already may be given more");
}
