//! Gateways' reports in parts, until both databases have all of them.

use crate::{
    machine,
    meter::Meter,
    mqtt::{self, Client, Packet, Session},
    options::Options,
    pipeline::{Services, no_letters, until_stored},
    report::{CHUNKS, Report, Sample},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::{DeviceId, chunk::Digest};
use nats::registry;
use serde_json::json;

const GATEWAY: &str = "bench-gateway";
const TYPE: &str = r#"{"device_type":"bench-gateway","processing_mode":"gateway_chunked",
    "protocol_adapter":"json","timestamp":{"pointer":"/ts","format":"rfc3339"},
    "logical_devices":{"pointer":"/data","identifier":"/mac"},
    "metrics":{"rssi":{"pointer":"/rssi","kind":"number"}}}"#;
const BEACONS: u32 = 2_000;
const PARTS: u32 = 67;
/// Packets that may be without the broker's yes.
const WINDOW: u32 = 1_000;

/// Measures as often as asked.
pub(crate) async fn rounds(stack: &Stack, options: &Options, report: &mut Report) -> Result<()> {
    stack.register_devices().await?;
    register(stack).await?;
    for round in 1..=options.rounds {
        let mut services = Services::start(stack, false).await?;
        let (port, reports) = (stack.mosquitto.port(), options.reports);
        // A name that was used minutes ago, with the same digest, would be a copy.
        let first = round * reports;
        let packets: Vec<Vec<u8>> = (first..first + reports).flat_map(parts).collect();
        let quiet = machine::quiet(options.quiet_wait()).await;
        let meter = Meter::start(&services.watched(stack)?);
        let publishing = tokio::task::spawn_blocking(move || publish(port, &packets));
        publishing.await.context("the publisher panicked")??;
        let rows = u64::from(reports * BEACONS) + 1;
        let cost = until_stored(stack, &mut services, &meter, rows).await?;
        services.stop().await?;
        no_letters(stack).await?;
        let measure = CHUNKS.to_owned();
        let (count, readings_each) = (reports.into(), BEACONS.into());
        report.add(Sample { measure, round, unit: "reports", count, readings_each, quiet, cost });
    }
    Ok(())
}

async fn register(stack: &Stack) -> Result<()> {
    let definition = serde_json::from_str(TYPE).context("a device type of ours")?;
    registry::apply_device_type(&stack.admin, &stack.org.key, definition).await?;
    let gateway = DeviceId::parse(GATEWAY)?;
    let of_type = domain::TypeId::parse("bench-gateway")?;
    registry::add_device(&stack.admin, &stack.org.key, gateway.clone(), of_type, None).await?;
    let directory = nats::model::load(&stack.admin).await?;
    let beacons: Vec<String> = (0..BEACONS).map(identifier).collect();
    registry::create_logical(&stack.admin, &directory, &gateway, &beacons).await?;
    Ok(())
}

fn identifier(number: u32) -> String {
    format!("b{number:05}")
}

/// The parts of a report as packets without their ids.
fn parts(report: u32) -> Vec<Vec<u8>> {
    let digest = Digest::of(&report.to_be_bytes()).to_string();
    let each = BEACONS.div_ceil(PARTS);
    let ts = format!("2026-01-01T{:02}:{:02}:00Z", report / 60 % 24, report % 60);
    let part = |index: u32| {
        let numbers = (index * each).min(BEACONS)..((index + 1) * each).min(BEACONS);
        let beacon = |n: u32| json!({"mac": identifier(n), "rssi": -(n as i32) % 90});
        json!({"txn": format!("r{report}"), "index": index, "total": PARTS, "sha256": digest,
            "ts": ts, "data": numbers.map(beacon).collect::<Vec<_>>()})
        .to_string()
        .into_bytes()
    };
    (0..PARTS).map(part).collect()
}

fn publish(port: u16, payloads: &[Vec<u8>]) -> Result<()> {
    let session = Session { port, id: GATEWAY, clean: true, login: None, tls: None };
    let mut client = Client::connect(&session)?;
    let topic = format!("devices/{GATEWAY}/telemetry");
    let (mut sent, mut acked) = (0_u32, 0_u32);
    let mut packets = Vec::new();
    while (acked as usize) < payloads.len() {
        packets.clear();
        while sent - acked < WINDOW && (sent as usize) < payloads.len() && packets.len() < 64 << 10
        {
            let id = (sent % 65_535) as u16 + 1;
            mqtt::publish(&mut packets, &topic, id, &payloads[sent as usize]);
            sent += 1;
        }
        client.send(&packets)?;
        if sent - acked >= WINDOW || sent as usize == payloads.len() {
            client.receive(|packet| {
                acked += u32::from(matches!(packet, Packet::PubAck(_)));
                Ok(())
            })?;
        }
    }
    Ok(())
}
