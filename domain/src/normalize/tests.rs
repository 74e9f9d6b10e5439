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

fn gateway(logical: &str) -> DeviceType {
    let text = format!(
        r#"{{"device_type":"hub","processing_mode":"gateway","protocol_adapter":"json",
        "timestamp":{{"pointer":"/ts","format":"unix_seconds"}},"unknown_metrics":"dead_letter",
        "logical_devices":{logical},"gateway_metrics":{{"up":{{"pointer":"/up","kind":"number"}}}},
        "metrics":{{"n":{{"pointer":"/n","kind":"number"}}}}}}"#
    );
    let profile: DeviceType = serde_json::from_str(&text).unwrap();
    profile.check().unwrap();
    profile
}

/// What was said of whom, and when (seconds after 1,800,000,000), and the faults.
fn said(profile: &DeviceType, payload: &str) -> (Vec<(String, f64, i64)>, Vec<String>) {
    let normalized = normalize(
        profile,
        payload.as_bytes(),
        Timestamp::from_micros(1_800_000_000_000_000).unwrap(),
        &TimeLimits::default(),
    )
    .unwrap();
    let own = normalized.readings.iter().map(|it| (String::new(), it));
    let logical = normalized.logical.iter();
    let logical = logical.flat_map(|of| of.readings.iter().map(|it| (of.identifier.clone(), it)));
    let after = |ts: Timestamp| ts.micros() / 1_000_000 - 1_800_000_000;
    let readings = own.chain(logical).map(|(who, it)| (who, it.values.n.unwrap(), after(it.ts)));
    let faults = normalized.faults.into_iter().map(|fault| fault.detail);
    (readings.collect(), faults.collect())
}

#[test]
fn a_gateway_speaks_for_others_in_a_list() {
    let profile = gateway(
        r#"{"pointer":"/d","identifier":"/id","timestamp":{"pointer":"/t","format":"unix_seconds"}}"#,
    );
    let (readings, faults) = said(
        &profile,
        r#"{"ts":1800000000,"up":1,"other":0,"d":[
            {"id":"a","t":1800000001,"n":2},{"id":7,"t":1800000002,"n":3},
            {"id":"late","n":4},{"id":"far","t":1900000000,"n":5},{"n":6},{"id":"","n":7},
            {"id":1.5,"n":8},{"id":"b","t":1800000003,"n":"x","more":1},3,{"id":"c\n","n":9}]}"#,
    );
    let expected = [("", 1.0, 0), ("a", 2.0, 1), ("7", 3.0, 2)];
    assert_eq!(readings, expected.map(|(who, n, at)| (who.to_owned(), n, at)));
    let wanted = [
        "/d/2/t: no time stamp there",
        "/d/3/t: 2030-03-17",
        "/d/4/id: nothing is no identifier",
        "/d/5/id: an empty text",
        "/d/6/id: something else than",
        "/d/7/n: \"x\" is no number",
        "/d/7/more: 1",
        "/d/8/id: nothing",
        "/d/9/id: a text with control characters",
        "/other: 0",
    ];
    assert_eq!(faults.len(), wanted.len(), "{faults:#?}");
    for (fault, wanted) in faults.iter().zip(wanted) {
        assert!(fault.starts_with(wanted), "{fault} is not {wanted}");
    }
}

