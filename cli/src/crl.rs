//! `haystack pki serve`: the list of the revoked over HTTP, for brokers that fetch it (RFC 5280,
//! 4.2.1.13), and renewed in time.

use anyhow::{Context, Result};
use domain::{Clock, SystemClock};
use local::pki::Authority;
use service::Lifecycle;
use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{interval, sleep, timeout},
};

/// The only page.
const PAGE: &str = "/crl.pem";
/// How often what is due is renewed.
const REFRESH_EVERY: Duration = Duration::from_hours(1);
/// Longest question.
const MAX_QUESTION: usize = 8 << 10;
/// How long one caller may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Callers at once; more wait.
const CALLERS: usize = 64;
/// After a caller that could not be let in: a lack of files must not become a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the list until SIGTERM or SIGINT.
pub(crate) async fn serve(authority: &Authority, address: SocketAddr) -> Result<()> {
    let lifecycle = Lifecycle::default();
    lifecycle.stop_on_signals()?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{address} can't be listened on; choose another with --http"))?;
    println!("the list of the revoked is at http://{}{PAGE}", listener.local_addr()?);
    tokio::select! {
        () = lifecycle.shutdown.cancelled() => Ok(()),
        () = keep_fresh(authority) => Ok(()),
        () = answer_all(&listener, authority) => Ok(()),
    }
}

async fn keep_fresh(authority: &Authority) {
    let mut hourly = interval(REFRESH_EVERY);
    loop {
        hourly.tick().await;
        // The list that is there may still be good; it is served, and the next hour tries again.
        if let Err(error) = authority.refresh(SystemClock.now()) {
            eprintln!("haystack: the list of the revoked can't be renewed: {error:#}");
        }
    }
}

async fn answer_all(listener: &TcpListener, authority: &Authority) {
    let callers = Arc::new(Semaphore::new(CALLERS));
    loop {
        let place = Arc::clone(&callers).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let authority = authority.clone();
        tokio::spawn(async move {
            // A caller that is too slow or gone is its own affair.
            let _ = timeout(CALL_LIMIT, answer(stream, &authority)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: TcpStream, authority: &Authority) -> io::Result<()> {
    let question = question(&mut stream).await?;
    let mut words = question.split(' ');
    let list = match (words.next(), words.next()) {
        (Some("GET"), Some(PAGE)) => {
            fs::read(authority.crl()).map_err(|_| "500 Internal Server Error")
        }
        (Some("GET"), _) => Err("404 Not Found"),
        _ => Err("405 Method Not Allowed"),
    };
    let (status, body) = match list {
        Ok(list) => ("200 OK", list),
        Err(status) => (status, Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/x-pem-file\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

/// The first line; all of the question is read, for what is left unread would reset the connection.
async fn question(stream: &mut TcpStream) -> io::Result<String> {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        let mut some = [0; 1024];
        let count = stream.read(&mut some).await?;
        all.extend_from_slice(&some[..count]);
        if count == 0 || all.len() > MAX_QUESTION {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let text = String::from_utf8_lossy(&all);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(question: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(folder.path(), &[], SystemClock.now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        stream.write_all(question).await.unwrap();
        let mut answer = String::new();
        tokio::select! {
            () = answer_all(&listener, &authority) => unreachable!("it goes on for ever"),
            read = stream.read_to_string(&mut answer) => { read.unwrap(); }
        }
        answer
    }

    #[tokio::test]
    async fn the_list_is_served_and_nothing_else() {
        let answer = ask(b"GET /crl.pem HTTP/1.1\r\nHost: pki\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("-----BEGIN X509 CRL-----"), "{body}");
        for (question, status) in [
            ("GET /ca.key HTTP/1.1\r\n\r\n", "404"),
            ("GET /../crl.pem HTTP/1.1\r\n\r\n", "404"),
            ("POST /crl.pem HTTP/1.1\r\n\r\n", "405"),
        ] {
            let answer = ask(question.as_bytes()).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{question}: {answer}");
        }
    }

    #[tokio::test]
    async fn an_endless_question_is_cut_off() {
        assert_eq!(ask(&[b'x'; MAX_QUESTION + 1]).await, "");
    }
}
