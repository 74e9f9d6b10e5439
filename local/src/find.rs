//! Finds the servers' programs on this machine, and refuses those that are too old.

use anyhow::{Context, Result};
use nix::unistd::Uid;
use std::{
    ffi::OsStr,
    fmt, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Oldest nats-server: the first whose `sync_interval: always` and consumer API we rely on.
pub const NATS: Version = Version(2, 12, 0);
/// Oldest Mosquitto.
pub const MOSQUITTO: Version = Version(2, 0, 0);
/// Oldest PostgreSQL.
pub const POSTGRES: Version = Version(14, 0, 0);

/// Where Debian and Ubuntu keep servers; not on everybody's `PATH`.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Where `make setup` puts what the distribution's packages are too old for, in the repository.
const TOOLS: &str = ".tools/bin";
/// Where Debian and Ubuntu keep the versions of PostgreSQL, side by side.
const POSTGRES_VERSIONS: &str = "/usr/lib/postgresql";

/// A program's version: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// The first number in a program's answer to "what are you?", as in `nats-server: v2.15.1`,
    /// `mosquitto version 2.0.11`, `postgres (PostgreSQL) 16beta1`.
    pub fn parse(text: &str) -> Option<Self> {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let number = text[start..].split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = number.split('.').map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        Some(Self(next(), next(), next()))
    }
}

/// A program that was found.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Where it is.
    pub path: PathBuf,
    /// What it says it is.
    pub version: Version,
}

/// nats-server, 2.12 or newer: on `PATH`, else in `.tools/bin` of the repository.
pub fn nats_server() -> Result<Tool> {
    newest_enough("nats-server", "-v", NATS)
}

/// Mosquitto, 2.0 or newer.
pub fn mosquitto() -> Result<Tool> {
    newest_enough("mosquitto", "-h", MOSQUITTO)
}

/// The program that hashes Mosquitto's password file.
pub fn mosquitto_passwd() -> Result<PathBuf> {
    candidates("mosquitto_passwd").into_iter().next().context(
        "mosquitto_passwd is not installed; run `make setup`, or install the package mosquitto",
    )
}

fn newest_enough(name: &str, ask: &str, least: Version) -> Result<Tool> {
    let mut too_old = Vec::new();
    for path in candidates(name) {
        match version(&path, ask) {
            Some(version) if version >= least => return Ok(Tool { path, version }),
            Some(version) => too_old.push(format!("{} is {version}", path.display())),
            None => too_old.push(format!("{} does not tell its version", path.display())),
        }
    }
    let found = if too_old.is_empty() { "none was found".to_owned() } else { too_old.join(", ") };
    anyhow::bail!("{name} {least} or newer is needed, {found}; run `make setup` to install it")
}

/// What the program says it is.
fn version(path: &Path, ask: &str) -> Option<Version> {
    let output = Command::new(path).arg(ask).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Version::parse(&String::from_utf8_lossy(&text))
}

/// Every place where a program of this name is, in the order of preference.
fn candidates(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let folders = on_path.chain(SYSTEM.iter().map(PathBuf::from));
    let mut found: Vec<_> = folders.map(|f| f.join(name)).filter(|p| is_program(p)).collect();
    found.extend(tools().map(|folder| folder.join(name)).filter(|path| is_trusted(path)));
    found
}

/// `.tools/bin` of every folder above this program, and of the one we stand in: a binary in
/// `target/release` or `target/debug/deps` belongs to the repository above it.
fn tools() -> impl Iterator<Item = PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    let here = std::env::current_dir().unwrap_or_default();
    let above: Vec<_> = program.ancestors().skip(1).map(|folder| folder.join(TOOLS)).collect();
    above.into_iter().chain([here.join(TOOLS)])
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// A program found by walking up must be ours or root's: others can't put theirs in the way.
fn is_trusted(path: &Path) -> bool {
    let owner = |file: fs::Metadata| file.uid() == 0 || file.uid() == Uid::effective().as_raw();
    is_program(path) && path.metadata().is_ok_and(owner)
}

