//! Devices that speak HTTP: the same stream, the same rules as by MQTT.

use super::Api;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::{Platform, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn temperatures(platform: &Platform, entity: i32) -> Vec<f64> {
    let mut connection = testkit::platform::connect(&platform.secondary.owner()).await.unwrap();
    sqlx::query_scalar("select value_n from core.values_demo where entity_id = $1 order by ts")
        .bind(entity)
        .fetch_all(&mut connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_a_device_sends_by_http_is_stored_as_if_it_had_come_by_mqtt() {
    let platform = Platform::start("").await;
    let (_ingest, _bridge) = (platform.service("ingest"), platform.service("bridge"));
    let api = Api::start(&platform).await;
    let (_, temperature) = platform.add_device("H-1");
    let made = api.post("/key", &json!({ "name": "d", "device_id": "H-1" })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let key = made.body["key"].as_str().unwrap().to_owned();
    let send = |path: &str, body: Vec<u8>, kind: &str| {
        let request = api.request(Method::POST, path, &key).header("content-type", kind);
        api.send(request.body(body))
    };
    let at = |second: u32, value: f64| json!({ "ts": format!("2026-01-01T00:00:{second:02}Z"), "temperature": value });
    let (path, media) = ("/api/v1/telemetry", "application/json");
    let one = send(path, at(1, 1.5).to_string().into_bytes(), media).await;
    assert_eq!((one.status, &one.body["accepted"]), (202, &json!(1)), "{one:?}");
    assert!(one.body["message_id"].as_str().unwrap().starts_with("RAW-"), "{one:?}");
    let many = json!([at(2, 2.5), at(3, 3.5)]).to_string().into_bytes();
    assert_eq!(send(path, many, media).await.body["accepted"], 2);
    let packed = rmp_serde::to_vec(&json!([at(4, 4.5), at(5, 5.5)])).unwrap();
    assert_eq!(send(path, packed, "application/msgpack").await.body["accepted"], 2);
    eventually("all are stored", || async {
        let there = temperatures(&platform, temperature).await;
        if there == [1.5, 2.5, 3.5, 4.5, 5.5] { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    for (body, media, status) in [
        ("{", "application/json", 400),
        ("[1]", "application/json", 422),
        ("[]", "application/json", 422),
        ("{}", "text/csv", 415),
    ] {
        assert_eq!(send(path, body.into(), media).await.status, status, "{body}");
    }
    let other = send("/api/v1/telemetry?device_id=TS-001-2024", b"{}".to_vec(), media).await;
    assert_eq!(other.status, 403, "{other:?}");
    assert_eq!(api.send(api.request(Method::GET, "/entity", &key)).await.body, json!([]));
    // A service account of the org sends for its devices, one of another org does not.
    let (own, foreign) = (api.key(1, &["telemetry"]).await, api.org("other").await);
    let foreign = api.key(foreign, &["telemetry"]).await;
    let by_key = |key: String, device: &'static str| {
        let path = format!("/api/v1/telemetry?device_id={device}");
        api.send(api.request(Method::POST, &path, &key).json(&at(6, 6.5)))
    };
    assert_eq!(by_key(own.clone(), "H-1").await.status, 202);
    assert_eq!(by_key(own, "NOBODY").await.status, 403);
    assert_eq!(by_key(foreign, "H-1").await.status, 403);
}

#[tokio::test]
async fn a_device_that_sends_too_fast_is_told_so_and_loses_nothing_of_what_was_taken() {
    let platform = Platform::start("").await;
    let (_ingest, _bridge) = (platform.service("ingest"), platform.service("bridge"));
    let api = Api::start_with(&platform, &["api.device_rate=5"]).await;
    let (_, temperature) = platform.add_device("H-2");
    let made = api.post("/key", &json!({ "name": "d", "device_id": "H-2" })).await;
    let key = made.body["key"].as_str().unwrap().to_owned();
    let (mut taken, mut refused) = (Vec::new(), 0);
    for second in 0..30u32 {
        let body = json!({ "ts": format!("2026-01-01T00:00:{second:02}Z"), "temperature": second });
        let answer =
            api.send(api.request(Method::POST, "/api/v1/telemetry", &key).json(&body)).await;
        match answer.status {
            202 => taken.push(f64::from(second)),
            429 => {
                assert!(answer.retry_after.is_some() && answer.is_problem(), "{answer:?}");
                refused += 1;
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(refused > 0 && taken.len() >= 5, "{taken:?}");
    eventually("what was taken is stored", || async {
        let there = temperatures(&platform, temperature).await;
        if there == taken { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    let too_many: Vec<Value> = (0..6).map(|_| json!({ "temperature": 1 })).collect();
    let answer =
        api.send(api.request(Method::POST, "/api/v1/telemetry", &key).json(&too_many)).await;
    assert_eq!(answer.status, 413, "{answer:?}");
}

#[tokio::test]
async fn a_full_stream_is_a_503_and_nothing_is_said_to_be_taken() {
    let platform = Platform::start("streams.readings_max_bytes = 65536").await;
    let api = Api::start_with(&platform, &["api.device_rate=100000", "api.org_rate=100000"]).await;
    let key = platform.succeed(&["key", "add", "d", "--device", "TS-001-2024"]).trim().to_owned();
    let body = json!({ "ts": "2026-01-01T00:00:00Z", "note": "x".repeat(4_000) });
    let send = || api.send(api.request(Method::POST, "/api/v1/telemetry", &key).json(&body));
    eventually("it is full", || async {
        let answer = send().await;
        match answer.status {
            503 if answer.retry_after.is_some() => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_of_a_device_that_became_another_orgs_sends_nothing() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start(&platform).await;
    let other = api.org("other").await;
    let profile = api.get("/device_type/1/temperature-sensor").await.body["definition"].clone();
    let path = format!("/device_type/{other}/temperature-sensor");
    assert_eq!(api.put(&path, &profile).await.status, 200);
    let device = |org: i32| json!({ "org_id": org, "device_id": "X-1", "device_type": "temperature-sensor" });
    assert_eq!(api.post("/device", &device(1)).await.status, 201);
    let key = api.post("/key", &json!({ "name": "x", "device_id": "X-1" })).await;
    let key = key.body["key"].as_str().unwrap().to_owned();
    let send = || {
        let request = api.request(Method::POST, "/api/v1/telemetry", &key);
        api.send(request.json(&json!({ "ts": "2026-01-01T00:00:00Z", "temperature": 6 })))
    };
    assert_eq!(send().await.status, 202);
    assert_eq!(api.delete("/device/X-1").await.status, 204);
    assert_eq!(send().await.status, 403);
    assert_eq!(api.post("/device", &device(other)).await.status, 201);
    let refused = send().await;
    assert_eq!(refused.status, 403, "{refused:?}");
}

#[tokio::test]
async fn one_key_that_sends_half_a_request_many_times_hinders_nobody_else() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let api = Api::start_with(&platform, &["api.max_requests=32"]).await;
    platform.add_device("H-3");
    let made = api.post("/key", &json!({ "name": "d", "device_id": "H-3" })).await;
    let key = made.body["key"].as_str().unwrap().to_owned();
    let mut halves = Vec::new();
    for _ in 0..40 {
        let mut half = TcpStream::connect(("127.0.0.1", api.port)).await.unwrap();
        let head = format!(
            "POST /api/v1/telemetry HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: 10\r\n\r\n"
        );
        half.write_all(head.as_bytes()).await.unwrap();
        halves.push(half);
    }
    // The last of them is told that the key has had its part.
    let mut told = [0; 12];
    halves.last_mut().unwrap().read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 503");
    assert_eq!(api.get("/entity?org_id=1").await.status, 200, "others have theirs");
    drop(halves);
}
