//! Bridges that share the work, come by certificate, and leave.

use domain::{Clock, SystemClock};
use testkit::{
    Platform, Process, eventually,
    judge::{Numbered, payload},
};

const TOPIC: &str = "devices/SHARE-1/telemetry";

async fn platform(sent: u32) -> (Platform, Numbered) {
    let platform = Platform::start("nats.ack_wait_seconds = 2").await;
    let (_, entity) = platform.add_device("SHARE-1");
    (platform, Numbered { device: "SHARE-1".to_owned(), entity, sent })
}

fn sharing(platform: &Platform, name: &str) -> Process {
    platform.instance_with("bridge", name, &["mqtt.share=bridges".to_owned()])
}

/// What the bridges have counted, by instance.
async fn counted(platform: &Platform, instance: &str) -> u64 {
    eventually(&format!("{instance} to answer"), || async {
        let status = platform.succeed(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let mut services = status["services"].as_array().expect("services").iter();
        let one = services.find(|one| one["instance"] == instance).ok_or("not there")?;
        one["counters"]["messages"].as_u64().ok_or_else(|| "no count".to_owned())
    })
    .await
}

#[tokio::test]
async fn two_share_the_work_and_one_leaves() {
    let (platform, readings) = platform(3_000).await;
    let _ingest = platform.service("ingest");
    let publish = async |numbers: std::ops::Range<u32>| {
        platform.publish(TOPIC, numbers.map(payload)).await;
    };
    // The first had it all to itself: from now on it shares, and gets nothing twice.
    let one = sharing(&platform, "bridge-1");
    let mut two = sharing(&platform, "bridge-2");
    for bridge in [&one, &two] {
        bridge.says("subscribed").await;
    }
    // Whoever may not read can't take others' share away either: the group's name is a secret.
    let intruder = tokio::process::Command::new("mosquitto_sub")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &platform.mosquitto.port().to_string()])
        .args(["-q", "1", "-t", "$share/bridges/devices/+/telemetry"])
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    publish(0..1_000).await;
    eventually("each message once", || async {
        let (a, b) = (counted(&platform, "bridge-1").await, counted(&platform, "bridge-2").await);
        assert!(a + b <= 1_000, "{a} + {b}");
        if a + b == 1_000 && a > 0 && b > 0 { Ok(()) } else { Err(format!("{a} + {b}")) }
    })
    .await;
    drop(intruder);
    // One is killed: what the broker keeps for it comes when it is back.
    two.kill9().await;
    publish(1_000..2_000).await;
    let mut two = sharing(&platform, "bridge-2");
    two.says("subscribed").await;
    two.kill9().await;
    publish(2_000..2_500).await;
    // It is not to come back: what the broker keeps for it is taken, and no more is kept.
    let leave = |instance: &str| {
        let set = |setting: &str| ["--set".to_owned(), setting.to_owned()];
        let instance = set(&format!("bridge.instance={instance}"));
        let arguments =
            [&instance[..], &set("mqtt.share=bridges"), &["bridge".into(), "--leave".into()]];
        let arguments = arguments.concat();
        let output = platform.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (left, said) = leave("bridge-2");
    assert!(left, "{said}");
    // Who runs, and who never was, is told so.
    let (left, said) = leave("bridge-1");
    assert!(!left && said.contains("bridge-1 runs"), "{said}");
    let (left, said) = leave("bridge-9");
    assert!(!left && said.contains("no session"), "{said}");
    publish(2_500..3_000).await;
    readings.arrives(&platform.primary, "demo").await;
    readings.arrives(&platform.secondary, "demo").await;
}

#[tokio::test]
async fn a_bridge_comes_by_certificate_and_finds_a_new_one() {
    let (platform, readings) = platform(200).await;
    let _ingest = platform.service("ingest");
    let authority = platform.mosquitto.authority();
    let name = local::mosquitto::USER;
    authority.issue_service(name, 30, SystemClock.now()).unwrap();
    let (cert, key) = authority.service(name);
    let port = platform.mosquitto.server().listeners().mqtts;
    let mut settings = vec![format!("mqtt.url=mqtts://localhost:{port}")];
    for (setting, file) in [("ca", authority.ca()), ("cert", cert), ("key", key)] {
        settings.push(format!("mqtt.{setting}={}", file.display()));
    }
    let bridge = platform.instance_with("bridge", "bridge-1", &settings);
    bridge.says("subscribed").await;
    platform.publish(TOPIC, (0..100).map(payload)).await;
    // The next certificate is picked up with the next connection.
    authority.issue_service(name, 30, SystemClock.now()).unwrap();
    platform.mosquitto.restart().await;
    platform.publish(TOPIC, (100..200).map(payload)).await;
    readings.arrives(&platform.primary, "demo").await;
    readings.arrives(&platform.secondary, "demo").await;
    // A broker that somebody else certifies is none of ours.
    let strangers = testkit::folder("strangers");
    let other = local::pki::Authority::init(&strangers, &[], SystemClock.now()).unwrap();
    settings[1] = format!("mqtt.ca={}", other.ca().display());
    let refusing = platform.instance_with("bridge", "bridge-2", &settings);
    refusing.says("UnknownIssuer").await;
}

/// With an end of sessions in its configuration Mosquitto 2.0.11 died of this, each time: a list of
/// sessions that end was left with an entry of one that had come back.
#[tokio::test]
async fn the_broker_survives_new_lists_of_the_revoked_between_a_devices_visits() {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };
    const DEVICE: &str = "HUP-1";
    let mosquitto = testkit::Mosquitto::start().await;
    let authority = mosquitto.authority();
    let id = domain::DeviceId::parse(DEVICE).unwrap();
    authority.issue(&id, 30, SystemClock.now()).unwrap();
    let (cert, key) = authority.device(&id);
    let port = mosquitto.server().listeners().mqtts.to_string();
    let visit = async |version: &str, seconds: &str| {
        let mut command = tokio::process::Command::new("mosquitto_sub");
        command
            .args(["-V", version, "-h", "localhost", "-p", &port, "-c", "-i", DEVICE, "-q", "1"])
            .args(["-t", &format!("devices/{DEVICE}/commands"), "-W", seconds])
            .args(["--cafile".as_ref(), authority.ca().as_os_str()])
            .args(["--cert".as_ref(), cert.as_os_str(), "--key".as_ref(), key.as_os_str()])
            .kill_on_drop(true);
        // 27: it left when its time was over.
        assert_eq!(command.status().await.unwrap().code(), Some(27), "the broker lives");
    };
    let password = mosquitto.password();
    let plain = mosquitto.port().to_string();
    let command = async || {
        let sent = tokio::process::Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &plain, "-q", "1", "-m", "something"])
            .args(["-u", local::mosquitto::USER, "-P", &password])
            .args(["-t", &format!("devices/{DEVICE}/commands")])
            .status();
        assert!(sent.await.unwrap().success(), "the broker lives");
    };
    let told = async || {
        kill(Pid::from_raw(mosquitto.pid().unwrap() as i32), Signal::SIGHUP).unwrap();
        mosquitto.server().settled().await.unwrap();
    };
    told().await;
    for _ in 0..2 {
        mosquitto.server().end_session(DEVICE, false).await.unwrap();
    }
    for _ in 0..3 {
        visit("311", "1").await;
    }
    command().await;
    told().await;
    // The broker looks at its list once a second.
    tokio::time::sleep(std::time::Duration::from_millis(1_300)).await;
    command().await;
    visit("311", "3").await;
    visit("5", "4").await;
    assert!(mosquitto.server().settled().await.is_ok(), "{}", mosquitto.log_tail());
}
