//! A private Mosquitto with the configuration that we ship.

use crate::{Running, guard};
use domain::{Clock, SystemClock};
use local::{mosquitto::Listeners, pki::Authority};
use std::{fs, net::Ipv4Addr, ops::Deref, path::PathBuf};

/// Times that another free port is tried.
const ATTEMPTS: usize = 5;

/// A private Mosquitto. Anybody may publish to `devices/+/telemetry` and `devices/+/status`; the
/// user `bridge` may subscribe to `devices/#`.
pub struct Mosquitto {
    running: Running<local::Mosquitto>,
    secrets: PathBuf,
    authority: Authority,
}

/// Free ports on loopback.
fn listeners() -> Listeners {
    let mut taken = Vec::new();
    let mut next = || {
        let port = local::port::free(&taken).expect("a free port");
        taken.push(port);
        port
    };
    let (mqtt, mqtts, ws) = (next(), next(), next());
    Listeners { mqtt, mqtts, ws: Some(ws), wss: None, bind: Ipv4Addr::LOCALHOST.into() }
}

impl Mosquitto {
    /// Starts one on a free port with no sessions. Panics, saying what to do, where it can't.
    pub async fn start() -> Self {
        let folder = guard::folder("mosquitto");
        let secrets = guard::folder("mosquitto-secrets");
        let authority = Authority::init(&folder.join("pki"), &[], SystemClock.now())
            .unwrap_or_else(|error| panic!("no certificates can be made: {error:#}"));
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let server = local::Mosquitto::lay_out(&folder, &secrets, listeners(), &authority)
                .unwrap_or_else(|error| panic!("Mosquitto can't be tested: {error:#}"));
            match Running::start(server, &folder).await {
                Ok(running) => return Self { running, secrets, authority },
                Err(error) => why = error,
            }
        }
        panic!("{why}");
    }

    /// `mqtt://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.server().url()
    }

    /// Who certifies devices.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The password of the user `haystack.bridge`.
    pub fn password(&self) -> String {
        fs::read_to_string(self.secrets.join(local::mosquitto::SECRET))
            .expect("the password was written when the server was laid out")
    }

    /// The folder with the file `mqtt-bridge` that holds the password.
    pub fn secrets(&self) -> &PathBuf {
        &self.secrets
    }
}

impl Deref for Mosquitto {
    type Target = Running<local::Mosquitto>;

    fn deref(&self) -> &Self::Target {
        &self.running
    }
}
