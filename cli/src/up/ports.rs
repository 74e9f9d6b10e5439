//! Ports: the known ones where they are free, others where not, the same at every start.

use super::{folder::Folder, notice};
use anyhow::{Context, Result};
use local::{port, secret};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Where the ports are remembered.
const FILE: &str = "ports.json";
/// What listens, and where it does when nobody else is there.
const KNOWN: [(&str, u16); 11] = [
    ("nats", 4222),
    ("mosquitto", 1883),
    ("postgres-primary", 5432),
    ("postgres-secondary", 5433),
    ("bridge", 8001),
    ("ingest", 8002),
    ("simulator", 8003),
    ("control-api", 8000),
    (MQTTS, 8883),
    (MQTT_WS, 8083),
    (MQTT_WSS, 8084),
];
/// MQTT with certificates.
pub(crate) const MQTTS: &str = "mqtts";
/// MQTT over WebSocket.
pub(crate) const MQTT_WS: &str = "mqtt-ws";
/// MQTT over WebSocket with certificates.
pub(crate) const MQTT_WSS: &str = "mqtt-wss";

/// The port of each that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(BTreeMap<String, u16>);

impl Ports {
    /// Chooses, remembers, and says which had to give way. Nothing of ours may listen meanwhile.
    pub(crate) fn choose(folder: &Folder) -> Result<Self> {
        let file = file(folder);
        let before = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is spoiled; remove it", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", file.display()));
            }
        };
        let ports = assign(&before, port::pick)?;
        for (name, port) in &ports {
            let wanted = wanted(&before, name);
            if *port != wanted {
                notice::say(&format!("port {wanted} is taken: {name} uses {port}"));
            }
        }
        if ports != before {
            secret::write_as(&file, &serde_json::to_vec_pretty(&ports)?, 0o644)?;
        }
        Ok(Self(ports))
    }

    /// Those that `up` chose in this data folder, or would like to choose first.
    pub(crate) fn known(data_dir: &Path) -> Self {
        let text = fs::read(data_dir.join(FILE)).unwrap_or_default();
        let before = serde_json::from_slice(&text).unwrap_or_default();
        let ports = KNOWN.map(|(name, _)| (name.to_owned(), wanted(&before, name)));
        Self(ports.into())
    }

    /// The port of one of them.
    pub(crate) fn of(&self, name: &str) -> u16 {
        *self.0.get(name).expect("every known name got a port")
    }
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join(FILE)
}

fn wanted(before: &BTreeMap<String, u16>, name: &str) -> u16 {
    let known = || KNOWN.iter().find(|(known, _)| *known == name).map_or(0, |(_, port)| *port);
    before.get(name).copied().unwrap_or_else(known)
}

/// Each the port it had, else its known one, else what `pick` gives instead.
fn assign(
    before: &BTreeMap<String, u16>,
    pick: impl Fn(u16, &[u16]) -> Result<u16>,
) -> Result<BTreeMap<String, u16>> {
    let mut ports = BTreeMap::new();
    let mut taken = Vec::new();
    for (name, _) in KNOWN {
        let port = pick(wanted(before, name), &taken)?;
        taken.push(port);
        ports.insert(name.to_owned(), port);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_gives_way_once_and_is_remembered() {
        let busy = |preferred: u16, taken: &[u16]| {
            let free = preferred != 1883 && !taken.contains(&preferred);
            Ok(if free { preferred } else { 20_000 + taken.len() as u16 })
        };
        let first = assign(&BTreeMap::new(), busy).unwrap();
        assert_eq!(first["nats"], 4222);
        assert_eq!(first["mosquitto"], 20_001);
        let again = assign(&first, busy).unwrap();
        assert_eq!(again, first);
    }
}
