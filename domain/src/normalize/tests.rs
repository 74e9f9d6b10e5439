use super::*;

fn profile(rest: &str) -> DeviceType {
    let text = format!(
        r#"{{"device_type":"t","processing_mode":"endpoint","protocol_adapter":"json",{rest}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

const METRICS: &str = r#""metrics":{
    "hum":{"pointer":"/h/0","kind":"number","unit":"%"},
    "mode":{"pointer":"/mode","kind":"string"},
    "on":{"pointer":"/on","kind":"boolean"},
    "since":{"pointer":"/since","kind":"time"}}"#;

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap()
}

fn run<'p>(profile: &'p DeviceType, payload: &str) -> Result<Normalized<'p>, Fault> {
    normalize(profile, payload.as_bytes(), now(), &TimeLimits::default())
}

#[test]
fn each_kind_is_read_and_null_is_nothing() {
    let profile = profile(METRICS);
    let payload = r#"{"h":[4],"mode":null,"on":true,"since":"2020-01-01T00:00:00+01:00"}"#;
    let readings = run(&profile, payload).unwrap().readings;
    let names: Vec<_> = readings.iter().map(|reading| reading.metric).collect();
    assert_eq!(names, ["hum", "on", "since"]);
    assert_eq!(readings[0].values, Values::number(4.0));
    assert_eq!(readings[0].ts, now());
}

#[test]
fn a_wrong_type_is_set_aside_and_its_neighbours_stay() {
    let profile = profile(METRICS);
    let normalized = run(&profile, r#"{"h":["4"],"on":1,"mode":"auto"}"#).unwrap();
    assert_eq!(normalized.readings.len(), 1);
    let reasons: Vec<_> = normalized.faults.iter().map(|fault| fault.reason).collect();
    assert_eq!(reasons, [Reason::WrongType, Reason::WrongType]);
}

#[test]
fn a_payload_that_gives_nothing_says_why() {
    let profile = profile(METRICS);
    let reason = |payload| run(&profile, payload).unwrap_err().reason;
    assert_eq!(reason("{"), Reason::NotJson);
    assert_eq!(reason("{\"h\":[1e999]}"), Reason::NotJson);
    assert_eq!(reason("{\"x\":1}"), Reason::NothingMapped);
    assert_eq!(reason("[]"), Reason::NothingMapped);
    assert_eq!(reason(&"[".repeat(100_000)), Reason::NotJson);
}

#[test]
fn a_payload_of_a_million_values_is_refused_before_it_is_taken_apart() {
    let profile = profile(METRICS);
    let many = format!("{{\"on\":true,\"x\":[{}0]}}", "{\"\":0},".repeat(MAX_JSON_VALUES));
    assert_eq!(run(&profile, &many).unwrap_err().reason, Reason::TooComplex);
    let text = ",[{".repeat(MAX_JSON_VALUES);
    assert!(run(&profile, &format!("{{\"on\":true,\"x\":\"\\\"{text}\"}}")).is_ok());
}

#[test]
fn moments_are_read_in_each_format_and_held_against_the_limits() {
    let at = |format: &str| {
        profile(&format!(r#""timestamp":{{"pointer":"/ts","format":"{format}"}},{METRICS}"#))
    };
    let ts = |format: &str, written: &str| {
        let profile = at(format);
        let payload = format!(r#"{{"on":true,"ts":{written}}}"#);
        run(&profile, &payload).map(|done| done.readings[0].ts.to_string()).map_err(|f| f.reason)
    };
    let good = Ok("2026-05-01T00:00:00Z".to_owned());
    assert_eq!(ts("rfc3339", "\"2026-05-01T02:00:00+02:00\""), good);
    assert_eq!(ts("unix_seconds", "1777593600"), good);
    assert_eq!(ts("unix_millis", "1777593600000.0"), good);
    assert_eq!(ts("unix_seconds", "9e300"), Err(Reason::WrongType));
    assert_eq!(ts("rfc3339", "\"2026-05-01T02:00:00\""), Err(Reason::WrongType));
    assert_eq!(ts("rfc3339", "\"2026-06-01T00:10:01Z\""), Err(Reason::TimeOutOfRange));
    assert_eq!(ts("unix_seconds", "0"), Err(Reason::TimeOutOfRange));
}

#[test]
fn unknown_fields_are_set_aside_where_the_type_says_so() {
    let profile = profile(&format!(r#""unknown_metrics":"dead_letter",{METRICS}"#));
    let normalized = run(&profile, r#"{"on":true,"surprise":7}"#).unwrap();
    assert_eq!(normalized.readings.len(), 1);
    assert_eq!(normalized.faults[0].reason, Reason::UnknownMetric);
    assert_eq!(normalized.faults[0].detail, "/surprise: 7");
}

#[test]
fn examples_show_a_mapping_that_is_wrong() {
    let good = r#""examples":[{"name":"a","payload":{"h":[4]},
        "readings":[{"metric":"hum","value":4}]}]"#;
    assert_eq!(check_examples(&profile(&format!("{METRICS},{good}")), now()), Ok(()));
    for bad in [
        r#"{"name":"a","payload":{"h":[5]},"readings":[{"metric":"hum","value":4}]}"#,
        r#"{"name":"a","payload":{"h":[4],"on":true},"readings":[{"metric":"hum","value":4}]}"#,
        r#"{"name":"a","payload":{"h":[4]},"readings":[{"metric":"temp","value":4}]}"#,
        r#"{"name":"a","payload":{},"readings":[]}"#,
    ] {
        let profile = profile(&format!(r#"{METRICS},"examples":[{bad}]"#));
        assert!(check_examples(&profile, now()).is_err(), "{bad}");
    }
}
