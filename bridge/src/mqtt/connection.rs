//! One connection to the broker: a reader that may wait, and a writer that does not wait for it.

use super::{
    Broker, Connected, Counted, Incoming, Link, MAX_PUBACKS, Outflow, Take, Unacked, tls, watch,
    writer::{Writer, Writing, send},
};
use domain::{
    Clock, SystemClock,
    raw::MAX_PAYLOAD,
    topic::{STATUS_FILTER as STATUS, TELEMETRY_FILTER as TELEMETRY},
};
use futures_util::{FutureExt, StreamExt};
use nats::{CancellationToken, publish::Patience};
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{
        Codec, ConnAck, Connect, ConnectProperties, ConnectReturnCode, DisconnectReasonCode,
        Filter, Login, Packet, PubAck, PubAckReason, Publish, RetainForwardRule, SubAck, Subscribe,
        SubscribeReasonCode, Unsubscribe,
    },
};
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::codec::{FramedRead, FramedWrite};

/// Largest packet: the largest payload, the longest topic (64 KiB), and what is around them. A
/// broker must be configured to take no larger ones.
pub(super) const MAX_PACKET: usize = MAX_PAYLOAD + (64 << 10) + 64;
/// The broker drops a client that it hears nothing from for one and a half of this.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A broker that is silent for this long, pings notwithstanding, is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(25);
/// Longest wait for the connection to be made and accepted.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the broker to close after goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(2);
/// Bytes read at once.
const READ_BUFFER: usize = 64 << 10;
/// Packet ids of the subscription, and of the one that may be left from another configuration.
const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;
/// The same of what the broker says of itself.
const WATCH_ID: u16 = 3;
/// A session that is to end is empty when the broker sends no message for so long.
const LEAVE_SILENCE: Duration = Duration::from_secs(10);
/// The session outlives every outage (MQTT 5, 3.1.2.11.2: it never expires).
const SESSION_EXPIRY: u32 = u32::MAX;
/// Messages that the broker may send before the first of them is acknowledged.
const RECEIVE_MAXIMUM: u16 = 4_096;

type Reading = FramedRead<Box<dyn AsyncRead + Send + Unpin>, Codec>;

/// Why reading ended.
pub(super) enum Ended {
    /// The connection is gone.
    Lost,
    /// The process is to stop.
    Stopped,
}

/// An accepted connection.
pub(super) struct Connection<'c> {
    reading: Reading,
    writer: JoinHandle<(Result<(), String>, Outflow)>,
    pubacks: mpsc::Sender<u16>,
    /// The broker's answers to what we sent.
    answers: mpsc::Sender<(u16, PubAckReason)>,
    link: Link,
    /// Cancelled where either half finds the connection gone.
    over: CancellationToken,
    counted: &'c mut Counted,
    /// The broker knew the session.
    pub(super) session_present: bool,
    /// The session is to end when it is empty.
    leaving: bool,
    /// When the last message came; the answers to pings are none.
    came: Instant,
    /// What the reader found.
    why: String,
}

impl<'c> Connection<'c> {
    /// Connects, signs in and subscribes. The error is for people. `confirmed` is when the writer
    /// says goodbye.
    pub(super) async fn open(
        broker: &Broker,
        counted: &'c mut Counted,
        confirmed: CancellationToken,
        link: Link,
        outflow: &mut Option<Outflow>,
    ) -> Result<Self, String> {
        let address = &broker.address;
        let opening = timeout(CONNECT_LIMIT, sign_in(broker)).await;
        let opened = opening.unwrap_or_else(|_| Err("it does not answer in time".to_owned()));
        let SignedIn { reading, writing, session_present, receive_maximum } =
            opened.map_err(|why| format!("the MQTT broker at {address}: {why}"))?;
        let mut outflow = outflow.take().ok_or("what is to be sent was lost; please report it")?;
        outflow.begin(receive_maximum);
        if !session_present {
            counted.session = nats::pack::random();
            tracing::warn!(
                "the MQTT broker has no session for this bridge: right at the first start; \
                 otherwise it lost what it had acknowledged while the bridge was away"
            );
        }
        let (pubacks, due) = mpsc::channel(MAX_PUBACKS);
        let (answers, answered) = mpsc::channel(MAX_PUBACKS);
        let over = CancellationToken::new();
        let leaving = broker.leave;
        let writer = Writer { writing, due, answered, outflow, over: over.clone() };
        let writer = tokio::spawn(writer.run(confirmed, leaving));
        let why = String::new();
        let came = Instant::now();
        Ok(Self {
            reading,
            writer,
            pubacks,
            answers,
            link,
            over,
            counted,
            session_present,
            leaving,
            came,
            why,
        })
    }

