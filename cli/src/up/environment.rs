//! `haystack env`: where things are, for scripts. No passwords: `PGPASSFILE` names their file.

use super::{
    EnvArgs,
    folder::Folder,
    ports::{self, Ports},
    stack::shell,
};
use crate::{Globals, migrate::ADMIN_KEY};
use domain::TargetName;
use service::{Config, config};
use std::process::ExitCode;

pub(crate) async fn env(_: EnvArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let path = globals.data_dir.join("haystack.toml");
    anyhow::ensure!(
        path.is_file(),
        "`haystack up` has not run on {} yet",
        globals.data_dir.display()
    );
    let folder = Folder::open(&globals.data_dir)?;
    let config = config::load(Some(&folder.config()), folder.path(), &globals.set)?.config;
    let devices = Ports::known(&globals.data_dir);
    let doors = [("HAYSTACK_MQTTS_URL", "mqtts", ports::MQTTS)];
    let doors = doors
        .map(|(key, scheme, name)| (key, format!("{scheme}://localhost:{}", devices.of(name))));
    for (key, value) in variables(&config).into_iter().chain(doors) {
        println!("{key}={}", shell(&value));
    }
    Ok(ExitCode::SUCCESS)
}

fn variables(config: &Config) -> Vec<(&'static str, String)> {
    let target = |name: &str| {
        let name = TargetName::parse(name).ok()?;
        config.targets.get(&name).map(|target| target.owner_url().to_owned())
    };
    let scheme = if config.api.tls_cert.is_some() { "https" } else { "http" };
    let key = config.secrets.dir.join(ADMIN_KEY);
    let all = [
        ("HAYSTACK_NATS_URL", Some(config.nats.url.clone())),
        ("HAYSTACK_MQTT_URL", Some(config.mqtt.url.clone())),
        ("HAYSTACK_PRIMARY_URL", target("primary")),
        ("HAYSTACK_SECONDARY_URL", target("secondary")),
        ("HAYSTACK_STATE_URL", config.state.owner_url().map(str::to_owned)),
        ("HAYSTACK_API_URL", Some(format!("{scheme}://{}", config.api.http))),
        ("HAYSTACK_API_KEY_FILE", Some(key.display().to_string())),
        ("PGPASSFILE", Some(config.pgpass().display().to_string())),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}
