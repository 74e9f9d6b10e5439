//! Just enough MQTT 3.1.1 to load a broker with QoS 1 and to listen to it, cheap in processor time
//! (OASIS MQTT 3.1.1, section 3). A measure needs no more; our bridge uses a real client.

use crate::tls::{self, Secure};
use anyhow::Context;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH_QOS1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
/// The bits of a PUBLISH's first byte that are its type and its QoS.
const TYPE_AND_QOS: u8 = 0xf6;
/// Bytes asked of the socket at once.
const READ: usize = 128 << 10;
/// How long packets may gather before they are read. The broker writes each by itself; who reads
/// each by itself wakes up as often, and takes the broker's processor time. A window of thousands
/// does not notice.
const GATHER: Duration = Duration::from_millis(1);
/// Bytes after which there is no waiting: much more is on its way.
const MUCH: usize = 32 << 10;
/// The largest packet we take: what the broker's configuration allows.
const MAX_PACKET: usize = 8_454_144;

/// Who connects.
pub(crate) struct Session<'a> {
    /// The port on loopback.
    pub(crate) port: u16,
    /// Client id.
    pub(crate) id: &'a str,
    /// Whether the broker forgets the session with the connection.
    pub(crate) clean: bool,
    /// User and password, where it needs one.
    pub(crate) login: Option<(&'a str, &'a str)>,
    /// The folder of the authority, where it comes with TLS and the certificate of its id.
    pub(crate) tls: Option<&'a Path>,
}

/// What packets go over.
enum Stream {
    Plain(TcpStream),
    Secure(Box<Secure>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}

/// A packet that came in.
pub(crate) enum Packet<'a> {
    /// A message of QoS 1 with its id.
    Publish(u16),
    /// The broker's yes to what we published under this id.
    PubAck(u16),
    /// Something else: its first byte and its body.
    Other(u8, &'a [u8]),
}

/// A connection.
pub(crate) struct Client {
    stream: Stream,
    buffer: Vec<u8>,
    /// Where what is not read yet begins and ends in the buffer.
    unread: std::ops::Range<usize>,
    /// Whether the last read found so much that more is likely to be there already.
    busy: bool,
}

impl Client {
    /// Connects and waits for the broker's yes.
    pub(crate) fn connect(session: &Session<'_>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, session.port))
            .with_context(|| format!("nobody listens on port {}", session.port))?;
        stream.set_nodelay(true)?;
        let stream = match session.tls {
            None => Stream::Plain(stream),
            Some(folder) => Stream::Secure(Box::new(tls::secure(stream, folder, session.id)?)),
        };
        let mut client = Self { stream, buffer: vec![0; READ], unread: 0..0, busy: false };
        let mut packet = Vec::new();
        connect(&mut packet, session);
        client.send(&packet)?;
        let mut accepted = false;
        while !accepted {
            client.receive(|packet| match packet {
                Packet::Other(CONNACK, [_, 0]) => {
                    accepted = true;
                    Ok(())
                }
                Packet::Other(CONNACK, body) => anyhow::bail!("the broker refuses: {body:?}"),
                _ => Ok(()),
            })?;
        }
        Ok(client)
    }

