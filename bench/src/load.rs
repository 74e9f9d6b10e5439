//! `haystack-bench load`: many devices that publish by QoS 1, over a few connections.

use crate::{
    feed,
    message::{DEVICES, METRICS, Messages, Shape},
    mqtt::{Client, Packet, Session},
};
use anyhow::Context;
use std::{
    collections::HashMap,
    io::{BufRead, Write},
    path::PathBuf,
    sync::{Arc, Barrier},
    thread,
    time::Instant,
};

/// Bytes of messages written at once.
const WRITE: usize = 64 << 10;
/// `key=value` arguments.
pub(crate) struct Args(HashMap<String, String>);

impl Args {
    /// Reads them; a key that is not among `known` is an error.
    pub(crate) fn parse(args: &[String], known: &[&str]) -> anyhow::Result<Self> {
        let pair = |text: &String| {
            let (key, value) = text.split_once('=').with_context(|| format!("{text}: no ="))?;
            anyhow::ensure!(known.contains(&key), "{key}: unknown; known are {}", known.join(", "));
            Ok((key.to_owned(), value.to_owned()))
        };
        args.iter().map(pair).collect::<anyhow::Result<_>>().map(Self)
    }

    /// A number, or its default.
    pub(crate) fn number(&self, key: &str, default: u64) -> anyhow::Result<u64> {
        let Some(text) = self.0.get(key) else { return Ok(default) };
        text.parse().with_context(|| format!("{key}={text}: a number is expected"))
    }

    /// A text, or its default.
    pub(crate) fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.0.get(key).map_or(default, String::as_str)
    }
}

/// The broker's port, from the environment.
pub(crate) fn port() -> anyhow::Result<u16> {
    let text = std::env::var("MQTT_PORT").context("MQTT_PORT: the broker's port is expected")?;
    text.parse().context("MQTT_PORT: a port is expected")
}

/// Says a word to whoever started us.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    println!("{text}");
    Ok(std::io::stdout().flush()?)
}

/// Waits for a line (or the end) of standard input.
pub(crate) fn wait_for_line() -> anyhow::Result<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

#[derive(Debug, Clone)]
struct Load {
    messages: u64,
    /// Readings in each.
    per: u64,
    /// Least bytes of each.
    size: usize,
    /// Messages of one connection that may wait for the broker's yes.
    window: u64,
    connections: u64,
    /// Devices that they speak for.
    devices: u64,
    shape: Shape,
    /// The folder of the authority: each connection is its device's, by certificate.
    tls: Option<PathBuf>,
}

/// Runs the load. With `gate=1` it says `ready`, begins at a line of standard input and ends with
/// its end, so that whoever started it can look at what it cost.
pub(crate) fn main(args: &[String]) -> anyhow::Result<()> {
    let known = ["n", "per", "size", "window", "connections", "devices", "shape", "tls", "gate"];
    let args = Args::parse(args, &known)?;
    let load = Load {
        messages: args.number("n", 100_000)?,
        per: args.number("per", 1)?,
        size: args.number("size", 200)? as usize,
        window: args.number("window", 1_000)?.clamp(1, 60_000),
        connections: args.number("connections", 4)?.clamp(1, 64),
        devices: args.number("devices", DEVICES)?.clamp(1, DEVICES),
        shape: match args.text("shape", "values") {
            "values" => Shape::Values,
            "device" => Shape::Device,
            other => anyhow::bail!("shape={other}: values or device"),
        },
        tls: Some(args.text("tls", "")).filter(|path| !path.is_empty()).map(PathBuf::from),
    };
    anyhow::ensure!(
        load.tls.is_none() || load.connections == load.devices,
        "with TLS each device has a connection of its own: connections and devices are the same"
    );
    let gate = args.number("gate", 0)? == 1;
    anyhow::ensure!(
        load.shape == Shape::Values || (1..=METRICS).contains(&load.per),
        "per: a device has 1 to {METRICS} metrics"
    );
    let messages = load.messages;
    let seconds = run(&load, gate)?;
    let rate = messages as f64 / seconds;
    say(&format!("{{\"messages\":{messages},\"seconds\":{seconds:.4},\"per_second\":{rate:.1}}}"))?;
    if gate { wait_for_line() } else { Ok(()) }
}

fn run(load: &Load, gate: bool) -> anyhow::Result<f64> {
    let port = port()?;
    let start = Arc::new(Barrier::new(load.connections as usize + 1));
    let mut threads = Vec::new();
    for number in 0..load.connections {
        let id = match &load.tls {
            Some(_) => feed::device_name(number),
            None => format!("load-{}-{number}", std::process::id()),
        };
        let tls = load.tls.as_deref();
        let mut client =
            Client::connect(&Session { port, id: &id, clean: true, login: None, tls })?;
        let (start, load) = (start.clone(), load.clone());
        threads.push(thread::spawn(move || {
            start.wait();
            publish_all(&mut client, &load, number)
        }));
    }
    if gate {
        say("ready")?;
        wait_for_line()?;
    }
    start.wait();
    let started = Instant::now();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a connection's thread panicked"))??;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Publishes every message whose number belongs to this connection. At most `window` are without
/// the broker's yes; half of it may come back before more are written, so that writes are few.
fn publish_all(client: &mut Client, load: &Load, connection: u64) -> anyhow::Result<()> {
    let mut numbers = (connection..load.messages).step_by(load.connections as usize);
    let total = numbers.clone().count() as u64;
    let mut writer = Messages::new(load.shape, load.per, load.size, connection, load.devices);
    let (mut sent, mut acked) = (0, 0);
    let mut packets = Vec::with_capacity(WRITE * 2);
    while acked < total {
        packets.clear();
        while sent - acked < load.window && packets.len() < WRITE {
            let Some(number) = numbers.next() else { break };
            // Ids go round; the window is smaller than the circle.
            writer.append(&mut packets, number, (sent % 65_535) as u16 + 1);
            sent += 1;
        }
        client.send(&packets)?;
        if sent == total || sent - acked >= load.window / 2 {
            client.receive(|packet| {
                acked += u64::from(matches!(packet, Packet::PubAck(_)));
                Ok(())
            })?;
        }
    }
    Ok(())
}
