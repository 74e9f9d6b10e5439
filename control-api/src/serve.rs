//! Connections: as many as are allowed, each with time limits, with TLS where there is a certificate.

use anyhow::{Context, Result};
use axum::Router;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use nats::CancellationToken;
use service::config::Api as Settings;
use std::{
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// How long the headers of a request may take, and how long a connection may rest.
const HEADERS: Duration = Duration::from_secs(15);
/// The same once half of the connections are taken: whoever sends nothing makes room for whoever does.
const HURRY: Duration = Duration::from_secs(2);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is written to it.
const STALLED: Duration = Duration::from_secs(20);
/// Most bytes of a request's line and headers.
const MAX_HEADERS: usize = 32 << 10;
/// Pause where the system gives no more connections.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How long running requests have once the process stops; less than it has in all.
const DRAIN: Duration = Duration::from_secs(8);

/// Serves until shutdown; then running requests are finished.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    settings: &Settings,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(settings.max_connections));
    let graceful = GracefulShutdown::new();
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(MAX_HEADERS);
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(EXHAUSTED).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let crowded = room.available_permits() < settings.max_connections / 2;
        server.header_read_timeout(if crowded { HURRY } else { HEADERS });
        let (server, tls) = (server.clone(), tls.clone());
        let service = TowerToHyperService::new(routes.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let stream = Patient::new(stream, permit);
            match tls {
                None => {
                    let serving = server.serve_connection(TokioIo::new(stream), service);
                    let _ = watcher.watch(serving).await;
                }
                Some(tls) => {
                    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else {
                        return;
                    };
                    let serving = server.serve_connection(TokioIo::new(stream), service);
                    let _ = watcher.watch(serving).await;
                }
            }
        });
    }
    drop(listener);
    let _ = timeout(DRAIN, graceful.shutdown()).await;
}

/// A certificate and its key, where both are configured.
pub(crate) fn tls(settings: &Settings) -> Result<Option<TlsAcceptor>> {
    let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else { return Ok(None) };
    let what = |path: &Path| format!("can't read {}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .with_context(|| what(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| what(key))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("api.tls_cert and api.tls_key don't go together")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// A connection whose other end must take what is written to it.
struct Patient {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl Patient {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, stalled: None, _permit: permit }
    }

    /// Lets time begin where nothing is taken, and ends it where something is.
    fn watch<T>(
        &mut self,
        context: &mut TaskContext<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, polled)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
