//! `haystack healthy`: whether a service answers, told by the exit code. For health checks of
//! containers, whose images have no other program that speaks HTTP.

use crate::Globals;
use clap::{Args, ValueEnum};
use service::Config;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The page by which a service says that it is alive.
const ALIVE: &str = "/healthz";
/// How an answer begins: its version and status, `HTTP/1.1 200`.
const HEAD: usize = 12;
const VERSION: &[u8] = b"HTTP/1.";

#[derive(Args)]
pub(crate) struct HealthyArgs {
    /// The service, where the configuration says it listens [default: those that run here, at least
    /// one]
    role: Option<Service>,
    /// Ask this page instead, e.g. `http://127.0.0.1:8001/readyz`
    #[arg(long, conflicts_with = "role", value_parser = page)]
    url: Option<Page>,
    /// Longest wait for the answer, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

/// A service with a page of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Service {
    Bridge,
    Ingest,
    Simulator,
    ControlApi,
}

impl Service {
    /// Its subcommand.
    fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Ingest => "ingest",
            Self::Simulator => "simulator",
            Self::ControlApi => "control-api",
        }
    }

    /// Where it listens.
    fn address(self, config: &Config) -> SocketAddr {
        match self {
            Self::Bridge => config.bridge.http,
            Self::Ingest => config.ingest.http,
            Self::Simulator => config.simulator.http,
            Self::ControlApi => config.api.http,
        }
    }

    /// Whether it listens with TLS, which we do not speak here: then being let in is the answer.
    fn secure(self, config: &Config) -> bool {
        self == Self::ControlApi && config.api.tls_cert.is_some()
    }
}

/// A page of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    /// `host:port`
    address: String,
    path: String,
}

fn page(url: &str) -> Result<Page, String> {
    let rest = url.strip_prefix("http://").ok_or("http://host:port/path is expected")?;
    let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if !matches!(port, Some(Ok(_))) || url.contains(char::is_whitespace) {
        return Err("http://host:port/path is expected".to_owned());
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Page { address: address.to_owned(), path: path.to_owned() })
}

/// Exit 0: it answers 200.
pub(crate) async fn run(args: &HealthyArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let limit = Duration::from_secs(args.seconds);
    let config = match &args.url {
        Some(page) => {
            let answer = in_time(limit, ask(page)).await;
            answer.map_err(|error| anyhow::anyhow!("{}: {error}", page.address))?;
            return Ok(ExitCode::SUCCESS);
        }
        None => globals.load()?.config,
    };
    let services = args.role.map_or(Service::value_variants().to_vec(), |role| vec![role]);
    let mut alive = false;
    for service in services {
        let address = reachable(service.address(&config));
        match in_time(limit, look(address, service.secure(&config))).await {
            Ok(()) => alive = true,
            // Unless it is asked for by its name it may well be that it runs elsewhere.
            Err(error)
                if args.role.is_none() && error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => anyhow::bail!("{} at {address}: {error}", service.name()),
        }
    }
    anyhow::ensure!(alive, "no service runs here");
    Ok(ExitCode::SUCCESS)
}

/// Where a listener on every address is reached from its own machine.
fn reachable(listens: SocketAddr) -> SocketAddr {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listens.port())
}

async fn in_time(limit: Duration, answer: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {limit:?}"));
    timeout(limit, answer).await.map_err(silent)?
}

async fn look(address: SocketAddr, secure: bool) -> io::Result<()> {
    if secure {
        return TcpStream::connect(address).await.map(drop);
    }
    ask(&Page { address: address.to_string(), path: ALIVE.to_owned() }).await
}

/// Asks for the page; an error where the answer is not 200.
async fn ask(page: &Page) -> io::Result<()> {
    let Page { address, path } = page;
    let mut stream = TcpStream::connect(address).await?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut head = [0; HEAD];
    stream.read_exact(&mut head).await?;
    let status = String::from_utf8_lossy(&head[HEAD - 3..]).into_owned();
    if head.starts_with(VERSION) && status == "200" {
        return Ok(());
    }
    Err(io::Error::other(format!("it answers {path} with {status:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that gives this answer, if any, to one question.
    async fn server(answer: &'static str) -> Page {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            // What was not read would reset the connection.
            let _ = stream.read(&mut [0; 1024]).await;
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
        });
        Page { address, path: "/healthz".to_owned() }
    }

    async fn asked(answer: &'static str) -> io::Result<()> {
        let page = server(answer).await;
        in_time(Duration::from_millis(500), ask(&page)).await
    }

    #[tokio::test]
    async fn only_200_is_healthy() {
        asked("HTTP/1.1 200 OK\r\n\r\nalive\n").await.unwrap();
        let error = asked("HTTP/1.1 503 Service Unavailable\r\n\r\n").await.unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        assert!(asked("MQTT is spoken here, 200").await.is_err());
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        assert_eq!(asked("").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:8001"), "127.0.0.1:8001");
        assert_eq!(at("[::]:8001"), "[::1]:8001");
        assert_eq!(at("10.0.0.7:8001"), "10.0.0.7:8001");
    }

    #[test]
    fn pages_are_read() {
        let read = |url: &str| page(url).map(|page| (page.address, page.path));
        assert_eq!(read("http://pki:8080/crl.pem").unwrap().1, "/crl.pem");
        assert_eq!(read("http://[::1]:1").unwrap(), ("[::1]:1".to_owned(), "/".to_owned()));
        for wrong in ["https://host:1/", "http://host/", "host:1", "http://a:b:c/", "http://a:1/ b"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