/// One installed version of PostgreSQL.
#[derive(Debug, Clone)]
pub struct PostgresTools {
    /// The folder with `initdb` and `postgres`.
    pub bin: PathBuf,
    /// What `postgres` says it is.
    pub version: Version,
    /// Whether TimescaleDB's library is installed for it.
    pub timescaledb: bool,
}

/// PostgreSQL, 14 or newer: the newest, or the one of a given major version, which is what an
/// existing cluster needs.
pub fn postgres(major: Option<u32>) -> Result<PostgresTools> {
    let mut all: Vec<PostgresTools> = postgres_folders()
        .into_iter()
        .filter(|bin| is_program(&bin.join("initdb")))
        .filter_map(|bin| Some((version(&bin.join("postgres"), "--version")?, bin)))
        .map(|(version, bin)| PostgresTools { timescaledb: has_timescaledb(&bin), bin, version })
        .collect();
    all.sort_by_key(|tools| tools.version);
    let fits = |tools: &&PostgresTools| major.is_none_or(|major| tools.version.0 == major);
    if let Some(tools) = all.iter().rev().filter(|tools| tools.version >= POSTGRES).find(fits) {
        return Ok(tools.clone());
    }
    let found: Vec<_> = all.iter().map(|tools| tools.version.0.to_string()).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    match major {
        Some(major) => anyhow::bail!(
            "the data was written by PostgreSQL {major}, which is not installed any more (found: \
             {found}); install postgresql-{major}, or move the data with pg_upgrade"
        ),
        None => anyhow::bail!(
            "PostgreSQL {} or newer is needed (found: {found}); run `make setup` to install it",
            POSTGRES.0
        ),
    }
}

/// Of two of the same version the later one is taken: the distribution's own place.
fn postgres_folders() -> Vec<PathBuf> {
    let on_path = candidates("postgres").into_iter();
    let mut folders: Vec<_> =
        on_path.filter_map(|path| path.parent().map(Path::to_path_buf)).collect();
    for pg_config in candidates("pg_config") {
        folders.extend(ask(&pg_config, "--bindir"));
    }
    let versions = fs::read_dir(POSTGRES_VERSIONS).into_iter().flatten().flatten();
    folders.extend(versions.map(|entry| entry.path().join("bin")));
    folders
}

fn has_timescaledb(bin: &Path) -> bool {
    let libraries = ask(&bin.join("pg_config"), "--pkglibdir")
        .or_else(|| bin.parent().map(|parent| parent.join("lib")));
    libraries.is_some_and(|folder| folder.join("timescaledb.so").exists())
}

fn ask(program: &Path, question: impl AsRef<OsStr>) -> Option<PathBuf> {
    let output = Command::new(program).arg(question).stdin(Stdio::null()).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(answer.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        for (text, version) in [
            ("nats-server: v2.15.1\n", Some(Version(2, 15, 1))),
            ("mosquitto version 2.0.11\n\nmosquitto is an MQTT", Some(Version(2, 0, 11))),
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some(Version(15, 18, 0))),
            ("postgres (PostgreSQL) 19beta1", Some(Version(19, 0, 0))),
            ("what?", None),
        ] {
            assert_eq!(Version::parse(text), version, "{text}");
        }
        assert!(Version(2, 9, 30) < NATS && Version(2, 12, 0) >= NATS);
    }

    #[test]
    fn what_is_missing_or_too_old_is_named_with_the_way_out() {
        let error = newest_enough("no-such-server", "-v", Version(1, 0, 0)).unwrap_err();
        assert!(error.to_string().contains("make setup"), "{error}");
        let error = newest_enough("mosquitto", "-h", Version(99, 0, 0)).unwrap_err().to_string();
        assert!(error.contains("mosquitto 99.0.0") && error.contains(" is 2."), "{error}");
    }

    #[test]
    fn a_cluster_finds_its_own_version() {
        let newest = postgres(None).unwrap();
        assert_eq!(postgres(Some(newest.version.0)).unwrap().version.0, newest.version.0);
        assert!(postgres(Some(3)).unwrap_err().to_string().contains("postgresql-3"));
    }
}
