//! The writing half of a connection: it never waits for the reader.

use super::{Outflow, Outgoing};
use futures_util::SinkExt;
use nats::CancellationToken;
use rumqttc::v5::mqttbytes::{
    Error as MqttError,
    v5::{
        Codec, Disconnect, DisconnectProperties, DisconnectReasonCode, Packet, PingReq, PubAck,
        PubAckReason,
    },
};
use std::time::Duration;
use tokio::{
    io::AsyncWrite,
    sync::mpsc,
    time::{interval, timeout},
};
use tokio_util::codec::FramedWrite;

/// A ping is sent this often, whatever else is sent.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for the broker to take what is written.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Where packets are written.
pub(super) type Writing = FramedWrite<Box<dyn AsyncWrite + Send + Unpin>, Codec>;

/// Acknowledgements as they come due, what goes out to devices, and pings.
pub(super) struct Writer {
    pub(super) writing: Writing,
    /// Packet ids to be acknowledged.
    pub(super) due: mpsc::Receiver<u16>,
    /// The broker's answers to what we sent.
    pub(super) answered: mpsc::Receiver<(u16, PubAckReason)>,
    pub(super) outflow: Outflow,
    /// Cancelled where either half finds the connection gone.
    pub(super) over: CancellationToken,
}

impl Writer {
    /// Writes until goodbye or the connection's end; gives back what was not sent or not answered.
    pub(super) async fn run(
        mut self,
        confirmed: CancellationToken,
        leaving: bool,
    ) -> (Result<(), String>, Outflow) {
        let written = self.write(confirmed, leaving).await;
        if written.is_err() {
            self.over.cancel();
        }
        // Answers that came before the end.
        while let Ok((id, reason)) = self.answered.try_recv() {
            self.outflow.answered(id, reason);
        }
        (written, self.outflow)
    }

    async fn write(&mut self, confirmed: CancellationToken, leaving: bool) -> Result<(), String> {
        let mut pings = interval(PING_EVERY);
        loop {
            tokio::select! {
                () = self.over.cancelled() => return Ok(()),
                Some(first) = self.due.recv() => self.acknowledge(Some(first)).await?,
                Some((id, reason)) = self.answered.recv() => self.outflow.answered(id, reason),
                Some(next) = self.outflow.next(), if self.outflow.has_room() => {
                    self.publish(next).await?;
                }
                _ = pings.tick() => self.send([Packet::PingReq(PingReq)]).await?,
                () = confirmed.cancelled() => {
                    self.acknowledge(None).await?;
                    // Receipts of what was just confirmed; nobody waits for the broker's answers.
                    if self.outflow.has_room() && let Some(next) = self.outflow.try_next() {
                        self.publish(next).await?;
                    }
                    return self.send([goodbye(leaving)]).await;
                }
            }
        }
    }

    /// Sends what is due now, together.
    async fn acknowledge(&mut self, first: Option<u16>) -> Result<(), String> {
        let due = &mut self.due;
        let all = first.into_iter().chain(std::iter::from_fn(|| due.try_recv().ok()));
        let packets = all.map(|packet_id| Packet::PubAck(PubAck::new(packet_id, None)));
        send(&mut self.writing, packets).await
    }

    /// Sends a message and what else waits, as far as the broker takes it.
    async fn publish(&mut self, first: Outgoing) -> Result<(), String> {
        let (mut next, mut packets) = (Some(first), Vec::new());
        while let Some(outgoing) = next {
            packets.extend(self.outflow.publish(outgoing).map(Packet::Publish));
            next = if self.outflow.has_room() { self.outflow.try_next() } else { None };
        }
        self.send(packets).await
    }

    async fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> Result<(), String> {
        send(&mut self.writing, packets).await
    }
}

fn goodbye(leaving: bool) -> Packet {
    let mut goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
    if leaving {
        // The session ends with the connection (MQTT 5, 3.14.2.2.2).
        goodbye.properties = Some(DisconnectProperties {
            session_expiry_interval: Some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        });
    }
    Packet::Disconnect(goodbye)
}

/// Writes packets, all of them or an error.
pub(super) async fn send(
    writing: &mut Writing,
    packets: impl IntoIterator<Item = Packet>,
) -> Result<(), String> {
    let sending = async {
        for packet in packets {
            writing.feed(packet).await?;
        }
        writing.flush().await
    };
    match timeout(WRITE_LIMIT, sending).await {
        Ok(sent) => sent.map_err(|error: MqttError| error.to_string()),
        Err(_) => Err("it takes nothing any more".to_owned()),
    }
}