    /// Subscribes with QoS 1 and waits for the broker's yes. Messages that come before it are lost
    /// to the caller.
    pub(crate) fn subscribe(&mut self, filter: &str) -> anyhow::Result<()> {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        body.push(1);
        let mut packet = vec![SUBSCRIBE];
        length(&mut packet, body.len());
        packet.extend(body);
        self.send(&packet)?;
        let mut granted = false;
        while !granted {
            self.receive(|packet| match packet {
                Packet::Other(SUBACK, [_, _, 1]) => {
                    granted = true;
                    Ok(())
                }
                Packet::Other(SUBACK, body) => anyhow::bail!("not granted: {body:?}"),
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    /// Writes packets.
    pub(crate) fn send(&mut self, packets: &[u8]) -> anyhow::Result<()> {
        let sent = self.stream.write_all(packets).and_then(|()| self.stream.flush());
        sent.context("the broker closed the connection")
    }

    /// Waits for bytes and hands over each packet that is whole.
    pub(crate) fn receive(
        &mut self,
        mut take: impl FnMut(Packet<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if self.unread.end == self.buffer.len() {
            self.make_room()?;
        }
        if !self.busy {
            thread::sleep(GATHER);
        }
        let count = self.stream.read(&mut self.buffer[self.unread.end..])?;
        anyhow::ensure!(count > 0, "the broker closed the connection");
        self.busy = count >= MUCH;
        self.unread.end += count;
        while let Some((first, body)) = frame(&self.buffer[self.unread.clone()])? {
            let whole = &self.buffer[self.unread.start..];
            take(packet(first, &whole[body.clone()])?)?;
            self.unread.start += body.end;
        }
        if self.unread.is_empty() {
            self.unread = 0..0;
        }
        Ok(())
    }

    fn make_room(&mut self) -> anyhow::Result<()> {
        if self.unread.start == 0 {
            anyhow::ensure!(self.buffer.len() <= MAX_PACKET, "a packet larger than allowed");
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        Ok(())
    }
}

/// The first packet: its first byte, and where its body is. `None` while it is not whole.
fn frame(bytes: &[u8]) -> anyhow::Result<Option<(u8, std::ops::Range<usize>)>> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let mut size = 0;
    for (place, &byte) in rest.iter().take(4).enumerate() {
        size |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let start = place + 2;
            let body = start..start + size;
            return Ok((body.end <= bytes.len()).then_some((first, body)));
        }
    }
    anyhow::ensure!(rest.len() < 4, "a packet's length has more than four bytes");
    Ok(None)
}

fn packet(first: u8, body: &[u8]) -> anyhow::Result<Packet<'_>> {
    let number = |at: usize| {
        let bytes = body.get(at..at + 2).context("a packet is too short")?;
        anyhow::Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    if first & TYPE_AND_QOS == PUBLISH_QOS1 {
        let topic = usize::from(number(0)?);
        return Ok(Packet::Publish(number(2 + topic)?));
    }
    Ok(if first == PUBACK { Packet::PubAck(number(0)?) } else { Packet::Other(first, body) })
}

fn connect(packet: &mut Vec<u8>, session: &Session<'_>) {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    let login = if session.login.is_some() { 0xc0 } else { 0 };
    // Protocol level 4, flags, no keep alive: whoever measures keeps talking.
    body.extend([4, login | u8::from(session.clean) << 1, 0, 0]);
    text(&mut body, session.id);
    if let Some((user, password)) = session.login {
        text(&mut body, user);
        text(&mut body, password);
    }
    packet.push(CONNECT);
    length(packet, body.len());
    packet.extend(body);
}

/// Appends a PUBLISH of QoS 1.
pub(crate) fn publish(packets: &mut Vec<u8>, topic: &str, id: u16, payload: &[u8]) {
    packets.push(PUBLISH_QOS1);
    length(packets, 2 + topic.len() + 2 + payload.len());
    text(packets, topic);
    packets.extend(id.to_be_bytes());
    packets.extend(payload);
}

/// Appends a PUBACK.
pub(crate) fn puback(packets: &mut Vec<u8>, id: u16) {
    packets.extend([PUBACK, 2]);
    packets.extend(id.to_be_bytes());
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_be_bytes());
    body.extend(text.as_bytes());
}

fn length(packet: &mut Vec<u8>, mut size: usize) {
    loop {
        let byte = (size & 0x7f) as u8;
        size >>= 7;
        if size == 0 {
            return packet.push(byte);
        }
        packet.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_framed_as_they_were_written() {
        for size in [0, 100, 127, 128, 20_000, 3_000_000] {
            let mut bytes = Vec::new();
            publish(&mut bytes, "t/1", 7, &vec![b'x'; size]);
            assert!(frame(&bytes[..bytes.len() - 1]).unwrap().is_none());
            let (first, body) = frame(&bytes).unwrap().unwrap();
            assert_eq!(body.end, bytes.len());
            assert!(matches!(packet(first, &bytes[body]).unwrap(), Packet::Publish(7)));
        }
        assert!(frame(&[0x30, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }
}
