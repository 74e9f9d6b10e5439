//! Ten thousand devices that connect at once, say that they are there, and stay: how long it takes until
//! both databases know, and what it takes in memory. Then the broker is restarted, and all come back.

use crate::{
    feed, machine,
    meter::Meter,
    options::Options,
    pipeline::{Services, no_letters},
    report::{CROWD, Report, Sample, progress},
    stack::Stack,
};
use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};
use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

/// Connections that are made at once: the broker's backlog is short.
const AT_ONCE: usize = 500;
/// Descriptors beside the connections.
const OTHERS: u64 = 1_000;
/// Longest wait for all to be there.
const LIMIT: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Seconds of silence after which the broker gives a device up.
const KEEP_ALIVE: u16 = 600;

/// Measures as often as asked.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    machine::raise_descriptors(u64::from(options.crowd) + OTHERS)?;
    stack.register_crowd(options.crowd).await?;
    for round in 1..=options.rounds {
        // A broker that starts now may have as many connections as we.
        let services = Services::start(stack, false).await?;
        let quiet = machine::quiet(options.quiet_wait()).await;
        let meter = Meter::start(&services.watched(stack)?);
        let first = arrive(stack, options.crowd, "first time").await?;
        let cost = meter.look();
        stack.mosquitto.restart().await;
        for target in &stack.targets {
            target.forget_presence().await?;
        }
        drop(first);
        let again = arrive(stack, options.crowd, "after a restart of the broker").await?;
        drop(again);
        services.stop().await?;
        no_letters(stack).await?;
        let (measure, count) = (CROWD.to_owned(), options.crowd.into());
        report.add(Sample {
            measure,
            round,
            unit: "devices",
            count,
            readings_each: 1,
            quiet,
            cost,
        });
    }
    Ok(())
}

/// Connects all, and waits until both databases know that they are there.
async fn arrive(stack: &Stack, crowd: u32, what: &str) -> Result<Vec<TcpStream>> {
    let started = Instant::now();
    let port = stack.mosquitto.port();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    for number in 0..crowd {
        let room = room.clone();
        joining.spawn(async move {
            let _permit = room.acquire().await?;
            connect(port, number).await
        });
    }
    let mut connected = Vec::with_capacity(crowd as usize);
    while let Some(one) = joining.join_next().await {
        connected.push(one.context("a device panicked")??);
    }
    let seconds = started.elapsed().as_secs_f64();
    progress(&format!("{crowd} devices connected in {seconds:.1} s ({what})"));
    loop {
        let mut known = Vec::new();
        for target in &stack.targets {
            known.push(target.online().await?);
        }
        if known.iter().all(|&online| online == u64::from(crowd)) {
            let seconds = started.elapsed().as_secs_f64();
            progress(&format!("both databases know {crowd} after {seconds:.1} s ({what})"));
            return Ok(connected);
        }
        anyhow::ensure!(started.elapsed() < LIMIT, "of {crowd} devices {known:?} are known");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Signs in with a last will and publishes the birth, by MQTT 3.1.1; returns at the broker's yes.
async fn connect(port: u16, number: u32) -> Result<TcpStream> {
    let name = feed::device_name(number.into());
    let topic = format!("devices/{name}/status");
    let text = |packet: &mut BytesMut, text: &str| {
        packet.put_u16(text.len() as u16);
        packet.put_slice(text.as_bytes());
    };
    let mut connect = BytesMut::new();
    text(&mut connect, "MQTT");
    // Level 4; clean session, last will of QoS 1.
    connect.put_slice(&[4, 0b0000_1110]);
    connect.put_u16(KEEP_ALIVE);
    text(&mut connect, &name);
    text(&mut connect, &topic);
    text(&mut connect, "offline");
    let mut birth = BytesMut::new();
    text(&mut birth, &topic);
    birth.put_u16(1);
    birth.put_slice(b"online");
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut answer = [0; 4];
    for (kind, body, yes) in [(0x10, connect, 0x20), (0x32, birth, 0x40)] {
        anyhow::ensure!(body.len() < 128, "a packet of one byte's length");
        let packet = [&[kind, body.len() as u8], &body[..]].concat();
        stream.write_all(&packet).await?;
        stream.read_exact(&mut answer).await?;
        anyhow::ensure!(answer[0] == yes, "{name}: the broker answers {answer:?}");
    }
    Ok(stream)
}
