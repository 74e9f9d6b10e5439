//! The servers themselves: they start, survive what tests do to them, and leave nothing behind.

use haystack_testkit::{Mosquitto, Nats, Postgres, postgres};
use sqlx::{ConnectOptions, Connection, Executor};
use std::{net::Ipv4Addr, process::Command};

async fn answers(port: u16) -> bool {
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

#[tokio::test]
async fn nats_comes_back_on_its_port() {
    let nats = Nats::start().await;
    let (port, pid) = (nats.port(), nats.pid());
    nats.restart9().await;
    assert_eq!(nats.port(), port);
    assert_ne!(nats.pid(), pid);
    nats.stop().await;
    assert!(!answers(port).await);
    nats.launch().await;
    assert!(answers(port).await);
    assert_eq!(nats.password("bridge").len(), 40);
}

#[tokio::test]
async fn mosquitto_lets_devices_talk_and_the_bridge_listen() {
    let broker = Mosquitto::start().await;
    let port = broker.port().to_string();
    let publish = |topic: &str| {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-m", "{}", "-t", topic]);
        command.status().unwrap().success()
    };
    let subscribe = |user: &[&str]| {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-h", "127.0.0.1", "-p", &port, "-t", "devices/#", "-C", "1", "-W", "1"]);
        String::from_utf8(command.args(user).output().unwrap().stdout).unwrap()
    };
    assert!(publish("devices/D-1/telemetry"));
    let password = broker.password();
    assert_eq!(subscribe(&["-u", local::mosquitto::USER, "-P", &password]), "{}\n");
    assert_eq!(subscribe(&[]), "", "a nameless client must hear nothing");
    assert_eq!(subscribe(&["-u", local::mosquitto::USER, "-P", "guess"]), "");
    broker.restart().await;
    assert_eq!(
        subscribe(&["-u", local::mosquitto::USER, "-P", &password]),
        "{}\n",
        "kept over a restart"
    );
}

#[tokio::test]
async fn postgres_gives_fresh_databases_and_survives() {
    let (one, two) = (postgres::database().await, postgres::database().await);
    let mut owner = one.owner().connect().await.unwrap();
    owner.execute("create table public.here (n int)").await.unwrap();
    let mut other = two.owner().connect().await.unwrap();
    assert!(other.execute("select * from public.here").await.is_err());
    let mut ingest = one.ingest().connect().await.unwrap();
    assert!(ingest.execute("create table public.mine (n int)").await.is_err());
    assert!(one.ingest().password("guess").connect().await.is_err());
}

#[tokio::test]
async fn a_cluster_of_ones_own_can_be_killed_and_frozen() {
    let cluster = Postgres::start().await;
    let database = cluster.database().await;
    let mut owner = database.owner().connect().await.unwrap();
    owner.execute("create table public.here as select 1 as n").await.unwrap();
    cluster.restart9().await;
    assert!(owner.ping().await.is_err());
    let mut owner = database.owner().connect().await.unwrap();
    let count = "select count(*) from public.here";
    let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut owner).await.unwrap();
    assert_eq!(rows, 1);
    cluster.freeze();
    let patience = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(patience, owner.ping()).await.is_err());
    cluster.thaw();
    database.owner().connect().await.unwrap();
}
