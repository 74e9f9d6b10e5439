//! docker-compose.yml and the Dockerfile, read as far as the tests ask about them.

use serde::Deserialize;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Where a container of ours has its data folder.
pub const DATA_DIR: &str = "/var/lib/haystack/.haystack";

/// The composition.
#[derive(Debug, Deserialize)]
pub struct Compose {
    pub services: BTreeMap<String, Service>,
    pub volumes: BTreeMap<String, Option<String>>,
}

/// A container.
#[derive(Debug, Deserialize)]
pub struct Service {
    pub image: String,
    pub user: Option<String>,
    pub restart: String,
    pub entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub ports: Vec<String>,
    #[serde(default)]
    pub volumes: Vec<String>,
    pub healthcheck: Health,
    #[serde(default)]
    pub depends_on: BTreeMap<String, Dependency>,
}

/// How the engine knows that a container is well.
#[derive(Debug, Deserialize)]
pub struct Health {
    #[serde(default)]
    pub disable: bool,
    #[serde(default)]
    pub test: Vec<String>,
}

/// What must be so before a container starts.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    pub condition: String,
}

impl Service {
    /// Whether it runs our binary as it is.
    pub fn is_ours(&self) -> bool {
        self.image.starts_with("haystack:") && self.entrypoint.is_none()
    }

    /// Volumes and folders of the host: name, and where it is inside.
    pub fn mounts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.volumes.iter().map(|volume| {
            let mut parts = volume.split(':');
            let mut part = || parts.next().expect("source:target is how this file writes them");
            (part(), part())
        })
    }

    /// The health check without its first word: what is run, and whether a shell runs it.
    pub fn check(&self) -> (&[String], bool) {
        let (kind, rest) = self.healthcheck.test.split_first().expect("a health check");
        (rest, kind == "CMD-SHELL")
    }
}

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the repository.
pub fn text(path: &str) -> String {
    let file = root().join(path);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The composition as it stands in the repository.
pub fn compose() -> Compose {
    serde_saphyr::from_str(&text("docker-compose.yml")).expect("docker-compose.yml can be read")
}

/// Instructions of the Dockerfile, with what belongs to each on one line.
pub fn instructions() -> Vec<(String, String)> {
    let text = text("Dockerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let lines = lines.replace("\\\n", " ");
    let split = |line: &str| {
        let (word, rest) = line.split_once(' ')?;
        Some((word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    lines.lines().filter_map(split).collect()
}

/// Files of the repository that the image keeps in `/usr/share/haystack`.
pub fn shared_files() -> Vec<String> {
    let copies = instructions().into_iter().filter(|(word, _)| word == "COPY");
    let into = |(_, what): (String, String)| {
        let files = what.strip_suffix(" /usr/share/haystack/")?.to_owned();
        Some(files.split(' ').filter(|word| !word.starts_with("--")).map(str::to_owned).collect())
    };
    copies.filter_map(into).flat_map(|files: Vec<String>| files).collect()
}
