//! Dead letters, looked at, tried again and dropped, with the commands that people type.

use crate::api::Api;
use domain::failpoint;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeMap;
use testkit::{
    Failpoint, Platform, eventually,
    judge::{Numbered, payload},
};

/// Letters that a filter names.
fn listed(platform: &Platform, filter: &[&str]) -> Vec<Value> {
    let arguments = [&["dead-letters", "list", "--json", "--limit", "100000"], filter].concat();
    let listed: Value = serde_json::from_str(&platform.succeed(&arguments)).unwrap();
    listed.as_array().unwrap().clone()
}

async fn letters(platform: &Platform, count: usize) -> Vec<Value> {
    eventually(&format!("{count} letters"), || async {
        let letters = listed(platform, &[]);
        if letters.len() == count { Ok(letters) } else { Err(letters.len().to_string()) }
    })
    .await
}

/// What a redrive says, whether all went well or not.
fn redrive(platform: &Platform, filter: &[&str]) -> Value {
    let output = platform.command(&[&["dead-letters", "redrive", "--json"], filter].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Waits until a bridge answers: a log may tell of the one before it.
async fn served(platform: &Platform) {
    let number = listed(platform, &[])[0]["number"].to_string();
    eventually("a bridge answers", || async {
        let output = platform.command(&["dead-letters", "show", &number]);
        if output.status.success() { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;
}

async fn everywhere(platform: &Platform, readings: &Numbered) {
    tokio::join!(
        readings.arrives(&platform.primary, "demo"),
        readings.arrives(&platform.secondary, "demo")
    );
}

fn numbers(letters: &[Value]) -> BTreeMap<String, (u64, u64)> {
    let number =
        |letter: &Value| (letter["number"].as_u64().unwrap(), letter["attempts"].as_u64().unwrap());
    letters.iter().map(|it| (it["about"].as_str().unwrap().to_owned(), number(it))).collect()
}

#[tokio::test]
async fn letters_of_a_device_arrive_once_it_is_registered() {
    const SENT: u32 = 300;
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.publish("devices/LATE-1/telemetry", (0..SENT).map(payload)).await;
    let found = letters(&platform, SENT as usize).await;
    let number = found[0]["number"].to_string();
    let shown = platform.succeed(&["dead-letters", "show", &number]);
    for text in
        ["unknown_device", "LATE-1", "of no known org", "\"temperature\":", "tried        1"]
    {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    let one: Value =
        serde_json::from_str(&platform.succeed(&["dead-letters", "show", &number, "--json"]))
            .unwrap();
    assert!(one["message"]["payload"]["temperature"].is_number(), "{one}");

    // Nothing was mended: they are the same letters with one more attempt.
    let again = redrive(&platform, &[&number]);
    assert_eq!((&again["delivered"], &again["again"]), (&0.into(), &1.into()), "{again}");
    let found = listed(&platform, &["--no-org"]);
    assert_eq!(found.len(), SENT as usize);
    let attempts = |letter: &Value| letter["attempts"].as_u64().unwrap();
    assert_eq!(found.iter().map(attempts).sum::<u64>(), u64::from(SENT) + 1);

    let (_, entity) = platform.add_device("LATE-1");
    let told = redrive(&platform, &["--reason", "unknown_device", "--sender", "LATE-1"]);
    assert_eq!((&told["delivered"], &told["again"]), (&SENT.into(), &0.into()), "{told}");
    everywhere(&platform, &Numbered { device: "LATE-1".to_owned(), entity, sent: SENT }).await;
    assert!(listed(&platform, &[]).is_empty());
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
    assert!(platform.fail(&["dead-letters", "redrive"]).contains("--all"), "not by mistake");
    assert!(platform.fail(&["dead-letters", "show", &number]).contains("no letter"));
}

/// How many of each reason; ten times as many by hand: `LETTERS=2000`.
fn each() -> u32 {
    std::env::var("LETTERS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

#[tokio::test]
async fn killed_in_the_middle_nothing_is_lost_or_doubled_and_attempts_are_right() {
    let each = each();
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let mut bridge = platform.service("bridge");
    platform.add_device("BAD-1");
    let ts = |n| payload(n).split(',').next().unwrap().to_owned();
    let bad = (0..each).flat_map(|n| {
        [
            "no json".to_owned(),
            format!("{},\"temperature\":\"warm\"}}", ts(n)),
            format!("{},\"other\":1}}", ts(n)),
            format!("{{\"ts\":\"2036-01-01T00:00:00Z\",\"temperature\":{n}}}"),
        ]
    });
    platform.publish("devices/LATE-2/telemetry", (0..each).map(payload)).await;
    platform.publish("devices/BAD-1/telemetry", bad).await;
    let found = letters(&platform, 5 * each as usize).await;
    let reasons: BTreeMap<&str, usize> = found.iter().fold(BTreeMap::new(), |mut sums, letter| {
        *sums.entry(letter["reason"].as_str().unwrap()).or_default() += 1;
        sums
    });
    assert_eq!(reasons.len(), 5, "{reasons:?}");
    assert!(reasons.values().all(|count| *count == each as usize), "{reasons:?}");
    let (_, entity) = platform.add_device("LATE-2");

    bridge.stop().await;
    let failpoint = Failpoint { name: failpoint::BEFORE_LETTER_LEAVES, passes: each + each / 2 };
    let mut doomed = platform.doomed("bridge", failpoint);
    served(&platform).await;
    // It dies on the way: the rest is refused, and stays.
    let cut = redrive(&platform, &["--all"]);
    doomed.died_at(failpoint).await;
    assert!(!cut["refused"].as_array().unwrap().is_empty(), "{cut}");
    let _bridge = platform.service("bridge");
    served(&platform).await;
    let told = redrive(&platform, &["--all"]);
    assert!(told["refused"].as_array().unwrap().is_empty(), "{told}");
    everywhere(&platform, &Numbered { device: "LATE-2".to_owned(), entity, sent: each }).await;
    let left = listed(&platform, &[]);
    assert_eq!(left.len(), 4 * each as usize, "every other letter is there");
    let by_source = numbers(&left);
    assert_eq!(by_source.len(), left.len(), "once");
    let (mut twice, mut thrice) = (0, 0);
    for (about, (_, attempts)) in by_source {
        match attempts {
            2 => twice += 1,
            3 => thrice += 1,
            other => panic!("{about} was tried {other} times"),
        }
    }
    // Those that failed again before it died were tried once more by the second run.
    let before = cut["again"].as_u64().unwrap();
    assert!(thrice >= before && twice > 0, "{twice} {thrice} {before}");
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}

async fn sql(database: &testkit::Database, sql: &str) {
    testkit::platform::change(&database.owner(), sql).await;
}

#[tokio::test]
async fn rows_that_a_database_refused_are_tried_again_and_overwrite_nothing_newer() {
    const SENT: u32 = 100;
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("ROWS-1");
    let limit = |at: u32| {
        format!(
            "alter table core.values_demo drop constraint if exists low; \
             alter table core.values_demo add constraint low check (value_n < {at})"
        )
    };
    sql(&platform.secondary, &limit(50)).await;
    let topic = "devices/ROWS-1/telemetry";
    // A row is to blame where its neighbours commit: each has one.
    platform.publish(topic, (0..50).flat_map(|n| [n + 50, n]).map(payload)).await;
    let found = letters(&platform, 50).await;
    for letter in &found {
        assert_eq!(letter["reason"], "refused_by_database", "{letter}");
        assert_eq!((&letter["target"], &letter["sender"]), (&"secondary".into(), &"ROWS-1".into()));
    }
    let readings = Numbered { device: "ROWS-1".to_owned(), entity, sent: SENT };
    readings.arrives(&platform.primary, "demo").await;

    sql(&platform.secondary, &limit(75)).await;
    let told = redrive(&platform, &["--stage", "ingest", "--org", "demo"]);
    assert_eq!((&told["delivered"], &told["again"]), (&25.into(), &25.into()), "{told}");
    let (before, after) = (numbers(&found), numbers(&listed(&platform, &[])));
    assert_eq!(after.len(), 25);
    for (about, (_, attempts)) in &after {
        assert_eq!(
            (before[about].1, *attempts),
            (1, 2),
            "{about}: the same letter, tried once more"
        );
    }

    // A correction by hand of a moment whose first value lies among the letters.
    let corrected = payload(90).replace(":90}", ":0.5}");
    platform.publish(topic, [corrected]).await;
    let value = |database: &testkit::Database| {
        let options = database.owner();
        async move {
            let mut connection = testkit::platform::connect(&options).await?;
            let at = testkit::judge::FIRST + 90;
            let value: Option<f64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
                "select value_n from core.values_demo where entity_id = {entity} and ts = to_timestamp({at})"
            )))
            .fetch_optional(&mut connection)
            .await
            .map_err(|error| error.to_string())?;
            if value == Some(0.5) { Ok(()) } else { Err(format!("{value:?}")) }
        }
    };
    eventually("the correction", || value(&platform.secondary)).await;
    sql(&platform.secondary, "alter table core.values_demo drop constraint low").await;
    let told = redrive(&platform, &["--all"]);
    assert_eq!((&told["delivered"], &told["again"]), (&25.into(), &0.into()), "{told}");
    for database in [&platform.primary, &platform.secondary] {
        value(database).await.expect("what came later counts");
    }
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}

#[tokio::test]
async fn a_letter_that_is_dropped_is_gone_and_on_record() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    platform.publish("devices/NOBODY/telemetry", (0..2).map(payload)).await;
    let found = letters(&platform, 2).await;
    let number = found[0]["number"].to_string();
    assert!(platform.fail(&["dead-letters", "drop", &number, "--reason", " "]).contains("reason"));
    platform.succeed(&["dead-letters", "drop", &number, "--reason", "a test by hand"]);
    assert_eq!(listed(&platform, &[]), found[1..]);
    assert_eq!(redrive(&platform, &[&number])["gone"], 1);
}

/// Sequence and index of the message that a letter is about.
fn accepted(about: &str) -> (u64, u32) {
    let mut parts = about.rsplit('/');
    let index = parts.next().unwrap().parse().unwrap();
    (parts.next().unwrap().parse().unwrap(), index)
}

#[tokio::test]
async fn the_same_by_the_api_by_whom_it_is_allowed() {
    const SENT: u32 = 120;
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let api = Api::start(&platform).await;
    platform.publish("devices/LATE-3/telemetry", (0..SENT).map(payload)).await;
    letters(&platform, SENT as usize).await;
    let own = api.letter("nothing").await;
    let page = api.get("/dead-letter?limit=50").await;
    assert_eq!(page.body.as_array().unwrap().len(), 50);
    let next = api.get(&format!("/dead-letter?limit=1000&cursor={}", page.next.unwrap())).await;
    assert_eq!(next.body.as_array().unwrap().len(), SENT as usize + 1 - 50);
    let number = page.body[0]["number"].as_u64().unwrap();
    let shown = api.get(&format!("/dead-letter/{number}")).await;
    // Letters of two packs may be filed in any order; messages are accepted in theirs.
    let pages = page.body.as_array().into_iter().chain(next.body.as_array()).flatten();
    let mut unknown: Vec<&Value> = pages.filter(|it| it["reason"] == "unknown_device").collect();
    unknown.sort_by_key(|letter| accepted(letter["about"].as_str().unwrap()));
    let place = unknown.iter().position(|letter| letter["number"] == number).unwrap();
    assert_eq!(shown.body["message"]["payload"]["temperature"], place, "{shown:?}");

    // A reader of the org sees its letters and changes none; of unknown devices it learns nothing.
    let reader = api.key(1, &["read"]).await;
    let by_reader = |method: Method, path: String| {
        let request = api.request(method, &path, &reader).json(&serde_json::json!({}));
        async { api.send(request).await.status }
    };
    assert_eq!(by_reader(Method::GET, format!("/dead-letter/{own}")).await, 200);
    assert_eq!(by_reader(Method::GET, format!("/dead-letter/{number}")).await, 404);
    assert_eq!(by_reader(Method::GET, "/dead-letter".to_owned()).await, 403);
    assert_eq!(by_reader(Method::POST, format!("/dead-letter/{own}/redrive")).await, 403);
    assert_eq!(by_reader(Method::DELETE, format!("/dead-letter/{own}?reason=x")).await, 403);

    let (_, entity) = platform.add_device("LATE-3");
    let (mut after, mut delivered) = (Value::from(0), 0);
    while !after.is_null() {
        let body = serde_json::json!({ "reason": "unknown_device", "after": after, "limit": 50 });
        let tried = api.post("/dead-letter/redrive", &body).await;
        assert_eq!(tried.status, 200, "{tried:?}");
        delivered += tried.body["delivered"].as_u64().unwrap();
        after = tried.body["next"].clone();
    }
    assert_eq!(delivered, u64::from(SENT));
    everywhere(&platform, &Numbered { device: "LATE-3".to_owned(), entity, sent: SENT }).await;
    let again = api.post(&format!("/dead-letter/{own}/redrive"), &Value::Null).await;
    let own = again.body["next"].as_u64().unwrap();
    assert_eq!(again.body["again"], 1, "{again:?}");
    assert_eq!(api.get(&format!("/dead-letter/{own}")).await.body["letter"]["attempts"], 2);
    assert_eq!(api.delete(&format!("/dead-letter/{own}?reason=a%20test")).await.status, 204);
    assert_eq!(api.get(&format!("/dead-letter/{own}")).await.status, 404);
}

/// Killed after the stream has what an unknown sender's message gives, with the letter still there: another
/// version of the type must not give the same message other values.
#[tokio::test]
async fn an_unknown_sender_is_taken_for_the_same_after_a_kill() {
    const SENT: u32 = 20;
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let mut bridge = platform.service("bridge");
    platform.publish("devices/LATE-4/telemetry", (0..SENT).map(payload)).await;
    letters(&platform, SENT as usize).await;
    let (_, entity) = platform.add_device("LATE-4");
    bridge.stop().await;
    let failpoint = Failpoint { name: failpoint::BEFORE_LETTER_LEAVES, passes: 0 };
    let mut doomed = platform.doomed("bridge", failpoint);
    served(&platform).await;
    redrive(&platform, &["--all"]);
    doomed.died_at(failpoint).await;
    let file = platform.config().with_file_name("other.yaml");
    let text = "device_type: temperature-sensor\nprocessing_mode: endpoint\nprotocol_adapter: json\n\
                timestamp: { pointer: /ts, format: rfc3339 }\nmetrics:\n\
                \x20 humidity: { pointer: /temperature, kind: number }\n";
    std::fs::write(&file, text).unwrap();
    platform.succeed(&["device-type", "apply", file.to_str().unwrap()]);
    let _bridge = platform.service("bridge");
    served(&platform).await;
    let told = redrive(&platform, &["--all"]);
    assert!(told["refused"].as_array().unwrap().is_empty(), "{told}");
    assert!(listed(&platform, &[]).is_empty());
    // Each message gave what one version says, whichever: never both.
    for database in [&platform.primary, &platform.secondary] {
        eventually("each moment once", || async {
            let mut connection = testkit::platform::connect(&database.owner()).await?;
            let (moments, points, rows): (i64, i64, i64) = sqlx::query_as(
                "select count(distinct v.ts), count(*) filter (where entity_id = $1), count(*) \
                 from core.values_demo v join core.device_point p using (entity_id) \
                 where p.device_id = 'LATE-4'",
            )
            .bind(entity)
            .fetch_one(&mut connection)
            .await
            .map_err(|error| error.to_string())?;
            let once = (moments, rows) == (SENT.into(), SENT.into()) && points > 0;
            if once { Ok(()) } else { Err(format!("{moments} moments, {points} of {rows} rows")) }
        })
        .await;
    }
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}

#[tokio::test]
async fn while_its_database_is_away_a_letter_waits_and_is_sent_once() {
    let platform = Platform::start("").await;
    let (_bridge, _ingest) = (platform.service("bridge"), platform.service("ingest"));
    let (_, entity) = platform.add_device("WAIT-1");
    sql(&platform.secondary, "alter table core.values_demo add constraint low check (value_n < 1)")
        .await;
    platform.publish("devices/WAIT-1/telemetry", [payload(1), payload(0)]).await;
    letters(&platform, 1).await;
    sql(&platform.secondary, "alter table core.values_demo drop constraint low").await;
    platform.secondary_cluster.stop().await;
    let told = redrive(&platform, &["--all"]);
    assert_eq!(told["waiting"], 1, "{told}");
    let waiting = listed(&platform, &[]);
    let sequence = waiting[0]["waiting_for"].clone();
    assert!(sequence.is_u64() && waiting[0]["attempts"] == 1, "{waiting:?}");
    platform.secondary_cluster.launch().await;
    everywhere(&platform, &Numbered { device: "WAIT-1".to_owned(), entity, sent: 2 }).await;
    let told = redrive(&platform, &["--all"]);
    assert_eq!((&told["delivered"], &told["waiting"]), (&1.into(), &0.into()), "{told}");
    assert!(listed(&platform, &[]).is_empty());
}

/// Past its quota a device's letters become one, whoever dies on the way; nothing is lost, and nothing doubled.
#[tokio::test]
async fn letters_past_the_quota_become_one_and_all_of_them_arrive() {
    const SENT: u32 = 4_000;
    const QUOTA: u64 = 20;
    // What a bridge had when it died comes again soon.
    let settings = format!("retention.letters_per_device = {QUOTA}\nnats.ack_wait_seconds = 2");
    let platform = Platform::start(&settings).await;
    let failpoint = Failpoint { name: failpoint::BEFORE_RAW_ACK, passes: 0 };
    let mut doomed = platform.doomed("bridge", failpoint);
    let _ingest = platform.service("ingest");
    let closed = Failpoint { name: failpoint::AFTER_MANY_CLOSED, passes: 0 };
    let dying = async {
        doomed.died_at(failpoint).await;
        // The next one dies when the first letter for many is full.
        platform.doomed("bridge", closed).died_at(closed).await;
        platform.service("bridge")
    };
    let ((), bridge) =
        tokio::join!(platform.publish("devices/NOISY-1/telemetry", (0..SENT).map(payload)), dying);
    let messages = |letter: &Value| letter["messages"].as_u64().unwrap();
    eventually("all letters", || async {
        let all: u64 = listed(&platform, &[]).iter().map(messages).sum();
        if all >= SENT.into() { Ok(()) } else { Err(all.to_string()) }
    })
    .await;
    // Nothing comes again any more.
    platform.balances().await;
    let found = listed(&platform, &[]);
    // What the first bridge had filed is known to the second; a look now and then is not a count.
    assert!((2..=4 * QUOTA as usize).contains(&found.len()), "{} letters", found.len());
    let many = found.iter().filter(|letter| messages(letter) > 1).count();
    assert!((2..=6).contains(&many), "{many} letters for many");
    let by_stage = listed(&platform, &["--stage", "normalize", "--reason", "unknown_device"]);
    assert_eq!(by_stage, found);
    assert!(listed(&platform, &["--stage", "ingest"]).is_empty());
    let number = found.iter().find(|it| messages(it) > 1).unwrap()["number"].to_string();
    assert!(platform.succeed(&["dead-letters", "list"]).contains("messages; the last"));
    let traced = platform.command(&["trace", "RAW-1-0"]);
    assert!(String::from_utf8_lossy(&traced.stdout).contains("unknown_device"), "{traced:?}");

    let (_, entity) = platform.add_device("NOISY-1");
    // The bridge dies when the first thousand have letters of their own, and lie in the one, too.
    drop(bridge);
    let failpoint = Failpoint { name: failpoint::BEFORE_LETTER_LEAVES, passes: 0 };
    let mut doomed = platform.doomed("bridge", failpoint);
    served(&platform).await;
    let _ = platform.command(&["dead-letters", "redrive", &number]);
    doomed.died_at(failpoint).await;
    let _bridge = platform.service("bridge");
    served(&platform).await;
    let told = redrive(&platform, &["--all"]);
    assert_eq!((&told["again"], &told["waiting"]), (&0.into(), &0.into()), "{told}");
    let readings = Numbered { device: "NOISY-1".to_owned(), entity, sent: SENT };
    everywhere(&platform, &readings).await;
    eventually("no letter is left", || async {
        let letters = listed(&platform, &[]);
        if letters.is_empty() {
            return Ok(());
        }
        let _ = redrive(&platform, &["--all"]);
        Err(format!("{letters:?}"))
    })
    .await;
    assert!(platform.succeed(&["verify"]).contains("equal"));
    platform.balances().await;
}
