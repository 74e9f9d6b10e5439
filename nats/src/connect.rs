//! A connection to the server, checked once and kept for ever.

use crate::model::Followed;
use async_nats::{Client, ConnectOptions, Event, jetstream};
use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// Oldest server with everything that is relied on (strict JetStream requests, per-message checks).
pub const MIN_SERVER: (u32, u32) = (2, 12);
/// Longest wait for a stream's yes before the same message, under the same id, is sent again.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an answer of the JetStream API.
const API_TIMEOUT: Duration = Duration::from_secs(5);
/// Most publishes in flight on one connection.
const MAX_IN_FLIGHT: usize = 4_096;
/// Longest pause between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// Who connects to which server.
#[derive(Clone)]
pub struct Login {
    /// `nats://host:port`
    pub url: String,
    /// A user of the server's configuration: `bridge`, `ingest`, `operator`, `admin`.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// Why a connection can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFault {
    /// Nobody answers, or the login is refused.
    #[error("can't connect to NATS at {url} as {user}: {source}")]
    Refused {
        /// The server.
        url: String,
        /// The user.
        user: String,
        /// What the client says.
        source: async_nats::ConnectError,
    },
    /// The server is too old.
    #[error("the NATS server at {url} is {found}; at least {}.{} is needed (make setup installs one)",
        MIN_SERVER.0, MIN_SERVER.1)]
    TooOld {
        /// The server.
        url: String,
        /// Its version.
        found: String,
    },
}

/// A connection and its JetStream context. Clones share it; it reconnects by itself for ever.
#[derive(Clone)]
pub struct Wire {
    /// The connection.
    pub client: Client,
    /// JetStream over it.
    pub jetstream: jetstream::Context,
    /// How often the client has reconnected.
    pub reconnects: watch::Receiver<u64>,
    /// On whose behalf `MODEL` is written, for the audit log.
    pub author: Option<Arc<Author>>,
    /// `MODEL` as this process follows it; without, whoever looks something up reads all of it.
    pub model: Option<Followed>,
}

/// On whose behalf something is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// E.g. `user:3 Ada` or `cli:root`.
    pub who: String,
    /// The request that led to it, where there was one.
    pub request_id: Option<String>,
}

impl Wire {
    /// Connects once; an error says why not.
    pub async fn connect(login: &Login) -> Result<Self, ConnectFault> {
        let (made, reconnects) = watch::channel(0);
        let lost = AtomicBool::new(false);
        // Each user may subscribe under its own inbox prefix only.
        let options =
            ConnectOptions::with_user_and_password(login.user.clone(), login.password.clone())
                .name(format!("haystack-{}", login.user))
                .custom_inbox_prefix(format!("_INBOX_{}", login.user))
                .ping_interval(Duration::from_secs(10))
                .max_reconnects(None)
                .reconnect_delay_callback(|attempt| {
                    Duration::from_millis(50 << attempt.min(6)).min(MAX_RECONNECT_DELAY)
                })
                .event_callback(move |event| {
                    match event {
                        Event::Disconnected => lost.store(true, Ordering::Relaxed),
                        // The first connection is no news.
                        Event::Connected if lost.load(Ordering::Relaxed) => {
                            made.send_modify(|reconnects| *reconnects += 1);
                        }
                        _ => {}
                    }
                    async move { log(&event) }
                });
        let refused = |source| ConnectFault::Refused {
            url: login.url.clone(),
            user: login.user.clone(),
            source,
        };
        let client = options.connect(&login.url).await.map_err(refused)?;
        let found = client.server_info().version;
        if !new_enough(&found) {
            return Err(ConnectFault::TooOld { url: login.url.clone(), found });
        }
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(API_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT)
            .build(client.clone());
        Ok(Self { client, jetstream, reconnects, author: None, model: None })
    }

    /// The same connection, on somebody's behalf.
    #[must_use]
    pub fn on_behalf_of(&self, author: Author) -> Self {
        Self { author: Some(author.into()), ..self.clone() }
    }

    /// The same connection, of a process that follows `MODEL`.
    #[must_use]
    pub fn knowing(&self, model: Followed) -> Self {
        Self { model: Some(model), ..self.clone() }
    }
}

fn new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= MIN_SERVER
}

fn log(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("lost the connection to NATS; reconnecting"),
        Event::Closed => tracing::debug!("closed the connection to NATS"),
        Event::SlowConsumer(id) => tracing::warn!(subscription = id, "slow NATS subscription"),
        other => tracing::warn!(event = %other, "NATS"),
    }
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn versions_compare_as_numbers() {
        for (version, enough) in
            [("2.12.0", true), ("2.9.25", false), ("3.0.0-beta", true), ("dev", false)]
        {
            assert_eq!(new_enough(version), enough, "{version}");
        }
    }
}