    /// Reads until the connection is gone or the process is to stop.
    pub(super) async fn read(&mut self, take: &mut impl Take, patience: &Patience) -> Ended {
        loop {
            let packet = match self.next(patience).await {
                Ok(packet) => packet,
                Err(ended) => return ended,
            };
            match packet {
                Packet::Publish(publish) if publish.topic.starts_with(watch::PREFIX.as_bytes()) => {
                    let topic = String::from_utf8_lossy(&publish.topic);
                    self.link.watch.take(&topic, &publish.payload);
                }
                Packet::Publish(publish) if publish.qos != QoS::ExactlyOnce => {
                    let incoming = self.incoming(publish);
                    tokio::select! {
                        biased;
                        taken = take.take(incoming) => if !taken { return Ended::Stopped },
                        () = patience.shutdown.cancelled() => return Ended::Stopped,
                    }
                }
                Packet::SubAck(answer) if answer.pkid == SUBSCRIBE_ID => {
                    if !subscribed(&answer) {
                        return self.lose("it refuses the subscription; check its access list");
                    }
                    patience.moving();
                    let (since, session_kept) = (SystemClock.now(), self.session_present);
                    self.link.set(Some(Connected { since, session_kept }));
                    tracing::info!("subscribed at the MQTT broker");
                }
                Packet::PubAck(PubAck { pkid, reason, .. }) => {
                    // There is room for an answer to each packet id.
                    let _ = self.answers.try_send((pkid, reason));
                }
                // Another broker may say nothing of itself.
                Packet::SubAck(_) | Packet::PingResp(_) | Packet::UnsubAck(_) => {}
                Packet::Disconnect(goodbye) => {
                    let why = match goodbye.reason_code {
                        DisconnectReasonCode::SessionTakenOver => {
                            "another client has taken its session (another bridge of this name?)"
                                .to_owned()
                        }
                        code => format!("it said goodbye: {code:?}"),
                    };
                    return self.lose(&why);
                }
                _ => return self.lose("it sent a packet that was not asked for"),
            }
        }
    }

    /// The next packet, or why there is none.
    async fn next(&mut self, patience: &Patience) -> Result<Packet, Ended> {
        if patience.shutdown.is_cancelled() {
            return Err(Ended::Stopped);
        }
        // Most often it is in the buffer already.
        let mut read = self.reading.next().now_or_never();
        if read.is_none() && self.leaving {
            match timeout_at(self.came + LEAVE_SILENCE, self.reading.next()).await {
                Ok(found) => read = Some(found),
                Err(_silence) => return Err(Ended::Stopped),
            }
        }
        if read.is_none() {
            read = tokio::select! {
                biased;
                () = patience.shutdown.cancelled() => return Err(Ended::Stopped),
                () = self.over.cancelled() => return Err(Ended::Lost),
                read = timeout(SILENCE_LIMIT, self.reading.next()) => read.ok(),
            };
        }
        match read {
            Some(Some(Ok(packet))) => Ok(packet),
            Some(Some(Err(error))) => Err(self.lose(&error.to_string())),
            Some(None) => {
                Err(self.lose("it closed the connection (does another bridge have the same name?)"))
            }
            None => Err(self.lose("it has fallen silent")),
        }
    }

    fn incoming(&mut self, publish: Publish) -> Incoming {
        self.counted.number += 1;
        self.came = Instant::now();
        let Publish { dup, retain: kept, topic, pkid: packet_id, payload, .. } = publish;
        let topic = String::from_utf8_lossy(&topic).into_owned();
        let unacked = Unacked { pubacks: self.pubacks.clone(), packet_id };
        let Counted { session, number } = *self.counted;
        Incoming { topic, payload, dup, kept, packet_id, session, number, unacked }
    }

    fn lose(&mut self, why: &str) -> Ended {
        why.clone_into(&mut self.why);
        Ended::Lost
    }

