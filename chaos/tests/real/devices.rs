//! What devices say of themselves (births, last wills) and what they are told (commands, receipts),
//! with clients that are not ours.

use domain::{Clock, DeviceId, SystemClock, failpoint};
use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::{Arc, Mutex},
};
use testkit::{
    Database, Failpoint, Platform, eventually,
    judge::{Numbered, payload},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

const DEVICE: &str = "RC-1";
const TYPE: &str = r"
device_type: receipt-sensor
processing_mode: endpoint
protocol_adapter: json
timestamp: { pointer: /ts, format: unix_millis }
message_id: { pointer: /seq }
receipts: true
metrics:
  temperature: { pointer: /temperature, kind: number }
";

async fn platform() -> Platform {
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    let file = platform.config().with_file_name("receipt-sensor.yaml");
    std::fs::write(&file, TYPE).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    platform.succeed(&["device", "add", DEVICE, "--type", "receipt-sensor"]);
    platform
}

/// The device's own subscriber, by certificate; what it was told, line by line.
struct Device {
    client: Child,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Device {
    /// Listens on a channel with a session that outlives connections; `more` are arguments for
    /// `mosquitto_sub`.
    async fn listens(platform: &Platform, channel: &str, more: &[&str]) -> Self {
        let authority = platform.mosquitto.authority();
        let id = DeviceId::parse(DEVICE).unwrap();
        let (cert, key) = authority.device(&id);
        if !cert.exists() {
            authority.issue(&id, 30, SystemClock.now()).unwrap();
        }
        let port = platform.mosquitto.server().listeners().mqtts.to_string();
        // Line by line, also into a pipe.
        let mut client = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-V",
                "5",
                "-h",
                "localhost",
                "-p",
                &port,
                "-q",
                "1",
                "-c",
                "-i",
                DEVICE,
                "-x",
                "3600",
                "-d",
            ])
            .args(["-t", &format!("devices/{DEVICE}/{channel}")])
            .arg("--cafile")
            .arg(authority.ca())
            .arg("--cert")
            .arg(cert)
            .arg("--key")
            .arg(key)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto_sub is installed (make setup)");
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let ears = heard.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                ears.lock().unwrap().push(line);
            }
        });
        let device = Self { client, heard };
        eventually("the device's subscription", || async {
            let said = device.heard.lock().unwrap().clone();
            if said.iter().any(|line| line.starts_with("Subscribed")) {
                Ok(())
            } else {
                Err(said.join("; "))
            }
        })
        .await;
        device
    }

    /// What it was told, without what `mosquitto_sub` says of itself.
    fn told(&self) -> Vec<serde_json::Value> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Ends without a word, as one that lost its power: the broker sends its last will.
    async fn dies(mut self) {
        self.client.kill().await.unwrap();
    }
}

/// What a database says of the device: online, and whether it was seen.
async fn presence(database: &Database) -> Result<(bool, bool), String> {
    let sql = "select online, last_seen > now() - interval '1 minute' \
        from core.device_presence where device_id = $1";
    let mut connection = testkit::platform::connect(&database.superuser()).await?;
    let found = sqlx::query_as(sql).bind(DEVICE).fetch_one(&mut connection).await;
    found.map_err(|error| error.to_string())
}

async fn is(platform: &Platform, online: bool) {
    eventually(&format!("online {online} in both databases"), || async {
        for database in [&platform.primary, &platform.secondary] {
            let found = presence(database).await?;
            if found != (online, true) {
                return Err(format!("{found:?}"));
            }
        }
        Ok(())
    })
    .await;
    let shown = platform.succeed(&["device", "show", DEVICE]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["presence"]["online"], online, "{shown}");
}

