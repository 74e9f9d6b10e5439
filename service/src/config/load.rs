//! Reading the configuration from its layers, and saying where a mistake is.

use super::Config;
use figment::{
    Figment,
    error::Kind,
    providers::{Env, Format, Serialized, Toml},
    value::{Dict, Map, Value},
};
use std::path::{Path, PathBuf};

/// Prefix of environment variables; `__` stands between section and key.
const PREFIX: &str = "HAYSTACK__";
/// Plain log levels.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The file read where none is named.
const FILE: &str = "haystack.toml";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// A key is unknown or a value bad.
    #[error("{0}")]
    Invalid(String),
    /// The named file is not there.
    #[error("there is no configuration file {0}")]
    NoFile(PathBuf),
}

/// The configuration, and where each value came from.
#[derive(Debug)]
pub struct Loaded {
    /// The merged configuration.
    pub config: Config,
    pub(super) figment: Figment,
}

/// Reads the configuration. `file` names one that must exist; without it `haystack.toml` in the
/// working directory counts where it exists, else the one that `up` wrote into `data_dir`.
pub fn load(
    file: Option<&Path>,
    data_dir: &Path,
    flags: &[(String, String)],
) -> Result<Loaded, ConfigFault> {
    let mut defaults = Config::default();
    defaults.secrets.dir = data_dir.join("secrets");
    let mut figment = Figment::from(Serialized::defaults(defaults.clone()));
    if let Some(path) = choose(file, data_dir)? {
        figment = only_the_files_targets(figment, defaults, &path).merge(Toml::file_exact(&path));
    }
    figment = cognito(aliases(figment));
    figment = figment.merge(Env::prefixed(PREFIX).split("__"));
    for (key, value) in flags {
        figment = figment.merge(Flag { key, value });
    }
    misspelt(Env::raw().iter().map(|(name, _)| name.into_string()))?;
    let config: Config = figment.extract().map_err(|error| ConfigFault::Invalid(say(error)))?;
    check(&config)?;
    Ok(Loaded { config, figment })
}

/// A variable that is meant as a setting and isn't one would be ignored in silence.
fn misspelt(names: impl Iterator<Item = String>) -> Result<(), ConfigFault> {
    for name in names {
        let upper = name.to_ascii_uppercase();
        let Some(rest) = upper.strip_prefix("HAYSTACK_") else { continue };
        if !rest.starts_with('_') && rest.contains("__") {
            return Err(ConfigFault::Invalid(format!(
                "environment variable {upper}: two underscores are expected behind HAYSTACK: \
                 {PREFIX}{rest}"
            )));
        }
    }
    Ok(())
}

/// All mistakes, each with its key, what is wrong, and where the value came from.
fn say(error: figment::Error) -> String {
    let lines = error.into_iter().map(|error| {
        let place = match &error.metadata {
            Some(metadata) => match &metadata.source {
                Some(source) => format!(" ({source})"),
                None => format!(" ({})", metadata.name.replace('`', "")),
            },
            None => String::new(),
        };
        let what = match &error.kind {
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                format!("{} is expected, found {found}", in_words(expected))
            }
            Kind::UnknownField(name, known) => {
                format!("there is no setting {name:?}; there are {}", known.join(", "))
            }
            kind => kind.to_string(),
        };
        let key = error.path.join(".");
        let colon = if key.is_empty() { "" } else { ": " };
        format!("{key}{colon}{what}{place}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What a type of ours is called outside of a program.
fn in_words(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u32" | "u16" => "a whole number",
        "a boolean" => "true or false",
        other => other,
    }
}

fn choose(file: Option<&Path>, data_dir: &Path) -> Result<Option<PathBuf>, ConfigFault> {
    if let Some(file) = file {
        let exists = file.is_file();
        return if exists { Ok(Some(file.into())) } else { Err(ConfigFault::NoFile(file.into())) };
    }
    let candidates = [PathBuf::from(FILE), data_dir.join(FILE)];
    Ok(candidates.into_iter().find(|path| path.is_file()))
}

/// A file that names targets names all of them: the built-in two are examples, not a base.
fn only_the_files_targets(figment: Figment, defaults: Config, path: &Path) -> Figment {
    let names_targets = Figment::from(Toml::file_exact(path)).find_value("targets").is_ok();
    if !names_targets {
        return figment;
    }
    let config = Config { targets: std::collections::BTreeMap::new(), ..defaults };
    Figment::from(Serialized::defaults(config))
}

/// Names that earlier deployments set. Those of services to come are read by those services.
fn aliases(figment: Figment) -> Figment {
    let mut figment = figment;
    for (name, key) in [("DATABASE_URL", "targets.primary.url"), ("STATE_DB_URL", "state.url")] {
        figment = figment.merge(Alias { name, key });
    }
    figment
}

/// A user pool of Cognito, as earlier deployments named it.
fn cognito(figment: Figment) -> Figment {
    let (Some(pool), Some(client)) =
        (Env::var("COGNITO_USER_POOL_ID"), Env::var("COGNITO_APP_CLIENT_ID"))
    else {
        return figment;
    };
    // The pool's id begins with its region.
    let region = Env::var("AWS_REGION")
        .or_else(|| pool.split_once('_').map(|(region, _)| region.to_owned()))
        .unwrap_or_default();
    let issuer = format!("https://cognito-idp.{region}.amazonaws.com/{pool}");
    let settings = super::Issuer {
        issuer,
        audiences: vec![client.clone()],
        jwks_url: None,
        device_claim: None,
    };
    let mut figment = figment.merge(Serialized::default("auth.issuers.cognito", settings));
    if let Some(username) = Env::var("COGNITO_USERNAME") {
        let url = format!("https://cognito-idp.{region}.amazonaws.com/");
        let (username, scope) = (Some(username), String::new());
        let account = super::Account { url, client_id: client, username, scope };
        figment = figment.merge(Serialized::default("auth.account", account));
    }
    figment
}

/// One environment variable under another key.
struct Alias {
    name: &'static str,
    key: &'static str,
}

impl figment::Provider for Alias {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(format!("environment variable {}", self.name))
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        let mut data = Map::new();
        if let Some(text) = Env::var(self.name) {
            let nested = figment::util::nest(self.key, Value::from(text));
            data.insert(figment::Profile::Default, nested.into_dict().unwrap_or_default());
        }
        Ok(data)
    }
}

/// One `--set KEY=VALUE`.
struct Flag<'a> {
    key: &'a str,
    value: &'a str,
}

