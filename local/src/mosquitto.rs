//! Mosquitto: its configuration, who may say what, and how to tell that it serves.

use crate::{Account, PROBE_EVERY, PROBE_TIMEOUT, Server, account, find, pki::Authority, secret};
use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
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
/// The listener without certificates over WebSocket. The address is not kept to (measured, 2.0.11).
const WS: &str = "
# Over WebSocket, for browsers. Mosquitto 2.0 listens on every address here, whatever it is told, and lets
# clients without a name in.
listener @WS@ 127.0.0.1
protocol websockets
";
/// The part of it that is there where WebSocket with certificates is wanted.
const WSS: &str = include_str!("../conf/mosquitto-wss.conf");
/// Who may say and hear what.
pub const ACL: &str = include_str!("../conf/mosquitto.acl");
/// The one who hears everything. No device bears such a name: device ids have no dot.
pub const USER: &str = "haystack.bridge";
/// The file in the folder of secrets that holds the password of [`USER`].
pub const SECRET: &str = "mqtt-bridge";
/// The file with the part of the bridge's client id that nobody can guess.
pub const SESSION: &str = "mqtt-session";

/// CONNACK, accepted.
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const DISCONNECT: [u8; 2] = [0xe0, 0];
/// Flags of CONNECT (MQTT 3.1.1, 3.1.2.3).
const CLEAN_SESSION: u8 = 2;
const WITH_LOGIN: u8 = 0xc0;
const KEEP_ALIVE_SECONDS: u8 = 10;

/// Where a broker listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// MQTT on loopback, without TLS.
    pub mqtt: u16,
    /// MQTT with certificates.
    pub mqtts: u16,
    /// WebSocket without TLS, where it is wanted: Mosquitto 2.0 listens on every address there,
    /// whatever it is told.
    pub ws: Option<u16>,
    /// WebSocket with certificates, where it is wanted: then each change of certificates restarts
    /// the broker.
    pub wss: Option<u16>,
    /// The address of the two with certificates.
    pub bind: IpAddr,
}

/// MQTT 3.1.1 CONNECT.
fn connect(client_id: &str, login: Option<(&str, &str)>, clean: bool) -> Vec<u8> {
    let mut flags = if clean { CLEAN_SESSION } else { 0 };
    let mut texts = vec![client_id];
    if let Some((user, password)) = login {
        flags |= WITH_LOGIN;
        texts.extend([user, password]);
    }
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, KEEP_ALIVE_SECONDS];
    for text in texts {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut packet = vec![0x10];
    let mut left = body.len();
    while left > 127 {
        packet.push((left % 128) as u8 | 0x80);
        left /= 128;
    }
    packet.push(left as u8);
    packet.extend(body);
    packet
}

/// A Mosquitto laid out in a folder.
#[derive(Debug, Clone)]
pub struct Mosquitto {
    program: PathBuf,
    folder: PathBuf,
    account: Account,
    listeners: Listeners,
    password: String,
}

