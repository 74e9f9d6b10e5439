//! `haystack-bench drain`: a subscriber that does nothing but acknowledge, within a millisecond.
//! What Mosquitto alone carries, in and out, is measured with it.

use crate::{
    load::{Args, port, say, wait_for_line},
    mqtt::{self, Client, Packet, Session},
};
use anyhow::Context;

/// Says `ready` when it is subscribed, and how many came when all have; ends with its standard
/// input. The user `bridge` needs its password in `MQTT_PASSWORD`.
pub(crate) fn main(args: &[String]) -> anyhow::Result<()> {
    let args = Args::parse(args, &["n", "filter", "clean"])?;
    let expected = args.number("n", 0)?;
    let password = std::env::var("MQTT_PASSWORD").context("MQTT_PASSWORD: the bridge's")?;
    let session = Session {
        port: port()?,
        id: "bench-drain",
        clean: args.number("clean", 1)? == 1,
        login: Some((local::mosquitto::USER, &password)),
        tls: None,
    };
    let mut client = Client::connect(&session)?;
    client.subscribe(args.text("filter", domain::topic::TELEMETRY_FILTER))?;
    say("ready")?;
    let mut received = 0;
    let mut acks = Vec::new();
    while received < expected {
        acks.clear();
        client.receive(|packet| {
            if let Packet::Publish(id) = packet {
                mqtt::puback(&mut acks, id);
                received += 1;
            }
            Ok(())
        })?;
        client.send(&acks)?;
    }
    say(&format!("{{\"received\":{received}}}"))?;
    wait_for_line()
}
