//! A private Mosquitto with the configuration that we ship.

use crate::{Running, guard};
use std::{fs, ops::Deref, path::PathBuf};

/// Times that another free port is tried.
const ATTEMPTS: usize = 5;

/// A private Mosquitto. Anybody may publish to `devices/+/telemetry` and `devices/+/status`; the
/// user `bridge` may subscribe to `devices/#`.
pub struct Mosquitto {
    running: Running<local::Mosquitto>,
    secrets: PathBuf,
}

impl Mosquitto {
    /// Starts one on a free port with no sessions. Panics, saying what to do, where it can't.
    pub async fn start() -> Self {
        let folder = guard::folder("mosquitto");
        let secrets = guard::folder("mosquitto-secrets");
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let port = local::port::free(&[]).expect("a free port");
            let server = local::Mosquitto::lay_out(&folder, &secrets, port)
                .unwrap_or_else(|error| panic!("Mosquitto can't be tested: {error:#}"));
            match Running::start(server, &folder).await {
                Ok(running) => return Self { running, secrets },
                Err(error) => why = error,
            }
        }
        panic!("{why}");
    }

    /// `mqtt://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.server().url()
    }

    /// The password of the user `bridge`.
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
