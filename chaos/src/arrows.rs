//! The plan of the house: which room may lean on which, and who alone may use what.

use std::{collections::BTreeMap, process::Command};

/// A room and the rooms it may depend on. Arrows go downward; services never import one another.
const ROOMS: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("nats", &["domain"]),
    ("rules", &["domain", "nats"]),
    ("store", &["domain"]),
    ("service", &["domain"]),
    ("bridge", &["domain", "nats", "rules", "service"]),
    ("ingest", &["domain", "custody", "nats", "store", "service"]),
    ("building", &["domain"]),
    ("simulator", &["domain", "building", "nats", "store", "service"]),
    ("control-api", &["domain", "building", "nats", "store", "service"]),
    ("custody", &["domain", "building", "nats", "rules", "store"]),
    ("local", &["domain"]),
    (
        "cli",
        &[
            "domain",
            "nats",
            "store",
            "service",
            "bridge",
            "ingest",
            "building",
            "simulator",
            "control-api",
            "custody",
            "local",
        ],
    ),
    ("testkit", &["domain", "local"]),
    ("chaos", &["domain", "nats"]),
    (
        "bench",
        &[
            "domain",
            "nats",
            "store",
            "service",
            "bridge",
            "ingest",
            "building",
            "simulator",
            "local",
            "testkit",
        ],
    ),
];

/// A dependency and the only rooms that may have it.
const KEPT_APART: [(&str, &[&str]); 5] = [
    ("sqlx", &["store", "local", "testkit", "chaos", "bench"]),
    ("async-nats", &["nats", "chaos", "bench"]),
    ("rumqttc", &["bridge"]),
    ("figment", &["service"]),
    ("rcgen", &["local"]),
];

/// Normal dependencies (not those of tests) of each room, by package name.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().cloned().unwrap_or_default();
        all.iter().filter(|dep| dep["kind"].is_null()).map(|dep| text(&dep["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), normal(package))).collect()
}

fn room(package: &str) -> Option<&str> {
    package.strip_prefix("haystack-")
}

#[test]
fn arrows_go_downward() {
    let plan = BTreeMap::from(ROOMS);
    for (package, needs) in dependencies() {
        let name = room(&package).expect("every package is a room");
        let allowed = plan.get(name).unwrap_or_else(|| panic!("{name} is not in the plan"));
        for need in needs.iter().filter_map(|need| room(need)) {
            assert!(allowed.contains(&need), "{name} must not depend on {need}");
        }
    }
}

#[test]
fn each_server_is_spoken_to_in_one_room() {
    for (package, needs) in dependencies() {
        let name = room(&package).expect("every package is a room");
        for (dependency, rooms) in KEPT_APART {
            let has = needs.iter().any(|need| need == dependency);
            assert!(!has || rooms.contains(&name), "{name} must not use {dependency}");
        }
    }
}
