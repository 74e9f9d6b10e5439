//! Ports: the known ones where they are free, others where not, the same at every start.

use super::{folder::Folder, notice};
use anyhow::{Context, Result};
use local::{port, secret};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// What listens, and where it does when nobody else is there.
const KNOWN: [(&str, u16); 7] = [
    ("nats", 4222),
    ("mosquitto", 1883),
    ("postgres-primary", 5432),
    ("postgres-secondary", 5433),
    ("bridge", 8001),
    ("ingest", 8002),
    ("simulator", 8003),
];

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

    /// The port of one of them.
    pub(crate) fn of(&self, name: &str) -> u16 {
        *self.0.get(name).expect("every known name got a port")
    }
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("ports.json")
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
