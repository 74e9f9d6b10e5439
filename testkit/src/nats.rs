//! A private nats-server with the configuration that we ship.

use crate::{Running, guard};
use std::{fs, ops::Deref, path::PathBuf};

/// Times that another free port is tried.
const ATTEMPTS: usize = 5;

/// A private nats-server.
pub struct Nats {
    running: Running<local::Nats>,
    secrets: PathBuf,
}

impl Nats {
    /// Starts one on a free port with an empty store. Panics, saying what to do, where it can't.
    pub async fn start() -> Self {
        let folder = guard::folder("nats");
        let secrets = folder.join("secrets");
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            let port = local::port::free(&[]).expect("a free port");
            let server = local::Nats::lay_out(&folder, &secrets, port)
                .unwrap_or_else(|error| panic!("nats-server can't be tested: {error:#}"));
            match Running::start(server, &folder).await {
                Ok(running) => return Self { running, secrets },
                Err(error) => why = error,
            }
        }
        panic!("{why}");
    }

    /// `nats://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.server().url()
    }

    /// The password of `admin`, `bridge`, `ingest` or `operator`.
    pub fn password(&self, user: &str) -> String {
        let path = self.secrets.join(local::nats::secret_name(user));
        fs::read_to_string(path).unwrap_or_else(|_| panic!("there is no NATS user {user}"))
    }

    /// The folder with the files `nats-{user}` that hold the passwords.
    pub fn secrets(&self) -> &PathBuf {
        &self.secrets
    }
}

impl Deref for Nats {
    type Target = Running<local::Nats>;

    fn deref(&self) -> &Self::Target {
        &self.running
    }
}
