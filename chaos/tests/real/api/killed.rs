//! Everything is killed under clients that repeat what they were not told yes for.

use super::{Api, number};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use testkit::{Database, Platform, eventually};

const CLIENTS: usize = 4;
const REQUESTS: usize = 25;
const VALUES: usize = 20;
/// How long a client waits for an answer, and before it asks again.
const ANSWER: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(50);

async fn rows(database: &Database) -> Result<Vec<(i32, i64)>, String> {
    let mut connection = testkit::platform::connect(&database.owner()).await?;
    let sql = "select entity_id, count(*) from core.values_demo where value_n >= 1000 \
               group by entity_id order by entity_id";
    let rows = sqlx::query_as(sql).fetch_all(&mut connection).await;
    rows.map_err(|error| error.to_string())
}

fn body(point: i32, request: usize) -> Value {
    let value = |at: usize| {
        let second = request * VALUES + at;
        let ts = format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
        number(point, &ts, 1_000.0 + second as f64)
    };
    json!({ "org_id": 1, "values": (0..VALUES).map(value).collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_yes_is_kept_and_each_value_is_stored_once_whatever_is_killed() {
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    let mut ingest = platform.service("ingest");
    let settings = ["api.commit_seconds=2"];
    let mut api = Api::start_with(&platform, &settings).await;
    let mut points = Vec::new();
    for _ in 0..CLIENTS {
        points.push(api.point(1, "Number").await);
    }
    // The port of whichever process serves now.
    let port = Arc::new(AtomicUsize::new(api.port.into()));
    let done = Arc::new(AtomicBool::new(false));
    let clients = points.iter().map(|&point| {
        let (client, key, port) = (api.client.clone(), api.admin.clone(), port.clone());
        tokio::spawn(async move {
            for request in 0..REQUESTS {
                loop {
                    let url =
                        format!("http://127.0.0.1:{}/bulk/value", port.load(Ordering::SeqCst));
                    let sent = client
                        .request(Method::POST, url)
                        .header("x-api-key", &key)
                        .header("idempotency-key", format!("{point}-{request}"))
                        .timeout(ANSWER)
                        .json(&body(point, request));
                    match sent.send().await.map(|answer| answer.status().as_u16()) {
                        Ok(200) => break,
                        Ok(503) | Err(_) => tokio::time::sleep(AGAIN).await,
                        Ok(status) => panic!("{status}"),
                    }
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    let all = {
        let done = done.clone();
        tokio::spawn(async move {
            for client in clients {
                client.await.unwrap();
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    let mut round = 0;
    while !done.load(Ordering::SeqCst) && round < 12 {
        match round % 4 {
            0 => {
                api.process.kill9().await;
                api = Api::launch(&platform, &settings);
                port.store(api.port.into(), Ordering::SeqCst);
            }
            1 => {
                ingest.kill9().await;
                ingest = platform.service("ingest");
            }
            2 => platform.nats.restart9().await,
            _ => platform.primary_cluster.restart9().await,
        }
        round += 1;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    all.await.unwrap();
    assert!(round >= 4, "everything was killed at least once");
    let expected: Vec<(i32, i64)> =
        points.iter().map(|&point| (point, (REQUESTS * VALUES) as i64)).collect();
    assert_eq!(rows(&platform.primary).await.unwrap(), expected);
    eventually("the secondary has the same", || async {
        let there = rows(&platform.secondary).await?;
        if there == expected { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
    eventually("the databases are equal", || async {
        let output = platform.command(&["verify"]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    platform.balances().await;
}
