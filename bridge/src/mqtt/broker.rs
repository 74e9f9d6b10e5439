//! Which broker, and as whom.

use std::fmt;

/// The port where a URL names none.
const DEFAULT_PORT: u16 = 1883;

/// A broker and the session to have there.
#[derive(Clone)]
pub struct Broker {
    /// `host:port`.
    pub(super) address: String,
    pub(super) client_id: String,
    pub(super) user: String,
    pub(super) password: String,
}

/// A URL that names no broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mqtt.url {url:?}: write it like mqtt://127.0.0.1:1883, without a user or a path")]
pub struct InvalidBroker {
    url: String,
}

impl Broker {
    /// A broker by its URL (`mqtt://host:port`). The client id names the session at the broker, so
    /// it must be unique there and stay the same over restarts.
    pub fn new(
        url: &str,
        client_id: &str,
        user: &str,
        password: &str,
    ) -> Result<Self, InvalidBroker> {
        let address = address(url).ok_or_else(|| InvalidBroker { url: url.to_owned() })?;
        let [client_id, user, password] = [client_id, user, password].map(str::to_owned);
        Ok(Self { address, client_id, user, password })
    }
}

fn address(url: &str) -> Option<String> {
    let rest = url.strip_prefix("mqtt://")?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    match rest.rsplit_once(':') {
        // The colons of `[::1]` are no port.
        Some((host, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty()).then(|| format!("{host}:{port}"))
        }
        _ => Some(format!("{rest}:{DEFAULT_PORT}")),
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_and_port_and_nothing_else() {
        for (url, wanted) in [
            ("mqtt://127.0.0.1:1884", Some("127.0.0.1:1884")),
            ("mqtt://broker/", Some("broker:1883")),
            ("mqtt://[::1]", Some("[::1]:1883")),
            ("mqtt://[::1]:7", Some("[::1]:7")),
            ("mqtt://:1883", None),
            ("mqtt://", None),
            ("mqtt://u:p@h:1", None),
            ("mqtt://h:99999", None),
            ("http://h:1", None),
        ] {
            assert_eq!(address(url).as_deref(), wanted, "{url}");
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let broker = Broker::new("mqtt://h:1", "b", "bridge", "hidden").unwrap();
        assert_eq!(format!("{broker:?}"), "bridge@h:1");
    }
}
