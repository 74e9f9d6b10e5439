//! Whether a service of ours is alive and ready, by its own health pages.

use local::{PROBE_EVERY, PROBE_TIMEOUT};
use std::net::Ipv4Addr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const ANSWER: &[u8] = b"HTTP/1.0 200 ";

/// Resolves when the service on this port answers that it is alive.
pub(crate) async fn alive(port: u16) -> anyhow::Result<()> {
    until_ok(port, "/healthz").await;
    Ok(())
}

/// Resolves when the service on this port holds nothing: the bridge is subscribed, the databases
/// follow the model.
pub(crate) async fn ready(port: u16) {
    until_ok(port, "/readyz").await;
}

async fn until_ok(port: u16, page: &str) {
    loop {
        if let Ok(Ok(answer)) = timeout(PROBE_TIMEOUT, ask(port, page)).await
            && answer[9..] == ANSWER[9..]
        {
            return;
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

async fn ask(port: u16, page: &str) -> std::io::Result<[u8; ANSWER.len()]> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let question = format!("GET {page} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = [0; ANSWER.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
