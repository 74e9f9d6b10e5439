//! Which broker, and as whom.

use std::{fmt, path::PathBuf};

/// The port where a URL names none, without and with TLS.
const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;

/// A broker and the session to have there.
#[derive(Clone)]
pub struct Broker {
    /// `host:port`.
    pub(super) address: String,
    /// With TLS (`mqtts`).
    pub(super) tls: Option<Tls>,
    pub(super) client_id: String,
    pub(super) user: String,
    pub(super) password: String,
    /// The group with which the work is shared; `None`: all of it is ours.
    pub(super) share: Option<String>,
    /// The subscription is to be given up, and the session ends when what it holds is stored.
    pub(super) leave: bool,
}

/// Whom to believe, and who we are. Files are read at each connection: what was renewed counts then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM of the authorities that may certify the broker.
    pub ca: PathBuf,
    /// PEM of our certificate and of its key, where the broker wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Settings that name no broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBroker {
    /// The URL is none.
    #[error(
        "mqtt.url {0:?}: write it like mqtt://127.0.0.1:1883 or mqtts://broker:8883, without a user \
         or a path"
    )]
    Url(String),
    /// TLS without an authority.
    #[error(
        "mqtt.url is mqtts: set mqtt.ca to the file of the authority that certifies the broker (a \
         public one's is often /etc/ssl/certs/ca-certificates.crt)"
    )]
    NoAuthority,
    /// The group's name.
    #[error("mqtt.share {0:?}: letters, digits, - and _ are expected")]
    Share(String),
}

impl Broker {
    /// A broker by its URL (`mqtt://host:port`, `mqtts://host:port`). The client id names the session
    /// at the broker, so it must be unique there and stay the same over restarts.
    pub fn new(
        url: &str,
        tls: Option<Tls>,
        client_id: &str,
        user: &str,
        password: &str,
    ) -> Result<Self, InvalidBroker> {
        let (secure, address) = address(url).ok_or_else(|| InvalidBroker::Url(url.to_owned()))?;
        if secure && tls.is_none() {
            return Err(InvalidBroker::NoAuthority);
        }
        let [client_id, user, password] = [client_id, user, password].map(str::to_owned);
        let tls = tls.filter(|_| secure);
        Ok(Self { address, tls, client_id, user, password, share: None, leave: false })
    }

    /// Shares the work with all of that group (MQTT 5, 4.8.2).
    pub fn shared(self, group: &str) -> Result<Self, InvalidBroker> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if group.is_empty() || group.len() > 128 || !group.chars().all(fits) {
            return Err(InvalidBroker::Share(group.to_owned()));
        }
        Ok(Self { share: Some(group.to_owned()), ..self })
    }

    /// Gives the subscription up: [`super::listen`] ends when all that the broker holds for this
    /// session is stored and confirmed, and the session with it.
    #[must_use]
    pub fn leaving(self) -> Self {
        Self { leave: true, ..self }
    }

    /// Whether the place there is to be given up.
    pub fn is_leaving(&self) -> bool {
        self.leave
    }

    /// The host, for the broker's certificate.
    pub(super) fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// Whether it is TLS, and `host:port`.
fn address(url: &str) -> Option<(bool, String)> {
    let (secure, rest) = match url.strip_prefix("mqtts://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("mqtt://")?),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() || rest.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    let address = match rest.rsplit_once(':') {
        // The colons of `[::1]` are no port.
        Some((host, port)) if !port.ends_with(']') => {
            let port: u16 = port.parse().ok()?;
            (!host.is_empty()).then(|| format!("{host}:{port}"))
        }
        _ => Some(format!("{rest}:{}", if secure { DEFAULT_TLS_PORT } else { DEFAULT_PORT })),
    };
    Some((secure, address?))
}

impl fmt::Display for Broker {
    /// Where, and how the work is shared; the group's name is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls.is_some() { " by TLS" } else { "" };
        let shared = if self.share.is_some() { ", sharing the work" } else { "" };
        write!(f, "{}{tls}{shared}", self.address)
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
            ("mqtts://broker", Some("broker:8883")),
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
            let found = address(url).map(|(_, address)| address);
            assert_eq!(found.as_deref(), wanted, "{url}");
        }
    }

    #[test]
    fn tls_needs_an_authority() {
        let tls = Tls { ca: "ca.pem".into(), identity: None };
        let new = |url, tls| Broker::new(url, tls, "b", "bridge", "hidden");
        assert_eq!(new("mqtts://h", None).unwrap_err(), InvalidBroker::NoAuthority);
        let secure = new("mqtts://[::1]:7", Some(tls.clone())).unwrap();
        assert_eq!((secure.host(), secure.tls.as_ref()), ("::1", Some(&tls)));
        assert!(new("mqtt://h", Some(tls)).unwrap().tls.is_none());
        assert!(secure.clone().shared("a/b").is_err() && secure.shared("bridges").is_ok());
    }

    #[test]
    fn the_password_is_not_shown() {
        let broker = Broker::new("mqtt://h:1", None, "b", "bridge", "hidden").unwrap();
        assert_eq!(format!("{broker:?}"), "bridge@h:1");
    }
}
