//! nats-server with JetStream: its configuration, its users, and how to tell that it serves.

use crate::{PROBE_EVERY, PROBE_TIMEOUT, Server, find, secret};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::{
    fmt::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// The server's configuration as we ship it.
pub const CONFIG: &str = include_str!("../../nats/conf/nats-server.conf");
/// The users in it. The secret of each is the file `nats-{user}`.
pub const USERS: [&str; 7] =
    ["admin", "bridge", "ingest", "simulator", "api", "operator", "doctor"];
/// Longest greeting we read.
const MAX_GREETING: u64 = 64 << 10;

/// A nats-server laid out in a folder.
#[derive(Debug, Clone)]
pub struct Nats {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
}

/// The file in a folder of secrets that holds the password of a NATS user.
pub fn secret_name(user: &str) -> String {
    format!("nats-{user}")
}

impl Nats {
    /// Writes the configuration into `folder` (made if need be; the store is in it too) and the
    /// users' passwords into `secrets`, where they are not there yet.
    pub fn lay_out(folder: &Path, secrets: &Path, port: u16) -> Result<Self> {
        let program = find::nats_server()?.path;
        secret::private_folder(folder)?;
        let folder = folder.canonicalize().context("the folder was just made")?;
        let store = folder.to_str().context("the path of the NATS folder is not UTF-8")?;
        let mut include = format!("HAYSTACK_PORT: {port}\nHAYSTACK_STORE: {}\n", quote(store)?);
        for user in USERS {
            let password = secret::ensure(secrets, &secret_name(user))?;
            let name = user.to_uppercase();
            writeln!(include, "HAYSTACK_{name}: \"{password}\"").context("writing to memory")?;
        }
        secret::write(&folder.join("secrets.conf"), include.as_bytes())?;
        secret::write(&folder.join("nats-server.conf"), CONFIG.as_bytes())?;
        Ok(Self { program, folder, port })
    }

    /// Where its configuration and its store are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `nats://127.0.0.1:port`, without credentials.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The first line that the server sends: `INFO {…}`.
    async fn greeting(&self) -> std::io::Result<String> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        let mut line = String::new();
        BufReader::new(stream.take(MAX_GREETING)).read_line(&mut line).await?;
        Ok(line)
    }
}

impl Server for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.join("nats-server.conf")).current_dir(&self.folder);
        command
    }

    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }

    async fn ready(&self) -> Result<()> {
        loop {
            // It listens only after its streams are recovered.
            if let Ok(Ok(line)) = timeout(PROBE_TIMEOUT, self.greeting()).await
                && !line.is_empty()
            {
                let ours = line.contains("\"jetstream\":true");
                anyhow::ensure!(
                    line.starts_with("INFO ") && ours,
                    "what answers on port {} is not our nats-server",
                    self.port
                );
                return Ok(());
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }
}

/// A text for NATS' configuration: in quotes, with a backslash before what would end them.
fn quote(text: &str) -> Result<String> {
    anyhow::ensure!(!text.contains(char::is_control), "the path {text:?} has control characters");
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_itself_accepts_what_we_write() {
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a \"folder\" with\\ things");
        let nats = Nats::lay_out(&odd, &folder.path().join("secrets"), 4222).unwrap();
        let output = nats.command().arg("-t").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
