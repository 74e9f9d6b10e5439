//! Clients of `POST /bulk/value`, ours or a peer's: each sends its next request when it has the answer.

use crate::{
    feed::ENTITIES,
    http::{Answer, Connection},
    message::{Time, append_reading},
    meter::Requests,
    report::progress,
};
use anyhow::{Context, Result};
use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Where values go, and as whose.
#[derive(Clone)]
pub(crate) struct Door {
    /// Where the API answers.
    pub(crate) address: SocketAddr,
    /// The key that opens it, where it needs one.
    pub(crate) key: Option<String>,
    /// The org's number.
    pub(crate) org: i32,
    /// The first entity's number.
    pub(crate) first: u64,
}

/// How many send, and how much.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Values of a request.
    pub(crate) values: u64,
    /// Clients at once, each on a connection of its own.
    pub(crate) clients: usize,
    /// How long they begin requests.
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Values that were answered with a yes.
    pub(crate) values: u64,
    refused: u64,
    millis: Vec<f64>,
}

impl Sent {
    /// How long requests took.
    pub(crate) fn requests(self) -> Option<Requests> {
        Requests::of(self.millis, self.refused)
    }
}

/// Clients that are connected.
pub(crate) struct Clients {
    door: Door,
    load: Load,
    connections: Vec<Connection>,
}

impl Clients {
    /// Connects them.
    pub(crate) async fn connect(door: &Door, load: Load) -> Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..load.clients {
            connections.push(Connection::open(door.address, door.key.as_deref()).await?);
        }
        Ok(Self { door: door.clone(), load, connections })
    }

    /// Lets them send, and waits for the last answer.
    pub(crate) async fn run(self) -> Result<Sent> {
        let next = Arc::new(AtomicU64::new(0));
        let until = Instant::now() + self.load.time;
        let mut clients = JoinSet::new();
        for connection in self.connections {
            let bodies = Bodies::new(&self.door, self.load.values);
            clients.spawn(client(connection, bodies, next.clone(), until));
        }
        let mut all = Sent::default();
        while let Some(sent) = clients.join_next().await {
            let sent = sent.context("a client panicked")??;
            all.values += sent.values;
            all.refused += sent.refused;
            all.millis.extend(sent.millis);
        }
        Ok(all)
    }
}

/// Sends one request at least.
async fn client(
    mut connection: Connection,
    mut bodies: Bodies,
    next: Arc<AtomicU64>,
    until: Instant,
) -> Result<Sent> {
    let mut sent = Sent::default();
    loop {
        bodies.build(next.fetch_add(1, Ordering::Relaxed));
        let began = Instant::now();
        let answer = connection.post("/bulk/value", &bodies.body).await?;
        sent.millis.push(began.elapsed().as_secs_f64() * 1e3);
        count(&mut sent, &answer, bodies.values);
        if Instant::now() >= until {
            return Ok(sent);
        }
    }
}

fn count(sent: &mut Sent, answer: &Answer<'_>, values: u64) {
    match answer.yes() {
        Ok(()) => sent.values += values,
        Err(why) => {
            if sent.refused == 0 {
                progress(&format!("{why:#}"));
            }
            sent.refused += 1;
        }
    }
}

/// Bodies of requests, built in the same memory.
pub(crate) struct Bodies {
    head: String,
    first: u64,
    values: u64,
    time: Time,
    /// The newest.
    pub(crate) body: Vec<u8>,
}

impl Bodies {
    /// Bodies of so many values.
    pub(crate) fn new(door: &Door, values: u64) -> Self {
        let head = format!("{{\"org_id\":{},\"values\":[", door.org);
        Self { head, first: door.first, values, time: Time::default(), body: Vec::new() }
    }

    /// The body with this number: its values are in no other.
    pub(crate) fn build(&mut self, number: u64) {
        self.body.clear();
        let _ = self.body.write_all(self.head.as_bytes());
        let from = number * self.values;
        for reading in from..from + self.values {
            let id = self.first + reading % ENTITIES;
            append_reading(&mut self.body, reading > from, id, reading, &mut self.time);
        }
        self.body.extend(b"]}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_values_of_a_run_have_the_same_entity_and_moment() {
        let address = "127.0.0.1:1".parse().unwrap();
        let door = Door { address, key: None, org: 7, first: 100 };
        let mut bodies = Bodies::new(&door, 1_500);
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..4 {
            bodies.build(number);
            let body: serde_json::Value = serde_json::from_slice(&bodies.body).unwrap();
            assert_eq!(body["org_id"], 7);
            for value in body["values"].as_array().unwrap() {
                assert_eq!(value.as_object().unwrap().len(), 3);
                assert!(seen.insert((value["entity_id"].as_u64(), value["ts"].to_string())));
            }
        }
        assert_eq!(seen.len(), 6_000);
        assert_eq!(seen.first().unwrap().0, Some(100));
        assert_eq!(seen.last().unwrap().0, Some(2_099));
    }
}
