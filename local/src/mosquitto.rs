//! Mosquitto: its configuration, who may say what, and how to tell that it serves.

use crate::{Account, PROBE_EVERY, PROBE_TIMEOUT, Server, account, find, secret};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The broker's configuration as we ship it.
pub const CONFIG: &str = include_str!("../conf/mosquitto.conf");
/// Who may say and hear what.
pub const ACL: &str = include_str!("../conf/mosquitto.acl");
/// The one who hears everything.
pub const USER: &str = "bridge";
/// The file in the folder of secrets that holds the password of [`USER`].
pub const SECRET: &str = "mqtt-bridge";
/// The file with the part of the bridge's client id that nobody can guess.
pub const SESSION: &str = "mqtt-session";

/// MQTT 3.1.1 CONNECT of a clean session with no name, 10 s keep alive.
const CONNECT: [u8; 14] = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 10, 0, 0];
/// CONNACK, accepted.
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// A Mosquitto laid out in a folder.
#[derive(Debug, Clone)]
pub struct Mosquitto {
    program: PathBuf,
    folder: PathBuf,
    account: Account,
    port: u16,
}

impl Mosquitto {
    /// Writes the configuration into `folder` (made if need be; [`Mosquitto::folder`] tells where
    /// it really went) and the bridge's password into `secrets`, where it is not there yet.
    pub fn lay_out(folder: &Path, secrets: &Path, port: u16) -> Result<Self> {
        let program = find::mosquitto()?.path;
        let chosen = Account::choose(&["mosquitto", "nobody"])?.context(
            "started by root, Mosquitto runs as the user mosquitto, which does not exist; run \
             `make setup`",
        )?;
        let folder = account::home(chosen, folder)?;
        let account = account::owner(&folder.join("data"), chosen)?;
        account.folder(&folder.join("data"))?;
        let directory = folder.to_str().context("the path of the Mosquitto folder is not UTF-8")?;
        let config = CONFIG.replace("@PORT@", &port.to_string()).replace("@DIR@", directory);
        let password = secret::ensure(secrets, SECRET)?;
        secret::ensure(secrets, SESSION)?;
        let mosquitto = Self { program, folder, account, port };
        mosquitto.give("mosquitto.conf", &config)?;
        mosquitto.give("acl", ACL)?;
        mosquitto.hash_password(&password)?;
        Ok(mosquitto)
    }

    /// Writes a file that the broker, and nobody else, can read.
    fn give(&self, name: &str, content: &str) -> Result<()> {
        let path = self.folder.join(name);
        secret::write(&path, content.as_bytes())?;
        self.account.own(&path)
    }

    /// The password goes in by a file, not by an argument that others could see.
    fn hash_password(&self, password: &str) -> Result<()> {
        let path = self.folder.join("passwd.plain");
        secret::write(&path, format!("{USER}:{password}\n").as_bytes())?;
        let output = Command::new(find::mosquitto_passwd()?)
            .arg("-U")
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .context("can't run mosquitto_passwd")?;
        anyhow::ensure!(
            output.status.success(),
            "mosquitto_passwd: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        self.account.own(&path)?;
        std::fs::rename(&path, self.folder.join("passwd"))
            .context("can't put Mosquitto's password file in place")
    }

    /// Where its files are; not where they were asked to be if its user could not reach that.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `mqtt://127.0.0.1:port`, without credentials.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    async fn greet(&self) -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.write_all(&CONNECT).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        stream.write_all(&DISCONNECT).await?;
        Ok(answer)
    }
}

impl Server for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.join("mosquitto.conf")).current_dir(&self.folder);
        self.account.apply(&mut command);
        command
    }

    fn stop_signal(&self) -> Signal {
        Signal::SIGTERM
    }

    async fn ready(&self) -> Result<()> {
        loop {
            if let Ok(Ok(answer)) = timeout(PROBE_TIMEOUT, self.greet()).await {
                anyhow::ensure!(
                    answer == CONNACK,
                    "what answers on port {} is not our Mosquitto",
                    self.port
                );
                return Ok(());
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }
}