impl figment::Provider for Flag<'_> {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named(format!("--set {}", self.key))
    }

    fn data(&self) -> Result<Map<figment::Profile, Dict>, figment::Error> {
        // Numbers and booleans as the environment writes them; all else is a text.
        let Ok(value) = self.value.parse::<Value>();
        let nested = figment::util::nest(self.key, value);
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(figment::Profile::Default, dict)]))
    }
}

/// What the types alone do not say.
fn check(config: &Config) -> Result<(), ConfigFault> {
    let invalid = |text: String| Err(ConfigFault::Invalid(text));
    let primaries = config.targets.values().filter(|target| target.primary).count();
    if primaries != 1 {
        return invalid(format!(
            "targets: exactly one target has `primary = true`, here {primaries} have"
        ));
    }
    let urls = [("nats.url", &config.nats.url, "nats"), ("mqtt.url", &config.mqtt.url, "mqtt")];
    for (key, url, scheme) in urls {
        let secure = scheme == "mqtt" && names_a_port(url, "mqtts");
        if !secure && !names_a_port(url, scheme) {
            return invalid(format!("{key}: {scheme}://host:port is expected, found {url:?}"));
        }
    }
    for (name, target) in &config.targets {
        for (key, url) in [("url", &target.url[..]), ("owner_url", target.owner_url())] {
            if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
                return invalid(format!(
                    "targets.{name}.{key}: expected postgresql://user@host:port/database"
                ));
            }
            if has_password(url) {
                return invalid(format!(
                    "targets.{name}.{key}: a URL holds no password; write it into {}",
                    config.pgpass().display()
                ));
            }
        }
    }
    let ingest = &config.ingest;
    if !(1..=1_000_000).contains(&ingest.batch_rows) {
        return invalid("ingest.batch_rows: between 1 and 1000000 is expected".to_owned());
    }
    if !(1024..=256 << 20).contains(&ingest.batch_bytes) {
        return invalid("ingest.batch_bytes: between 1024 and 268435456 is expected".to_owned());
    }
    if config.nats.ack_wait_seconds == 0 {
        return invalid("nats.ack_wait_seconds: at least 1 is expected".to_owned());
    }
    let level = &config.log.level;
    // A word that is no level would be taken for the name of a module.
    if !level.contains(['=', ',']) && !LEVELS.contains(&level.as_str()) {
        let levels = LEVELS.join(", ");
        return invalid(format!(
            "log.level: one of {levels} is expected, or a filter such as \
             info,haystack_bridge=debug; found {level:?}"
        ));
    }
    if !(2..=3_600).contains(&config.simulator.lease_seconds) {
        return invalid("simulator.lease_seconds: between 2 and 3600 is expected".to_owned());
    }
    check_api(config)?;
    let instances = [&config.bridge.instance, &config.ingest.instance, &config.simulator.instance];
    if instances.iter().any(|name| name.is_empty()) {
        return invalid(
            "bridge.instance, ingest.instance, simulator.instance: a name is expected".to_owned(),
        );
    }
    Ok(())
}

