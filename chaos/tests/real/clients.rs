//! Devices with client libraries that are not ours: Eclipse paho and MQTT.js, MQTT 3.1.1 and 5, without
//! and with certificates, over TCP and WebSocket.

use domain::{Clock, DeviceId, SystemClock};
use std::{path::Path, process::Stdio};
use testkit::{Platform, eventually};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const DEVICE: &str = "CL-1";
const EACH: u32 = 25;
const TYPE: &str = r"
device_type: client-sensor
processing_mode: endpoint
protocol_adapter: json
timestamp: { pointer: /ts, format: rfc3339 }
receipts: true
metrics:
  temperature: { pointer: /temperature, kind: number }
  humidity: { pointer: /humidity, kind: number }
";

/// A client program: how it is called.
#[derive(Debug, Clone, Copy)]
enum Client {
    Paho,
    MqttJs,
}

impl Client {
    fn command(self) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let libraries = here.join("../.tools/clients");
        assert!(
            libraries.join("node_modules/mqtt").is_dir() && libraries.join("paho").is_dir(),
            "the clients are not installed: sh chaos/clients/install.sh .tools/clients"
        );
        let (program, script) = match self {
            Self::Paho => ("python3", "paho_device.py"),
            Self::MqttJs => ("node", "mqttjs_device.mjs"),
        };
        let mut command = Command::new(program);
        command
            .arg(here.join("clients").join(script))
            .env("PYTHONPATH", &libraries)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NODE_PATH", libraries.join("node_modules"));
        command
    }
}

/// A device that was told to publish, and stays until it is told to leave.
struct Device {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Device {
    fn start(client: Client, url: &str, protocol: &str, from: u32, more: &[String]) -> Self {
        let mut child = client
            .command()
            .args(["--url", url, "--protocol", protocol, "--device", DEVICE])
            .args(["--from", &from.to_string(), "--count", &EACH.to_string()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 and node are installed (chaos/clients/install.sh)");
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    async fn line(&mut self) -> serde_json::Value {
        let line = self.said.next_line().await.unwrap().expect("it says what it did");
        serde_json::from_str(&line).unwrap()
    }

    async fn leave(mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").await.unwrap();
        assert!(self.child.wait().await.unwrap().success());
    }
}

#[tokio::test]
async fn clients_that_are_not_ours_are_understood() {
    let platform = Platform::start("").await;
    let file = platform.config().with_file_name("client-sensor.yaml");
    std::fs::write(&file, TYPE).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    platform.succeed(&["device", "add", DEVICE, "--type", "client-sensor"]);
    let (bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    bridge.says("subscribed").await;
    let authority = platform.mosquitto.authority();
    let id = DeviceId::parse(DEVICE).unwrap();
    authority.issue(&id, 30, SystemClock.now()).unwrap();
    let (cert, key) = authority.device(&id);
    let files = [("--ca", authority.ca()), ("--cert", cert), ("--key", key)];
    let secure: Vec<String> = files
        .into_iter()
        .flat_map(|(name, path)| [name.to_owned(), path.display().to_string()])
        .chain(["--expect-receipts".to_owned()])
        .collect();
    let ports = platform.mosquitto.server().listeners();
    let ways = [
        (format!("mqtt://127.0.0.1:{}", ports.mqtt), &[][..]),
        (format!("ws://127.0.0.1:{}", ports.ws.expect("asked for")), &[]),
        (format!("mqtts://127.0.0.1:{}", ports.mqtts), &secure),
    ];
    let mut sent = 0;
    for client in [Client::Paho, Client::MqttJs] {
        for protocol in ["3", "5"] {
            for (url, more) in &ways {
                let mut device = Device::start(client, url, protocol, sent, more);
                let did = device.line().await;
                let what = format!("{client:?} {protocol} {url}: {did}");
                assert_eq!(did["acked"], EACH, "{what}");
                if !more.is_empty() {
                    assert_eq!(did["receipts"], EACH, "{what}");
                    platform.succeed(&["device", "command", DEVICE, "{\"set\":1}"]);
                    assert_eq!(device.line().await["command"], "{\"set\":1}", "{what}");
                }
                device.leave().await;
                sent += EACH;
            }
        }
    }
    for database in [&platform.primary, &platform.secondary] {
        eventually("all readings once", || async {
            let sql = "select count(*) from core.telemetry_history \
                where device_id = $1 and metric = 'temperature'";
            let mut connection = testkit::platform::connect(&database.superuser()).await?;
            let asked = sqlx::query_scalar(sql).bind(DEVICE).fetch_one(&mut connection).await;
            let found: i64 = asked.map_err(|error| error.to_string())?;
            if found == i64::from(sent) { Ok(()) } else { Err(format!("{found} of {sent}")) }
        })
        .await;
    }
}