impl Mosquitto {
    /// Writes the configuration into `folder` (made if need be; [`Mosquitto::folder`] tells where
    /// it really went) with the authority's certificates, and the bridge's password into `secrets`,
    /// where it is not there yet.
    pub fn lay_out(
        folder: &Path,
        secrets: &Path,
        listeners: Listeners,
        authority: &Authority,
    ) -> Result<Self> {
        let program = find::mosquitto()?.path;
        let chosen = Account::choose(&["mosquitto", "nobody"])?.context(
            "started by root, Mosquitto runs as the user mosquitto, which does not exist; run \
             `make setup`",
        )?;
        let folder = account::home(chosen, folder)?;
        let account = account::owner(&folder.join("data"), chosen)?;
        account.folder(&folder.join("data"))?;
        let directory = folder.to_str().context("the path of the Mosquitto folder is not UTF-8")?;
        let Listeners { mqtt, mqtts, ws, wss, bind } = listeners;
        let secure = wss.map(|port| WSS.replace("@WSS@", &port.to_string())).unwrap_or_default();
        let plain = ws.map(|port| WS.replace("@WS@", &port.to_string())).unwrap_or_default();
        let mut config = CONFIG.replace("@WSS@", &secure).replace("@DIR@", directory);
        config = config.replace("@WS@", &plain);
        config = config.replace("@BIND@", &bind.to_string());
        for (place, port) in [("@MQTT@", mqtt), ("@MQTTS@", mqtts)] {
            config = config.replace(place, &port.to_string());
        }
        let password = secret::ensure(secrets, SECRET)?;
        secret::ensure(secrets, SESSION)?;
        let mosquitto = Self { program, folder, account, listeners, password };
        mosquitto.give("mosquitto.conf", config.as_bytes())?;
        mosquitto.give("acl", ACL.as_bytes())?;
        mosquitto.hash_password()?;
        mosquitto.give_certificates(authority)?;
        Ok(mosquitto)
    }

    /// Copies the authority's certificates and its list of the revoked. A broker that runs reads
    /// them when it is told to (SIGHUP).
    pub fn give_certificates(&self, authority: &Authority) -> Result<()> {
        let (cert, key) = authority.server();
        let files = [
            ("ca.pem", authority.ca()),
            ("crl.pem", authority.crl()),
            ("server.pem", cert),
            ("server.key", key),
        ];
        for (name, from) in files {
            let content =
                fs::read(&from).with_context(|| format!("can't read {}", from.display()))?;
            self.give(name, &content)?;
        }
        Ok(())
    }

    /// Writes a file that the broker, and nobody else, can read.
    fn give(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        secret::write(&path, content)?;
        self.account.own(&path)
    }

    /// The password goes in by a file, not by an argument that others could see.
    fn hash_password(&self) -> Result<()> {
        let path = self.folder.join("passwd.plain");
        secret::write(&path, format!("{USER}:{}\n", self.password).as_bytes())?;
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
        fs::rename(&path, self.folder.join("passwd"))
            .context("can't put Mosquitto's password file in place")
    }

    /// Where its files are; not where they were asked to be if its user could not reach that.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `mqtt://127.0.0.1:port`, without credentials.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.listeners.mqtt)
    }

    /// Where it listens.
    pub fn listeners(&self) -> Listeners {
        self.listeners
    }

    /// Ends a client's connection by taking its session over. `forget`: what the broker keeps for
    /// it is thrown away.
    pub async fn end_session(&self, client_id: &str, forget: bool) -> Result<()> {
        let packet = connect(client_id, Some((USER, &self.password)), forget);
        let answer = timeout(PROBE_TIMEOUT, self.say(&packet)).await;
        let answer = answer.context("the broker does not answer")?.context("the broker")?;
        anyhow::ensure!(answer[3] == 0, "the broker refuses to end a session: {}", answer[3]);
        Ok(())
    }

    /// Resolves after the broker has taken in what it was told by a signal before: it looks at
    /// signals after each round of its clients.
    pub async fn settled(&self) -> Result<()> {
        for _ in 0..2 {
            let said = timeout(PROBE_TIMEOUT, self.say(&connect("", None, true))).await;
            said.context("the broker does not answer")?.context("the broker")?;
        }
        Ok(())
    }

    /// Signs in and out again; gives the broker's answer.
    async fn say(&self, packet: &[u8]) -> std::io::Result<[u8; 4]> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.listeners.mqtt)).await?;
        stream.write_all(packet).await?;
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
        self.listeners.mqtt
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
            if let Ok(Ok(answer)) = timeout(PROBE_TIMEOUT, self.say(&connect("", None, true))).await
            {
                anyhow::ensure!(
                    answer == CONNACK,
                    "what answers on port {} is not our Mosquitto",
                    self.listeners.mqtt
                );
                return Ok(());
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }
}
