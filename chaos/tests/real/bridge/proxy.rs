//! A proxy before the broker, in the test's own process, that cuts connections.

use nats::CancellationToken;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Proxy {
    port: u16,
    cut: Arc<Mutex<CancellationToken>>,
    _accepting: tokio_util::sync::DropGuard,
}

impl Proxy {
    /// Forwards to a loopback port.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_port = listener.local_addr().unwrap().port();
        let cut = Arc::new(Mutex::new(CancellationToken::new()));
        let (ended, shared) = (CancellationToken::new(), cut.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                let until = shared.lock().unwrap().clone();
                tokio::spawn(until.run_until_cancelled_owned(forward(client, port)));
            }
        }));
        Self { port: proxy_port, cut, _accepting: ended.drop_guard() }
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Ends all connections, wherever they are; new ones are accepted.
    pub(crate) fn cut(&self) {
        let mut cut = self.cut.lock().unwrap();
        cut.cancel();
        *cut = CancellationToken::new();
    }
}

async fn forward(mut client: TcpStream, port: u16) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
