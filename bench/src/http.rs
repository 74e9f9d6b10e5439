//! HTTP/1.1 (RFC 9112) over one connection that is kept. By hand: the client shares the cores with what it
//! measures, so it does as little as can be.

use anyhow::{Context, Result};
use bytes::Buf;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_mins(3);
/// What ends the headers.
const BLANK_LINE: &[u8] = b"\r\n\r\n";
/// Headers that every request has.
const HEADERS: &str = "host: 127.0.0.1\r\ncontent-type: application/json\r\n";

/// A connection to a server.
pub(crate) struct Connection {
    stream: TcpStream,
    key: String,
    answer: Vec<u8>,
}

/// What a server said.
pub(crate) struct Answer<'a> {
    /// The status.
    pub(crate) status: u16,
    /// All of the body.
    pub(crate) body: &'a [u8],
}

impl Answer<'_> {
    /// An error with what was said, unless it is 200.
    pub(crate) fn yes(&self) -> Result<()> {
        const SHOWN: usize = 500;
        let said = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN)]);
        anyhow::ensure!(self.status == 200, "the API answers {}: {said}", self.status);
        Ok(())
    }
}

impl Connection {
    /// Connects; `key` goes with every request where there is one.
    pub(crate) async fn open(address: SocketAddr, key: Option<&str>) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let key = key.map(|key| format!("x-api-key: {key}\r\n")).unwrap_or_default();
        Ok(Self { stream, key, answer: Vec::new() })
    }

    /// Asks for something.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer<'_>> {
        let head = format!("GET {path} HTTP/1.1\r\n{HEADERS}{}\r\n", self.key);
        self.exchange(&head, &[]).await
    }

    /// Sends something.
    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> Result<Answer<'_>> {
        let (key, length) = (&self.key, body.len());
        let head =
            format!("POST {path} HTTP/1.1\r\n{HEADERS}{key}content-length: {length}\r\n\r\n");
        self.exchange(&head, body).await
    }

    async fn exchange(&mut self, head: &str, body: &[u8]) -> Result<Answer<'_>> {
        let Self { stream, answer, .. } = self;
        answer.clear();
        let exchanging = async {
            stream.write_all_buf(&mut Buf::chain(head.as_bytes(), body)).await?;
            loop {
                let read = stream.read_buf(answer).await?;
                anyhow::ensure!(read > 0, "the server closed the connection");
                if let Some(head) = Head::of(answer)? {
                    return anyhow::Ok(head);
                }
            }
        };
        let head = timeout(LIMIT, exchanging).await.context("no answer")??;
        let end = head.length + head.body_length;
        answer.reserve(end.saturating_sub(answer.len()));
        while answer.len() < end {
            let read =
                timeout(LIMIT, stream.read_buf(answer)).await.context("half an answer")??;
            anyhow::ensure!(read > 0, "the server closed the connection within an answer");
        }
        Ok(Answer { status: head.status, body: &answer[head.length..end] })
    }
}

/// An answer's status line and headers.
struct Head {
    status: u16,
    /// Bytes of all this.
    length: usize,
    body_length: usize,
}

impl Head {
    /// `None` where it is not all there yet.
    fn of(answer: &[u8]) -> Result<Option<Self>> {
        let end = answer.windows(BLANK_LINE.len()).position(|bytes| bytes == BLANK_LINE);
        let Some(end) = end else { return Ok(None) };
        let text = std::str::from_utf8(&answer[..end]).context("headers are text")?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let named = |line: &str| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        };
        Ok(Some(Self {
            status: status.context("no status line")?,
            length: end + BLANK_LINE.len(),
            body_length: lines.find_map(named).context("an answer without its length")?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_its_headers_are_there() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nA: b\r\nContent-Length: 12\r\n\r\nhalf";
        assert!(Head::of(&answer[..50]).unwrap().is_none());
        let head = Head::of(answer).unwrap().unwrap();
        assert_eq!((head.status, head.body_length), (503, 12));
        assert_eq!(&answer[head.length..], b"half");
        assert!(Head::of(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