#[tokio::test]
async fn births_and_wills_say_who_is_there() {
    let platform = platform().await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let status = format!("devices/{DEVICE}/status");
    let will = ["--will-topic", &status, "--will-payload", r#"{"online":false}"#, "--will-retain"];
    let device = Device::listens(&platform, "commands", &will).await;
    platform.publish_with(&["-r"], &status, [r#"{"online":true}"#.to_owned()]).await;
    is(&platform, true).await;
    device.dies().await;
    is(&platform, false).await;
    platform.publish_with(&["-r"], &status, ["online".to_owned()]).await;
    is(&platform, true).await;
    // What says nothing of the kind is set aside and changes nothing; empty, it takes the kept one out.
    platform.publish(&status, ["perhaps".to_owned()]).await;
    eventually("a letter", || async {
        let status = platform.succeed(&["status", "--json"]);
        let letters = &serde_json::from_str::<serde_json::Value>(&status).unwrap()["dead_letters"];
        let found = letters.to_string().contains("not_a_status");
        if found { Ok(()) } else { Err(letters.to_string()) }
    })
    .await;
    is(&platform, true).await;
}

#[tokio::test]
async fn a_command_reaches_a_device_that_listens_and_the_outcome_is_told() {
    let platform = platform().await;
    let mut bridge = platform.service("bridge");
    bridge.says("subscribed").await;
    let command = |payload: &str| {
        let output = platform.command(&["device", "command", DEVICE, payload]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    eventually("a bridge that answers", || async {
        let (code, said) = command("{\"set\":0}");
        if code == Some(1) && said.contains("nobody listens") { Ok(()) } else { Err(said) }
    })
    .await;
    let device = Device::listens(&platform, "commands", &[]).await;
    assert_eq!(command("{\"set\":1}").0, Some(0));
    // For one that is away and has a session the broker keeps it, for a while.
    device.dies().await;
    assert_eq!(command("{\"set\":2}").0, Some(0));
    let device = Device::listens(&platform, "commands", &[]).await;
    assert_eq!(command("{\"set\":3}").0, Some(0));
    eventually("the commands", || async {
        let told: Vec<_> = device.told().iter().map(|it| it["set"].clone()).collect();
        // The first may come again: the device may have died before it said yes.
        if told.ends_with(&[2.into(), 3.into()]) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let unknown = platform.command(&["device", "command", "NOBODY", "{}"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("no device NOBODY"), "{said}");
    // Without a broker, and without a bridge, the answer is quick and says so.
    platform.mosquitto.stop().await;
    bridge.says("the connection to the MQTT broker is lost").await;
    let (code, said) = command("{}");
    assert!(code == Some(1) && said.contains("no connection to the MQTT broker"), "{said}");
    let status = platform.succeed(&["status"]);
    assert!(status.contains("mqtt: no connection to 127.0.0.1"), "{status}");
    bridge.stop().await;
    let (code, said) = command("{}");
    assert!(code == Some(1) && said.contains("no bridge answers"), "{said}");
}

/// How often each message has its receipt, by the number that it bears.
fn receipts(device: &Device) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    for receipt in device.told() {
        assert!(receipt["stored_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{receipt}");
        *found.entry(receipt["id"].as_u64().expect("its number")).or_default() += 1;
    }
    found
}

#[tokio::test]
async fn receipts_come_for_what_is_stored_also_after_a_death_before_the_yes() {
    const SENT: u64 = 300;
    let platform = platform().await;
    let device = Device::listens(&platform, "receipts", &[]).await;
    let topic = format!("devices/{DEVICE}/telemetry");
    let message =
        |n| format!("{{\"seq\":{n},\"ts\":{},\"temperature\":{n}}}", 1_767_225_600_000_u64 + n);
    let doomed = Failpoint { name: failpoint::BEFORE_PUBACK, passes: 0 };
    let mut bridge = platform.doomed("bridge", doomed);
    bridge.says("subscribed").await;
    platform.publish(&topic, (0..SENT).map(message)).await;
    bridge.died_at(doomed).await;
    let mut bridge = platform.service("bridge");
    let all = |device: &Device| {
        let lost: Vec<u64> = (0..SENT).filter(|n| !receipts(device).contains_key(n)).collect();
        if lost.is_empty() { Ok(()) } else { Err(format!("without a receipt: {lost:?}")) }
    };
    eventually("receipts of all", || async { all(&device) }).await;
    // What is no message of its type is kept or set aside, and gets none; the next one does.
    platform.publish(&topic, ["no json".to_owned(), message(SENT)]).await;
    eventually("one more", || async {
        let found = receipts(&device);
        if found.contains_key(&SENT) { Ok(()) } else { Err(format!("{}", found.len())) }
    })
    .await;
    assert_eq!(receipts(&device).len() as u64, SENT + 1);
    bridge.stop().await;
}

#[tokio::test]
async fn news_that_the_stream_does_not_take_hold_no_reading_up() {
    let platform = platform().await;
    let (_, entity) = platform.add_device("NW-1");
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let login = nats::Login {
        url: platform.nats.url(),
        user: "admin".to_owned(),
        password: platform.nats.password("admin"),
    };
    let admin = nats::Wire::connect(&login).await.unwrap();
    admin.jetstream.delete_stream(nats::streams::EVENTS).await.unwrap();
    let status = format!("devices/{DEVICE}/status");
    for n in 0..20 {
        platform.publish(&status, [if n % 2 == 0 { "online" } else { "offline" }.to_owned()]).await;
    }
    platform.publish("devices/NW-1/telemetry", (0..50).map(payload)).await;
    let readings = Numbered { device: "NW-1".to_owned(), entity, sent: 50 };
    readings.arrives(&platform.primary, "demo").await;
    readings.arrives(&platform.secondary, "demo").await;
    eventually("the last status in both databases", || async {
        for database in [&platform.primary, &platform.secondary] {
            let found = presence(database).await?;
            if found != (false, true) {
                return Err(format!("{found:?}"));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_command_to_a_bridge_that_hangs_is_not_sent_later() {
    let platform = platform().await;
    let bridge = platform.service("bridge");
    bridge.says("subscribed").await;
    let device = Device::listens(&platform, "commands", &[]).await;
    let command = |payload: &str| platform.command(&["device", "command", DEVICE, payload]);
    eventually("a bridge that answers", || async {
        let output = command("{\"set\":0}");
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    bridge.freeze();
    let output = command("{\"set\":1}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is unknown"), "{said}");
    bridge.thaw();
    eventually("a bridge that answers again", || async {
        let output = command("{\"set\":2}");
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
    eventually("the commands", || async {
        let told: Vec<_> = device.told().iter().map(|it| it["set"].clone()).collect();
        if told == [0, 2] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}