fn check_api(config: &Config) -> Result<(), ConfigFault> {
    let invalid = |text: String| Err(ConfigFault::Invalid(text));
    let api = &config.api;
    if api.tls_cert.is_some() != api.tls_key.is_some() {
        return invalid("api.tls_cert and api.tls_key: both are expected, or none".to_owned());
    }
    let at_least_one = [
        ("connections", api.connections as usize),
        ("commit_seconds", api.commit_seconds as usize),
        ("request_seconds", api.request_seconds as usize),
        ("max_requests", api.max_requests),
        ("max_streams", api.max_streams),
        ("max_connections", api.max_connections),
        ("max_values", api.max_values),
        ("max_values_bytes", api.max_values_bytes),
        ("device_rate", api.device_rate as usize),
        ("org_rate", api.org_rate as usize),
    ];
    if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
        return invalid(format!("api.{key}: at least 1 is expected"));
    }
    if api.max_values_bytes > 8 << 20 {
        return invalid("api.max_values_bytes: at most 8388608 is expected".to_owned());
    }
    let is_unsafe = |url: &str| {
        let local = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        !url.starts_with("https://") && !local.iter().any(|start| url.starts_with(start))
    };
    if let Some(account) = config.auth.account.as_ref().filter(|it| is_unsafe(&it.url)) {
        return invalid(format!("auth.account.url: https:// is expected, found {:?}", account.url));
    }
    for (name, issuer) in &config.auth.issuers {
        let urls = [Some(&issuer.issuer), issuer.jwks_url.as_ref()];
        if let Some(url) = urls.iter().flatten().find(|url| is_unsafe(url)) {
            return invalid(format!(
                "auth.issuers.{name}: https:// is expected, found {url:?} (http only on this machine)"
            ));
        }
        if issuer.audiences.is_empty() {
            return invalid(format!(
                "auth.issuers.{name}.audiences: name those for whom its tokens are made; all others' \
                 would be let in too"
            ));
        }
    }
    Ok(())
}

fn names_a_port(url: &str, scheme: &str) -> bool {
    let address = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
    let port = address.and_then(|address| address.rsplit_once(':')).map(|(_, port)| port);
    port.is_some_and(|port| port.trim_end_matches('/').parse::<u16>().is_ok())
}

fn has_password(url: &str) -> bool {
    let authority = url.split("://").nth(1).unwrap_or("").split('/').next().unwrap_or("");
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

#[cfg(test)]
#[expect(clippy::result_large_err, reason = "figment's test harness wants its error type")]
mod tests {
    use super::*;
    use figment::Jail;

    fn load_here() -> Result<Config, ConfigFault> {
        load(None, Path::new("data"), &[]).map(|loaded| loaded.config)
    }

    #[test]
    fn layers_override_each_other_in_order() {
        Jail::expect_with(|jail| {
            jail.create_file(FILE, "[nats]\nurl='nats://file:1'\n[log]\nlevel='debug'\n")?;
            jail.set_env("HAYSTACK__NATS__URL", "nats://env:1");
            jail.set_env("HAYSTACK_NATS_URL", "nats://not-a-setting");
            let config = load_here().unwrap();
            assert_eq!(config.nats.url, "nats://env:1");
            assert_eq!(config.log.level, "debug");
            let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            let flags = [flag("nats.url", "nats://flag:1"), flag("ingest.batch_rows", "500")];
            let config = load(None, Path::new("data"), &flags).unwrap().config;
            assert_eq!((&config.nats.url[..], config.ingest.batch_rows), ("nats://flag:1", 500));
            assert_eq!(config.secrets.dir, Path::new("data/secrets"));
            let flags = [flag("ingest.batch_rows", "many")];
            let error = load(None, Path::new("data"), &flags).unwrap_err().to_string();
            assert!(error.contains("--set ingest.batch_rows"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_file_that_names_targets_names_all_of_them() {
        Jail::expect_with(|jail| {
            let file = "[targets.main]\nurl='postgresql://u@h/d'\nprimary=true\n";
            jail.create_file(FILE, file)?;
            let config = load_here().unwrap();
            assert_eq!(config.targets.len(), 1);
            assert_eq!(config.primary().0.as_str(), "main");
            Ok(())
        });
    }

    #[test]
    fn mistakes_are_named() {
        Jail::expect_with(|jail| {
            for (file, part) in [
                ("[nats]\nulr='x'\n", "ulr"),
                ("[ingest]\nbatch_rows='many'\n", "ingest.batch_rows: a whole number is expected"),
                ("[nats]\nurl='nats://here'\n", "nats.url"),
                ("[log]\nlevel='loud'\n", "log.level"),
                ("[targets.Main]\nurl='postgresql://u@h/d'\n", "target name"),
                ("[targets.a]\nurl='postgresql://u@h/d'\n", "exactly one"),
                ("[targets.a]\nurl='postgresql://u:pw@h/d'\nprimary=true\n", "no password"),
            ] {
                jail.create_file(FILE, file)?;
                let error = load_here().unwrap_err().to_string();
                assert!(error.contains(part), "{error}");
                assert!(!error.contains("pw@"), "{error}");
            }
            Ok(())
        });
    }

    #[test]
    fn a_variable_with_one_underscore_too_few_is_named() {
        Jail::expect_with(|jail| {
            jail.set_env("HAYSTACK_INGEST__BATCH_ROWS", "5");
            let error = load_here().unwrap_err().to_string();
            assert!(error.contains("HAYSTACK__INGEST__BATCH_ROWS"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn names_of_earlier_deployments_still_count() {
        Jail::expect_with(|jail| {
            jail.set_env("DATABASE_URL", "postgresql://old@host/db");
            assert_eq!(load_here().unwrap().primary().1.url, "postgresql://old@host/db");
            Ok(())
        });
    }
}
