//! What was issued, and what of it still counts.

use super::{BACKDATE_MICROS, DAY_MICROS, MAX_DAYS};
use crate::secret;
use anyhow::{Context, Result};
use domain::{Timestamp, time::rfc3339};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Whose certificate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A device: the name is its id.
    Device,
    /// A service of the platform, as a client of the broker.
    Service,
    /// The broker.
    Server,
}

/// Whether a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It counts.
    Valid,
    /// It counts, and two thirds of its time are over: time for the next one.
    RenewalDue,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Its number: 32 hexadecimal digits.
    pub serial: String,
    /// Its common name.
    pub name: String,
    /// Whose it is.
    pub role: Role,
    /// When it begins to count.
    #[serde(with = "rfc3339")]
    pub from: Timestamp,
    /// When it ends.
    #[serde(with = "rfc3339")]
    pub until: Timestamp,
    /// When it was taken back.
    #[serde(with = "rfc3339::option", default)]
    pub revoked: Option<Timestamp>,
    /// Hosts that a server's certificate names, besides this machine.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<String>,
}

impl Issued {
    pub(super) fn new(name: &str, role: Role, now: Timestamp, days: u32) -> Result<Self> {
        anyhow::ensure!(
            (1..=MAX_DAYS).contains(&days),
            "a certificate lasts 1 to {MAX_DAYS} days, not {days}"
        );
        // To the second, as certificates have it.
        let now = now.plus_micros(-now.micros().rem_euclid(1_000_000));
        Ok(Self {
            serial: serial()?,
            name: name.to_owned(),
            role,
            from: now.plus_micros(-BACKDATE_MICROS),
            until: now.plus_micros(i64::from(days) * DAY_MICROS),
            revoked: None,
            hosts: BTreeSet::new(),
        })
    }

    /// Whether it counts now.
    pub fn state(&self, now: Timestamp) -> State {
        let life = self.until.micros() - self.from.micros();
        match () {
            () if self.revoked.is_some() => State::Revoked,
            () if now >= self.until => State::Expired,
            () if now.micros() - self.from.micros() > life / 3 * 2 => State::RenewalDue,
            () => State::Valid,
        }
    }

    /// Whether a broker lets its owner in.
    pub fn counts(&self, now: Timestamp) -> bool {
        matches!(self.state(now), State::Valid | State::RenewalDue)
    }
}

/// 127 random bits: a positive number in DER.
fn serial() -> Result<String> {
    let (high, low) = (getrandom::u64(), getrandom::u64());
    let high = high.context("the system gives no random numbers")? >> 1;
    let low = low.context("the system gives no random numbers")?;
    Ok(format!("{high:016x}{low:016x}"))
}

/// All certificates of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Register {
    /// The authority's own name: two authorities never share one.
    pub(super) name: String,
    /// The serial of the authority's own certificate.
    pub(super) serial: String,
    #[serde(with = "rfc3339")]
    pub(super) from: Timestamp,
    #[serde(with = "rfc3339")]
    pub(super) until: Timestamp,
    /// Hosts under which devices reach the broker, besides this machine.
    pub(super) hosts: BTreeSet<String>,
    /// Where brokers fetch the CRL; it stands in each certificate and in the CRL itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crl_url: Option<String>,
    /// The number of the newest CRL; the one on disk may be older where a crash came between.
    pub(super) crl_number: u64,
    #[serde(with = "rfc3339")]
    pub(super) crl_until: Timestamp,
    pub(super) issued: Vec<Issued>,
}

impl Register {
    pub(super) fn new(now: Timestamp) -> Result<Self> {
        let own = Issued::new("", Role::Server, now, MAX_DAYS)?;
        Ok(Self {
            name: format!("Haystack Platform authority {}", &own.serial[..8]),
            serial: own.serial,
            from: own.from,
            until: own.until,
            hosts: BTreeSet::new(),
            crl_url: None,
            crl_number: 0,
            crl_until: now,
            issued: Vec::new(),
        })
    }

    /// `None`: there is none yet.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join("register.json");
        match fs::read(&file) {
            Ok(text) => {
                let read = serde_json::from_slice(&text);
                let spoiled = || format!("{} is spoiled; restore it from a copy", file.display());
                read.map(Some).with_context(spoiled)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).context("the register can't be written")?;
        secret::write(&folder.join("register.json"), &text)
    }

    /// The one of that name that counts and lasts longest.
    pub(super) fn newest_valid(&self, name: &str, now: Timestamp) -> Option<&Issued> {
        let of_name = self.issued.iter().filter(|issued| issued.name == name);
        of_name.filter(|issued| issued.counts(now)).max_by_key(|issued| issued.until)
    }
}

/// One change at a time; given back when dropped.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.with_context(|| {
        format!("can't open {}; `haystack pki init` makes an authority", path.display())
    })?;
    file.lock().with_context(|| format!("can't lock {}", path.display()))?;
    Ok(file)
}
