//! MQTT 5, as far as a subscriber needs it: one session that outlives connections, and
//! acknowledgements that need a proof.
//!
//! Everything of the client library is in this module. Of rumqttc only the packets and their codec
//! are used, not its event loop: that loop reads, acknowledges and pings in one place, so that
//! whoever makes it wait (a full `RAW`) also stops the acknowledgements and the pings, the broker
//! ends the connection, and everything comes again. Here reading may wait as long as it must while
//! the writer goes on: what waits is bounded by the door, what the broker has sent without an
//! acknowledgement by the broker (`max_inflight_messages`), and the connection lives. It also sends
//! all acknowledgements that are due in one write.
//!
//! An acknowledgement belongs to the connection that brought the message: after a reconnect its
//! packet id may mean another message, and it goes nowhere, for its queue is gone.

mod broker;
mod connection;
mod outgoing;
mod sender;
mod tls;
mod watch;
mod writer;

pub use broker::{Broker, InvalidBroker, Tls};
pub use outgoing::{Connected, Link, NotSent, Outflow, Outgoing, Sent};
pub use sender::Sender;
pub use watch::Heard;

use bytes::Bytes;
use connection::{Connection, Ended};
use nats::{CancellationToken, Fsynced, publish::Patience, retry};
use std::time::Instant;
use tokio::sync::mpsc;

/// Acknowledgements that may wait to be written: as many as there are packet ids, so that one
/// that is due always finds room, and saying yes never waits for the broker.
const MAX_PUBACKS: usize = 1 << 16;

/// A message as the broker delivered it.
#[derive(Debug)]
pub struct Incoming {
    /// Its topic.
    pub topic: String,
    /// Its payload. It may share memory with its neighbours: copy what is to be kept.
    pub payload: Bytes,
    /// The broker says that it delivered it before.
    pub dup: bool,
    /// The broker had kept it (retained): nobody said it just now.
    pub kept: bool,
    /// Its id in the connection; 0 at QoS 0.
    pub packet_id: u16,
    /// The broker's session, by a random number: it outlives connections.
    pub session: u64,
    /// Its number since this process began, from 1.
    pub number: u64,
    /// What is owed to the broker.
    pub unacked: Unacked,
}

/// A message that the broker keeps until it is confirmed. Dropped, it comes again in the next
/// connection.
#[derive(Debug)]
pub struct Unacked {
    pubacks: mpsc::Sender<u16>,
    packet_id: u16,
}

impl Unacked {
    /// Tells the broker that the message is safe (PUBACK), with the proof. Acknowledgements leave
    /// in the order of these calls. At QoS 0, or where the connection is gone, nothing is sent.
    ///
    /// With the stream's yes it compiles:
    /// ```
    /// fn done(message: haystack_bridge::mqtt::Unacked, stored: nats::Fsynced) {
    ///     message.confirm(&stored);
    /// }
    /// ```
    /// With a message that was only sent it does not:
    /// ```compile_fail
    /// fn done(message: haystack_bridge::mqtt::Unacked, sent: nats::publish::Outgoing) {
    ///     message.confirm(&sent);
    /// }
    /// ```
    pub fn confirm(self, _stored: &Fsynced) {
        // At QoS 0 nothing is owed, and an acknowledgement of packet 0 would end the connection.
        if self.packet_id != 0 {
            // No receiver: the connection is gone, and the message comes again.
            let _ = self.pubacks.try_send(self.packet_id);
        }
    }
}

/// Who takes messages.
pub trait Take: Send {
    /// Takes a message, in the order of delivery; waits where too much waits already. `false`: no
    /// more is taken.
    fn take(&mut self, incoming: Incoming) -> impl Future<Output = bool> + Send;
}

/// A bridge that is to leave had no place at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker has no session of this bridge: check bridge.instance and mqtt.url")]
pub struct NoSession;

/// What is counted over connections.
#[derive(Debug, Clone, Copy)]
struct Counted {
    session: u64,
    number: u64,
}

/// Receives until shutdown, through every outage of the broker. Then takes no more, drops `take`,
/// waits for `confirmed` (all that was taken is confirmed or given up), sends what acknowledgements
/// are left and says goodbye; the session stays with the broker. `session` is the number that it had
/// in an earlier process.
pub async fn listen(
    broker: &Broker,
    mut take: impl Take,
    session: Option<u64>,
    (link, outflow): (Link, Outflow),
    patience: &Patience,
    confirmed: CancellationToken,
) -> Result<(), NoSession> {
    let mut outflow = Some(outflow);
    let mut pauses = retry::Pauses::default();
    let session = session.unwrap_or_else(nats::pack::random);
    let mut counted = Counted { session, number: 0 };
    loop {
        let began = Instant::now();
        let opened = tokio::select! {
            () = patience.shutdown.cancelled() => return Ok(()),
            opened = Connection::open(
                broker,
                &mut counted,
                confirmed.clone(),
                link.clone(),
                &mut outflow,
            ) => opened,
        };
        let why = match opened {
            Err(why) => why,
            Ok(connection) if broker.leave && !connection.session_present => {
                drop(take);
                connection.goodbye().await;
                return Err(NoSession);
            }
            Ok(mut connection) => match connection.read(&mut take, patience).await {
                Ended::Lost => {
                    let (why, left) = connection.lost().await;
                    outflow = Some(left);
                    why
                }
                Ended::Stopped => {
                    drop(take);
                    connection.goodbye().await;
                    return Ok(());
                }
            },
        };
        // A connection that ends at once (a second bridge of the same name) is no success.
        if began.elapsed() > retry::LONGEST {
            pauses = retry::Pauses::default();
        }
        if !patience.pause(&mut pauses, &why).await {
            return Ok(());
        }
    }
}
