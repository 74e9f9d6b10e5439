//! What the stream server takes when each message is on the disk before it says yes: one by one,
//! many in flight, and in our packs.

use crate::{
    feed, machine,
    meter::{Cost, Meter},
    options::Options,
    report::{Report, Sample},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::{
    Clock, DeviceId, Holds, SystemClock, TypeId,
    raw::{ProfileRef, RawMessage, Sender},
    subject::Subject,
};
use futures_util::{StreamExt, stream};
use nats::{
    CancellationToken, Fsynced, PublishFault,
    pack::{Door, door},
    publish::{Outgoing, Patience, publish},
    streams::RAW,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// How long each measure publishes.
const DURATION: Duration = Duration::from_secs(3);
/// Bytes of a device's message.
const PAYLOAD: usize = 200;
/// Messages in flight, and producers that each wait for their yes: as many as the broker lets
/// wait.
const WINDOW: usize = 4_096;

/// Single messages, window 1 and 4,096, and packs.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    for round in 1..=options.rounds {
        for window in [1, WINDOW] {
            stack.purge(RAW).await?;
            let quiet = machine::quiet(options.quiet_wait()).await;
            let (count, cost) = singles(stack, window).await?;
            let measure = format!("durable publish, one by one, {window} in flight");
            report.add(sample(measure, round, count, quiet, cost));
        }
        stack.purge(RAW).await?;
        let quiet = machine::quiet(options.quiet_wait()).await;
        let (count, cost) = packs(stack).await?;
        let measure = format!("durable publish, packs, {WINDOW} producers");
        report.add(sample(measure, round, count, quiet, cost));
    }
    stack.purge(RAW).await
}

fn sample(measure: String, round: u32, count: u64, quiet: bool, cost: Cost) -> Sample {
    Sample { measure, round, unit: "messages", count, readings_each: 1, quiet, cost }
}

fn meter(stack: &Stack) -> Meter {
    Meter::start(&[("client", std::process::id()), ("nats", stack.nats_pid())])
}

async fn singles(stack: &Stack, window: usize) -> Result<(u64, Cost)> {
    let subject = Subject::Raw { door: "mqtt".to_owned(), instance: "bench".to_owned() };
    let subject = subject.to_string();
    let random = nats::pack::random();
    let meter = meter(stack);
    let deadline = Instant::now() + DURATION;
    let numbers = (0_u64..).take_while(|_| Instant::now() < deadline);
    let send = |number| {
        let id = format!("{random:016x}-{number}");
        let message = Outgoing::new(&subject, &id, vec![b'x'; PAYLOAD].into());
        async move { publish(&stack.bridge, message).await }
    };
    let stored = stream::iter(numbers).map(send).buffer_unordered(window);
    let count = stored.fold(Ok(0), |count: Result<u64, PublishFault>, stored| async move {
        Ok(count? + u64::from(stored?.sequence() > 0))
    });
    let count = count.await.context("publishing to RAW")?;
    Ok((count, meter.look()))
}

/// Producers that each send their next message when the last one is stored: what devices behind
/// a broker do whose window is as large.
async fn packs(stack: &Stack) -> Result<(u64, Cost)> {
    let patience = Patience {
        holds: Holds::default(),
        what: "raw".to_owned(),
        shutdown: CancellationToken::new(),
    };
    let (door, packer) = door(stack.bridge.clone(), "mqtt", "bench", patience);
    let packer = tokio::spawn(packer.run(confirm));
    let stored = Arc::new(AtomicU64::new(0));
    let meter = meter(stack);
    let deadline = Instant::now() + DURATION;
    let mut producers = Vec::with_capacity(WINDOW);
    for number in 0..WINDOW as u64 {
        let message = device_message(stack, number % feed::ENTITIES)?;
        producers.push(tokio::spawn(produce(door.clone(), message, deadline, stored.clone())));
    }
    drop(door);
    for producer in producers {
        producer.await.context("a producer panicked")??;
    }
    let cost = meter.look();
    packer.await.context("the packer panicked")?;
    Ok((stored.load(Ordering::Relaxed), cost))
}

async fn confirm(waiting: Vec<oneshot::Sender<()>>, _stored: Fsynced) {
    for producer in waiting {
        // A producer that went away needs no yes.
        let _ = producer.send(());
    }
}

async fn produce(
    door: Door<oneshot::Sender<()>>,
    message: RawMessage<'static>,
    deadline: Instant,
    stored: Arc<AtomicU64>,
) -> Result<()> {
    while Instant::now() < deadline {
        let (ticket, yes) = oneshot::channel();
        anyhow::ensure!(door.accept(message.clone(), ticket).await, "the packer ended");
        yes.await.context("a pack was not stored")?;
        stored.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn device_message(stack: &Stack, device: u64) -> Result<RawMessage<'static>> {
    let name = feed::device_name(device);
    let profile = ProfileRef { id: TypeId::parse("bench-device")?, version: 1 };
    let device = DeviceId::parse(&name)?;
    Ok(RawMessage {
        name: name.into(),
        sender: Some(Sender { org: stack.org.key.clone(), device, profile }),
        content_type: "".into(),
        received_at: SystemClock.now(),
        session: 1,
        packet_id: 1,
        number: 1,
        payload: vec![b'x'; PAYLOAD].into(),
    })
}