    /// Ends the writer; says why the connection was lost, and gives back what is to be sent.
    pub(super) async fn lost(self) -> (String, Outflow) {
        self.link.set(None);
        self.over.cancel();
        let (written, outflow) = match self.writer.await {
            Ok(done) => done,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let why = match written {
            Err(why) if self.why.is_empty() => why,
            _ => self.why,
        };
        (format!("the connection to the MQTT broker is lost: {why}"), outflow)
    }

    /// Waits until the writer has sent what is left and said goodbye, and the broker has closed.
    /// What the broker still sends is read and dropped: closing over unread bytes would reset the
    /// connection, and the last acknowledgements could be lost with it.
    pub(super) async fn goodbye(self) {
        self.link.set(None);
        let Self { mut reading, writer, pubacks, over, .. } = self;
        drop(pubacks);
        let closed = async move { while let Some(Ok(_)) = reading.next().await {} };
        let mut closed = std::pin::pin!(closed);
        tokio::select! {
            _ = writer => {
                let _ = timeout(GOODBYE_LIMIT, closed).await;
            }
            () = &mut closed => over.cancel(),
        }
    }
}

fn subscribed(answer: &SubAck) -> bool {
    let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
    !answer.return_codes.is_empty() && answer.return_codes.iter().all(granted)
}

/// What a broker's yes gives.
struct SignedIn {
    reading: Reading,
    writing: Writing,
    session_present: bool,
    /// How much it takes without having answered.
    receive_maximum: Option<u16>,
}

/// Makes the connection, up to and with the subscription; its answer comes among the messages of
/// the session, which the broker may send first.
async fn sign_in(broker: &Broker) -> Result<SignedIn, String> {
    let text = |error: std::io::Error| error.to_string();
    let socket = TcpStream::connect(&broker.address).await.map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let (reader, writer): (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>) =
        match &broker.tls {
            None => {
                let (reader, writer) = socket.into_split();
                (Box::new(reader), Box::new(writer))
            }
            Some(tls) => {
                let secure = tls::secure(socket, broker.host(), tls).await?;
                let (reader, writer) = tokio::io::split(secure);
                (Box::new(reader), Box::new(writer))
            }
        };
    let largest = Some(MAX_PACKET as u32);
    let codec = Codec { max_incoming_size: largest, max_outgoing_size: largest };
    let mut reading = FramedRead::with_capacity(reader, codec.clone(), READ_BUFFER);
    let mut writing = FramedWrite::new(writer, codec);
    let mut properties = ConnectProperties::new();
    properties.session_expiry_interval = Some(SESSION_EXPIRY);
    properties.receive_maximum = Some(RECEIVE_MAXIMUM);
    let connect = Connect {
        keep_alive: KEEP_ALIVE.as_secs() as u16,
        client_id: broker.client_id.clone(),
        clean_start: false,
        properties: Some(properties),
    };
    let login = Login::new(&broker.user, &broker.password);
    send(&mut writing, [Packet::Connect(connect, None, Some(login))]).await?;
    let (session_present, properties) = match reading.next().await {
        Some(Ok(Packet::ConnAck(ConnAck {
            code: ConnectReturnCode::Success,
            session_present,
            properties,
        }))) => (session_present, properties),
        Some(Ok(Packet::ConnAck(answer))) => {
            let user = &broker.user;
            return Err(format!("it refuses the login of user {user}: {:?}", answer.code));
        }
        Some(Ok(_)) => return Err("it does not speak MQTT 5".to_owned()),
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("it closed the connection".to_owned()),
    };
    send(&mut writing, subscription(broker)).await?;
    let receive_maximum = properties.and_then(|properties| properties.receive_max);
    Ok(SignedIn { reading, writing, session_present, receive_maximum })
}

/// What is to be subscribed, and what not: a session remembers what another configuration wanted.
fn subscription(broker: &Broker) -> Vec<Packet> {
    let shared = broker.share.as_ref().map(|group| format!("$share/{group}/{TELEMETRY}"));
    let unsubscribe = |filters: Vec<String>| {
        Packet::Unsubscribe(Unsubscribe { pkid: UNSUBSCRIBE_ID, filters, properties: None })
    };
    if broker.leave {
        let all = [TELEMETRY, STATUS].map(str::to_owned).into_iter().chain(shared);
        return vec![unsubscribe(all.collect())];
    }
    let is_shared = shared.is_some();
    // Every bridge hears every status, in order: of those that one gets and another does not, the last
    // would not be known.
    let paths = [shared.unwrap_or_else(|| TELEMETRY.to_owned()), STATUS.to_owned()];
    let filter = |path: String| {
        let shared = path.starts_with("$share/");
        let mut filter = Filter::new(path, QoS::AtLeastOnce);
        if !shared {
            // Retained messages come once, with a subscription that is new. All that comes is stored:
            // to a session that was there when they were published they would be old readings once
            // more.
            filter.retain_forward_rule = RetainForwardRule::OnNewSubscribe;
        }
        filter
    };
    let mut subscribe = Subscribe::new_many(paths.map(filter), None);
    subscribe.pkid = SUBSCRIBE_ID;
    let mut packets = vec![Packet::Subscribe(subscribe)];
    let own = watch::FILTERS.map(|path| Filter::new(path, QoS::AtMostOnce));
    let mut own = Subscribe::new_many(own, None);
    own.pkid = WATCH_ID;
    packets.push(Packet::Subscribe(own));
    if is_shared {
        // Only when the shared one is there: what comes in between may come twice, and is not lost.
        packets.push(unsubscribe(vec![TELEMETRY.to_owned()]));
    }
    packets
}
