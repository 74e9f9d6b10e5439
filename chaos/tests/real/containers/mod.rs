//! The containers, as far as they can be tried without an engine: what docker-compose.yml and the
//! Dockerfile name is there, and is right for the real binary and real servers.

mod compose;
mod played;

use compose::{Dependency, Service, compose, instructions, root, shared_files, text};
use std::{collections::BTreeMap, path::Path, process::Command};
use testkit::process::{binary, run};

/// Who may be asked for what, by the name of the service.
const PORTS: [(&str, u16); 5] =
    [("nats", 4222), ("emqx", 1883), ("primary", 5432), ("secondary", 5432), ("state", 5432)];

/// A version with two numbers at least.
fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else { return false };
    let numbers = tag.split(['.', '-']).take_while(|part| part.parse::<u32>().is_ok()).count();
    numbers >= 2
}

#[test]
fn images_are_pinned_and_ours_is_this_release() {
    let ours = format!("haystack:{}", env!("CARGO_PKG_VERSION"));
    for (name, service) in compose().services {
        assert!(is_pinned(&service.image), "{name}: {}", service.image);
        assert!(!service.image.starts_with("haystack:") || service.image == ours, "{name}");
    }
    let from = instructions().into_iter().filter(|(word, _)| word == "FROM");
    for (_, image) in from {
        let image = image.split(' ').next().unwrap();
        assert!(is_pinned(image), "Dockerfile: {image}");
    }
    assert!(text("Dockerfile").contains(&ours), "the Dockerfile names another release");
}

