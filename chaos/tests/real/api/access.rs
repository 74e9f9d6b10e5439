//! Keys and what they open.

use super::{Api, number};
use reqwest::Method;
use serde_json::json;
use std::time::{Duration, Instant};
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
    platform.succeed(&["key", "revoke", &by_hand[4..16]]);
    eventually("it opens nothing", || async {
        if status(by_hand.clone()).await == 401 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
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
    let platform_key = json!({ "name": "all" });
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
