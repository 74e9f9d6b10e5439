//! What each user of the stream server may not do, tried on the server itself.

use testkit::Nats;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A connection that speaks the protocol by hand: a client library hides refusals.
struct Line {
    read: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Line {
    async fn sign_in(nats: &Nats, user: &str, password: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", nats.port())).await.expect("it listens");
        let (read, write) = stream.into_split();
        let mut line = Self { read: BufReader::new(read).lines(), write };
        let hello =
            format!(r#"CONNECT {{"verbose":false,"user":"{user}","pass":"{password}"}}"#) + "\r\n";
        line.write.write_all(hello.as_bytes()).await.expect("it reads");
        line
    }

    /// Sends a command and says whether the server refused it.
    async fn refuses(&mut self, command: &str) -> bool {
        let text = format!("{command}\r\nPING\r\n");
        self.write.write_all(text.as_bytes()).await.expect("it reads");
        let mut refused = false;
        loop {
            match self.read.next_line().await {
                Ok(Some(line)) if line == "PONG" => return refused,
                Ok(Some(line)) => refused |= line.starts_with("-ERR"),
                // It hangs up on strangers, sometimes before what it says has arrived.
                Ok(None) | Err(_) => return true,
            }
        }
    }

    async fn may_publish(&mut self, subject: &str) -> bool {
        !self.refuses(&format!("PUB {subject} 0\r\n")).await
    }

    async fn may_subscribe(&mut self, subject: &str) -> bool {
        !self.refuses(&format!("SUB {subject} 1")).await
    }
}

#[tokio::test]
async fn a_user_may_do_its_work_and_nothing_else() {
    let nats = Nats::start().await;
    let may = [
        ("bridge", "raw.mqtt.one telemetry.demo.bridge dead.bridge.demo.D-1"),
        ("ingest", "dead.ingest.demo.primary outcome.primary.demo $JS.ACK.TELEMETRY.c.1.1.1.1.0"),
        ("simulator", "telemetry.demo.simulator-1 event.demo.simulator.1 model.demo.poller.1"),
        ("simulator", "$KV.leases.simulator.1 $KV.counters.entity model.demo.entity.1"),
        (
            "operator",
            "simulator.1.state model.demo.entity.1 $KV.counters.org status.ask $JS.API.STREAM.INFO.RAW",
        ),
        ("admin", "raw.mqtt.one $JS.API.STREAM.DELETE.RAW"),
        (
            "api",
            "raw.http.one telemetry.demo.api model._.key.k simulator.1.start $KV.idempotency.k \
             $KV.jobs.1",
        ),
    ];
    let may_not = [
        (
            "bridge",
            "raw.http.one model.demo.profile.t.1 $JS.API.STREAM.DELETE.RAW $KV.counters.org",
        ),
        ("bridge", "$KV.jobs.1 $KV.targets.primary"),
        ("simulator", "$KV.jobs.1 $KV.replays.1"),
        ("bridge", "$JS.API.CONSUMER.DELETE.RAW.normalize $JS.ACK.TELEMETRY.c.1.1.1.1.0"),
        ("ingest", "raw.mqtt.one telemetry.demo.x model.demo.entity.1 $JS.API.STREAM.PURGE.DEAD"),
        (
            "simulator",
            "raw.mqtt.one model.demo.device.1 model._.device.D-1 $KV.counters.org dead.a.b.c",
        ),
        ("simulator", "$JS.ACK.TELEMETRY.c.1.1.1.1.0 $JS.API.STREAM.PURGE.TELEMETRY $KV.leases.x"),
        ("operator", "raw.mqtt.one telemetry.demo.x dead.a.b.c $JS.API.STREAM.DELETE.MODEL"),
        ("operator", "$JS.API.CONSUMER.DELETE.TELEMETRY.ingest-primary-demo $JS.ACK.RAW.n.1.1.1.1"),
        (
            "api",
            "raw.mqtt.one telemetry.demo.bridge dead.a.b.c outcome.primary.demo event.demo.x.1",
        ),
        ("api", "$JS.API.STREAM.DELETE.RAW $JS.ACK.TELEMETRY.c.1.1.1.1.0 $KV.leases.simulator.1"),
        ("simulator", "model._.key.k model.demo.grant.1 model._.user.1"),
        ("bridge", "model._.key.k model.demo.grant.1 model._.user.1"),
        ("doctor", "raw.mqtt.one model.demo.entity.1 $JS.API.INFO"),
    ];
    for (wanted, subjects) in
        may.map(|row| (true, row)).into_iter().chain(may_not.map(|row| (false, row)))
    {
        let (user, subjects) = subjects;
        let mut line = Line::sign_in(&nats, user, &nats.password(user)).await;
        for subject in subjects.split(' ') {
            assert_eq!(line.may_publish(subject).await, wanted, "{user} publishes {subject}");
        }
    }
}

#[tokio::test]
async fn nobody_hears_what_is_meant_for_another() {
    let nats = Nats::start().await;
    for user in ["bridge", "ingest", "simulator", "api", "operator"] {
        let mut line = Line::sign_in(&nats, user, &nats.password(user)).await;
        assert!(line.may_subscribe(&format!("_INBOX_{user}.x.*")).await, "{user}");
        for subject in ["_INBOX_admin.>", "_INBOX.>", "raw.>", "telemetry.>", "model.>", ">"] {
            assert!(!line.may_subscribe(subject).await, "{user} hears {subject}");
        }
    }
}

#[tokio::test]
async fn strangers_stay_out() {
    let nats = Nats::start().await;
    for (user, password) in [("bridge", "guess"), ("", ""), ("root", "root")] {
        let mut line = Line::sign_in(&nats, user, password).await;
        assert!(line.refuses("PUB raw.mqtt.one 0\r\n").await, "{user}");
    }
}