#[test]
fn nothing_starts_before_what_it_needs() {
    let services = compose().services;
    for (name, service) in &services {
        for (needed, Dependency { condition }) in &service.depends_on {
            let needed = services.get(needed).unwrap_or_else(|| panic!("{name} needs {needed}"));
            match condition.as_str() {
                "service_healthy" => assert!(!needed.healthcheck.disable, "{name}"),
                // Who is started again when it has done its work never completes.
                "service_completed_successfully" => assert_eq!(needed.restart, "no", "{name}"),
                other => panic!("{name}: {other}"),
            }
        }
        let lasting = service.restart != "no";
        assert_eq!(lasting, !service.healthcheck.disable, "{name}: who lasts has a health check");
        let first = service.depends_on.is_empty();
        assert_eq!(first, ["init", "cli"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn no_secret_stands_in_the_files() {
    let looks_secret = |word: &str| {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let mixed = word.bytes().any(|byte| byte.is_ascii_digit())
            && word.bytes().any(|byte| byte.is_ascii_alphabetic());
        word.len() >= 20 && plain && mixed
    };
    for (name, service) in compose().services {
        for (key, value) in &service.environment {
            let upper = key.to_uppercase();
            let secret = ["PASSWORD", "SECRET", "TOKEN", "COOKIE", "KEY"];
            let names_one = secret.iter().any(|word| upper.contains(word));
            assert!(!names_one || upper.ends_with("_FILE"), "{name}: {key}");
            let user = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
            assert!(!user.is_some_and(|(user, _)| user.contains(':')), "{name}: {key}");
        }
    }
    for file in ["docker-compose.yml", "Dockerfile"] {
        let text = text(file);
        let secret =
            text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| looks_secret(word));
        assert_eq!(secret, None, "{file}");
    }
}

/// Whether the binary understands these arguments: `--help` comes last, and what stands before it is
/// looked at first.
fn is_understood(arguments: &[String]) -> bool {
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.push("--help");
    run(&arguments).status.success()
}

#[test]
fn commands_and_health_checks_are_understood_by_the_binary() {
    assert!(
        !is_understood(&["ingets".to_owned()]) && !is_understood(&["ingest".into(), "-x".into()])
    );
    for (name, service) in compose().services {
        if service.is_ours() {
            assert!(is_understood(&service.command), "{name}: {:?}", service.command);
        }
        if service.healthcheck.disable {
            continue;
        }
        let (check, shell) = service.check();
        match (check[0].as_str(), service.image.split(':').next().unwrap()) {
            ("haystack", "haystack") => {
                assert!(is_understood(&check[1..]), "{name}: {check:?}");
                assert!(check[2] == "--url" || check[2] == service.command[0], "{name}: {check:?}");
            }
            ("pg_isready", "timescale/timescaledb" | "postgres") => {
                assert_eq!(check.last(), service.environment.get("POSTGRES_DB"), "{name}");
            }
            ("/opt/emqx/bin/emqx", "emqx/emqx") => assert_eq!(check[1..], ["ctl", "status"]),
            // Run on a real server by `played`.
            (check, "nats") => assert!(shell && check.starts_with("nc "), "{check}"),
            (other, image) => panic!("{name}: {image} has no {other}"),
        }
    }
}

/// The settings that a container gives, as the binary reads them.
fn settings(name: &str, service: &Service) -> BTreeMap<String, String> {
    let empty = tempfile::tempdir().unwrap();
    let output = Command::new(binary())
        .args(["config", "--json"])
        .env_clear()
        .envs(&service.environment)
        .current_dir(&empty)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {error}");
    let shown: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let text = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
    shown.iter().map(|it| (text(&it["key"]), text(&it["value"]))).collect()
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<(&str, u16)> {
    let rest = url.split_once("://")?.1;
    let rest = rest.split(['/', '?']).next()?;
    let (host, port) = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest).rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

#[test]
fn settings_are_read_and_name_services_of_the_file() {
    let services = compose().services;
    let mut urls = 0;
    for (name, service) in services.iter().filter(|(_, service)| service.is_ours()) {
        let settings = settings(name, service);
        for (variable, value) in &service.environment {
            let key = variable.strip_prefix("HAYSTACK__").unwrap_or_else(|| panic!("{variable}"));
            let key = key.to_lowercase().replace("__", ".");
            assert_eq!(settings.get(&key), Some(&format!("{value:?}")), "{name}: {key}");
            if let Some(address) = authority(value) {
                assert!(PORTS.contains(&address) && services.contains_key(address.0), "{value}");
                urls += 1;
            }
        }
        let loopback: Vec<_> =
            settings.iter().filter(|(_, value)| value.contains("127.0.0.1")).collect();
        assert!(service.environment.is_empty() || loopback.is_empty(), "{name}: {loopback:?}");
    }
    assert!(urls > 0, "some settings are URLs");
}

#[test]
fn the_host_sees_listeners_on_loopback_alone() {
    for (name, service) in compose().services {
        for port in &service.ports {
            let parts: Vec<_> = port.split(':').collect();
            assert_eq!(parts[0], "127.0.0.1", "{name}: {port}");
            let inside = format!("0.0.0.0:{}", parts[2]);
            let listens = if service.is_ours() {
                let section = if name == "control-api" { "api" } else { &name };
                settings(&name, &service)[&format!("{section}.http")] == format!("{inside:?}")
            } else {
                assert_eq!(name, "emqx");
                text("deploy/emqx/emqx.conf").contains(&format!("bind = {inside:?}"))
            };
            assert!(listens, "{name} does not listen on {}", parts[2]);
        }
    }
}

#[test]
fn every_mount_is_there() {
    let compose = compose();
    let init = &compose.services["init"];
    for (name, service) in &compose.services {
        for (source, target) in service.mounts() {
            if source.starts_with(['.', '/']) {
                assert!(root().join(source).exists(), "{name}: {source}");
                continue;
            }
            assert!(compose.volumes.contains_key(source), "{name}: {source}");
            let secret = source.starts_with("secrets-") || source == "pki";
            let made = init.mounts().any(|(volume, _)| volume == source);
            assert!(made || !secret, "{name}: nobody fills {source}");
            let default =
                ["secrets", "pki"].map(|folder| format!("{}/{folder}", compose::DATA_DIR));
            assert!(
                !service.is_ours() || default.iter().any(|it| it == target),
                "{name}: {target}"
            );
        }
    }
}

#[test]
fn the_image_holds_what_exists_and_runs_as_nobody_in_particular() {
    let ignored = text(".dockerignore");
    let instructions = instructions();
    let of = |wanted: &str| -> Vec<&str> {
        let fits = instructions.iter().filter(|(word, _)| word == wanted);
        fits.map(|(_, rest)| rest.as_str()).collect()
    };
    let files = shared_files();
    assert!(files.len() > 3, "{files:?}");
    for file in &files {
        assert!(root().join(file).is_file(), "{file}");
        assert!(!ignored.lines().any(|line| file.starts_with(line)), "{file}");
    }
    assert_eq!(of("USER"), ["10001:10001"]);
    assert_eq!(of("ENTRYPOINT"), [r#"["/usr/local/bin/haystack"]"#]);
    assert_eq!(
        of("WORKDIR").last(),
        Path::new(compose::DATA_DIR).parent().unwrap().to_str().as_ref()
    );
    let check = of("HEALTHCHECK")[0].split_once("CMD ").unwrap().1;
    let check: Vec<String> = serde_json::from_str(check).unwrap();
    assert!(check[0] == "/usr/local/bin/haystack" && is_understood(&check[1..]), "{check:?}");
    // Who writes secrets knows who reads them.
    let script = text("deploy/containers/secrets.sh");
    assert!(script.contains("${OURS:-10001:10001}"));
    assert_eq!(compose::compose().services["nats"].user.as_deref(), Some("10001:10001"));
}

#[test]
fn databases_run_as_up_runs_them() {
    let shipped =
        [text("local/conf/postgresql.conf"), text("local/conf/timescaledb.conf")].concat();
    let plain = |text: &str| text.replace(['\'', ' '], "");
    let shipped: Vec<_> = shipped.lines().map(plain).collect();
    for name in ["primary", "secondary", "state"] {
        let service = &compose().services[name];
        let (first, flags) = service.command.split_first().unwrap();
        assert_eq!(first, "postgres");
        for flag in flags {
            let setting = flag.strip_prefix("-c").unwrap().to_owned();
            assert!(shipped.contains(&setting), "{name}: {setting}");
        }
    }
}

#[test]
fn the_broker_lets_the_bridge_ask_for_all_that_it_asks_for() {
    // It cuts off whoever asks for what is not allowed.
    let acl = text("deploy/emqx/acl.conf");
    for filter in
        ["\"devices/#\"", "\"$SYS/broker/log/#\"", "\"$SYS/broker/publish/messages/dropped\""]
    {
        assert!(acl.contains(filter), "{filter}");
    }
}

/// Debian's docker-compose (1.29) reads a file without an engine. Where it is not installed this says
/// nothing.
#[test]
fn docker_compose_accepts_the_file() {
    let mut command = Command::new("docker-compose");
    command.args(["-f", "docker-compose.yml", "config", "--quiet"]).current_dir(root());
    match command.output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => eprintln!("docker-compose was not asked: {error}"),
    }
}