#[test]
fn a_gateway_speaks_for_others_by_name() {
    let profile = gateway(r#"{"pointer":"/d"}"#);
    let payload = r#"{"ts":1800000000,"d":{"a":{"n":1},"b c":{"n":2},"":{"n":3}}}"#;
    let (readings, faults) = said(&profile, payload);
    assert_eq!(readings, [("a", 1.0, 0), ("b c", 2.0, 0)].map(|(w, n, t)| (w.to_owned(), n, t)));
    assert_eq!(faults, ["/d: an empty text is no identifier"]);
    let (readings, faults) = said(&profile, r#"{"ts":1800000000,"d":[{"n":1}]}"#);
    assert_eq!((readings.len(), faults.len()), (0, 1), "{faults:?}");
    assert!(faults[0].contains("an object is expected"), "{faults:?}");
}

#[test]
fn a_gateway_that_hears_nobody_is_believed_and_one_that_says_nothing_is_not() {
    let profile = gateway(r#"{"pointer":"/d","identifier":"/id"}"#);
    assert_eq!(said(&profile, r#"{"ts":1800000000,"d":[]}"#), (vec![], vec![]));
    let now = Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    let nothing = normalize(&profile, br#"{"ts":1800000000}"#, now, &TimeLimits::default());
    assert_eq!(nothing.unwrap_err().reason, Reason::NothingMapped);
}

#[test]
fn a_type_says_what_a_gateway_must() {
    let check = |text: &str| {
        let profile: DeviceType = serde_json::from_str(text).unwrap();
        profile.check().unwrap_err().to_string()
    };
    let of = |mode: &str, more: &str| {
        check(&format!(
            r#"{{"device_type":"t","processing_mode":"{mode}","protocol_adapter":"json",{more}
            "metrics":{{"n":{{"pointer":"/n","kind":"number"}}}}}}"#
        ))
    };
    let own = r#""gateway_metrics":{"n":{"pointer":"/n","kind":"number"}},"#;
    assert!(of("gateway", "").starts_with("logical_devices: a gateway says"));
    assert!(of("endpoint", own).starts_with("gateway_metrics: only a gateway"));
    assert!(of("endpoint", r#""logical_devices":{"pointer":"/d"},"#).contains("only a gateway"));
    assert!(of("gateway", r#""logical_devices":{"pointer":"d"},"#).contains("no JSON pointer"));
}

#[test]
fn fields_that_nothing_maps_are_found_where_the_type_makes_metrics_of_them() {
    let profile = profile(&format!(r#""unknown_metrics":"create",{METRICS}"#));
    let payload = r#"{"on":true,"volt":3.3,"door":false,"fw":"1.2","gone":null,"a b":1,"l":[1]}"#;
    let normalized = run(&profile, payload).unwrap();
    let found: Vec<_> =
        normalized.found.iter().map(|found| (found.metric.as_str(), found.kind)).collect();
    assert_eq!(found, [("door", Kind::Boolean), ("fw", Kind::String), ("volt", Kind::Number)]);
    // What can't be a metric says why; the rest is stored.
    let reasons: Vec<_> = normalized.faults.iter().map(|fault| fault.reason).collect();
    assert_eq!(reasons, [Reason::UnknownMetric; 2]);
    assert_eq!(normalized.readings.len(), 1);
    assert!(run(&profile, r#"{"volt":1}"#).unwrap().readings.is_empty());
}

#[test]
fn a_number_is_scaled_and_without_a_scale_it_is_as_it_came() {
    let metrics = r#""metrics":{
        "both":{"pointer":"/n","kind":"number","scale":0.5,"offset":-4},
        "moved":{"pointer":"/n","kind":"number","offset":273.15},
        "plain":{"pointer":"/n","kind":"number"},
        "large":{"pointer":"/n","kind":"number","scale":1e308}}"#;
    let profile = profile(metrics);
    profile.check().unwrap();
    let normalized = run(&profile, r#"{"n":10.1}"#).unwrap();
    let numbers: Vec<_> = normalized.readings.iter().map(|it| (it.metric, it.values.n)).collect();
    assert_eq!(
        numbers,
        [("both", Some(10.1 * 0.5 - 4.0)), ("moved", Some(10.1 + 273.15)), ("plain", Some(10.1)),]
    );
    assert_eq!(normalized.faults[0].reason, Reason::WrongType);
    for wrong in [r#""string","scale":2"#, r#""number","scale":0"#, r#""boolean","offset":1"#] {
        let metrics = format!(r#""metrics":{{"m":{{"pointer":"/n","kind":{wrong}}}}}"#);
        assert!(super::tests::profile(&metrics).check().is_err(), "{wrong}");
    }
}
