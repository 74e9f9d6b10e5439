//! A device's side of MQTT, as far as a demonstration needs it: one message at a time, QoS 1.

use rumqttc::{Codec, ConnAck, Connect, ConnectReturnCode, Packet, Publish, QoS};
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::codec::Framed;

use super::connection::MAX_PACKET;
use futures_util::{SinkExt, StreamExt};

/// Longest wait for one answer of the broker.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Seconds of silence after which the broker may drop the sender.
const KEEP_ALIVE_SECONDS: u16 = 60;

/// A connection to the broker that publishes. It speaks MQTT 3.1.1, as most devices do.
pub struct Sender {
    framed: Framed<TcpStream, Codec>,
    packet_id: u16,
}

impl Sender {
    /// Connects without a login. `address` is `host:port`; the error is for people.
    pub async fn connect(address: &str, client_id: &str) -> Result<Self, String> {
        let text = |error: std::io::Error| format!("the MQTT broker at {address}: {error}");
        let socket = TcpStream::connect(address).await.map_err(text)?;
        let codec = Codec { max_incoming_size: MAX_PACKET, max_outgoing_size: MAX_PACKET };
        let mut sender = Self { framed: Framed::new(socket, codec), packet_id: 0 };
        let mut connect = Connect::new(client_id);
        connect.clean_session = true;
        connect.keep_alive = KEEP_ALIVE_SECONDS;
        match sender.ask(Packet::Connect(connect)).await? {
            Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, .. }) => Ok(sender),
            other => Err(format!("the MQTT broker at {address} refuses: {other:?}")),
        }
    }

    /// Publishes and waits for the broker's yes.
    pub async fn publish(&mut self, topic: &str, payload: String) -> Result<(), String> {
        // Ids run from 1; one is in use at a time.
        self.packet_id = self.packet_id % u16::MAX + 1;
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        publish.pkid = self.packet_id;
        match self.ask(Packet::Publish(publish)).await? {
            Packet::PubAck(ack) if ack.pkid == self.packet_id => Ok(()),
            other => Err(format!("the broker answered {other:?}")),
        }
    }

    async fn ask(&mut self, packet: Packet) -> Result<Packet, String> {
        let asking = async {
            self.framed.send(packet).await.map_err(|error| error.to_string())?;
            let answer = self.framed.next().await;
            answer.ok_or("the broker closed the connection")?.map_err(|error| error.to_string())
        };
        timeout(ANSWER_LIMIT, asking).await.map_err(|_| "the broker does not answer".to_owned())?
    }
}
