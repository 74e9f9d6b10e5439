//! Certificates: an authority of our own in a folder, for one machine and for trying things out.
//!
//! ```text
//! register.json                 every certificate ever issued, and the number of the last CRL
//! ca.pem, ca.key                the authority itself
//! crl.pem                       what is revoked; for ever new enough, while somebody renews it
//! server/{cert,key}.pem         the broker's
//! devices/NAME/{cert,key}.pem   the newest of a device; `previous-…` is the one before
//! services/NAME/…               the same of a service
//! ```
//!
//! A certificate is in the register before it exists, so there is none that can't be revoked.

mod register;
mod sign;

use crate::secret;
use anyhow::{Context, Result};
use domain::{DeviceId, Timestamp};
use register::Register;
use sign::Signer;
use std::{
    fs,
    path::{Path, PathBuf},
};

pub use register::{Issued, Role, State};

/// Days that a device's certificate lasts unless told otherwise.
pub const DEVICE_DAYS: u32 = 365;
/// Most days of a device's certificate: those of the authority itself.
pub const MAX_DAYS: u32 = 3_650;
/// Days that the broker's certificate lasts. Clients commonly refuse more than 398.
const SERVER_DAYS: u32 = 397;
/// Days after which nobody believes a CRL any more: an old one refuses everybody.
const CRL_DAYS: u32 = 30;
/// A CRL with less of its time left is written anew.
const CRL_RENEW_DAYS: u32 = 20;
/// Clocks differ: what begins, began a little earlier.
const BACKDATE_MICROS: i64 = 5 * 60 * 1_000_000;
/// The name of the broker's certificate in the register. No device can be called so.
const SERVER: &str = "broker.server";

const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// An authority in a folder.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
}

/// What a call of [`Authority::refresh`] renewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// The broker's certificate.
    pub server: bool,
    /// The list of what is revoked.
    pub crl: bool,
}

impl Authority {
    /// Opens the authority, and makes what is missing of it: keys, the broker's certificate for
    /// this machine and the named `hosts`, and the CRL. Nothing that is there is changed, but a
    /// broker's certificate that lacks one of the hosts.
    pub fn init(folder: &Path, hosts: &[String], now: Timestamp) -> Result<Self> {
        secret::private_folder(folder)?;
        let authority = Self { folder: folder.to_owned() };
        let _lock = register::lock(folder)?;
        let mut register = match Register::read(folder)? {
            Some(register) => register,
            None => authority.begin(now)?,
        };
        for host in hosts {
            sign::check_host(host)?;
            register.hosts.insert(host.clone());
        }
        register.write(folder)?;
        authority.renew_own(&mut register, now)?;
        Ok(authority)
    }

    /// Opens the authority; an error where there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let authority = Self { folder: folder.to_owned() };
        authority.register()?;
        Ok(authority)
    }

    /// Says where brokers fetch the list of the revoked: it stands in every certificate from here
    /// on, and in the list itself. Brokers that take the list from a file need none.
    pub fn publish_crl_at(&self, url: &str, now: Timestamp) -> Result<()> {
        let plain = |c: char| c.is_ascii_graphic();
        anyhow::ensure!(
            url.starts_with("http://") && url.len() < 256 && url.chars().all(plain),
            "{url:?}: an address that begins with http:// is expected"
        );
        let _lock = register::lock(&self.folder)?;
        let mut register = self.register()?;
        if register.crl_url.as_deref() == Some(url) {
            return Ok(());
        }
        register.crl_url = Some(url.to_owned());
        register.crl_number += 1;
        register.write(&self.folder)?;
        self.write_crl(&mut register, now)
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The authority's certificate, by which everybody is judged.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The list of what is revoked.
    pub fn crl(&self) -> PathBuf {
        self.folder.join("crl.pem")
    }

    /// The broker's certificate and key.
    pub fn server(&self) -> (PathBuf, PathBuf) {
        pair(&self.folder.join("server"))
    }

    /// A device's certificate and key.
    pub fn device(&self, device: &DeviceId) -> (PathBuf, PathBuf) {
        pair(&self.device_folder(device.as_str()))
    }

    /// All that was ever issued, oldest first.
    pub fn list(&self) -> Result<Vec<Issued>> {
        Ok(self.register()?.issued)
    }

    /// Makes the first certificate of a device.
    pub fn issue(&self, device: &DeviceId, days: u32, now: Timestamp) -> Result<Issued> {
        let _lock = register::lock(&self.folder)?;
        let mut register = self.register()?;
        if let Some(valid) = register.newest_valid(device.as_str(), now) {
            anyhow::bail!(
                "{device} has a certificate that is valid until {}; `haystack pki renew {device}` \
                 makes the next one",
                valid.until
            );
        }
        self.issue_device(&mut register, device.as_str(), days, now)
    }

    /// Makes the next certificate of a device. The one before stays valid until it expires, so that
    /// the device has time to change over.
    pub fn renew(&self, device: &DeviceId, days: u32, now: Timestamp) -> Result<Issued> {
        let _lock = register::lock(&self.folder)?;
        let mut register = self.register()?;
        anyhow::ensure!(
            register.issued.iter().any(|issued| issued.name == device.as_str()),
            "{device} never had a certificate; `haystack pki issue device {device}` makes the first"
        );
        anyhow::ensure!(
            register.newest_valid(device.as_str(), now).is_some(),
            "{device} has no certificate that counts (revoked or expired); `haystack pki issue device \
             {device}` makes one"
        );
        self.issue_device(&mut register, device.as_str(), days, now)
    }

    /// Revokes the valid certificates of that name, or the one of that serial. Gives those that
    /// were revoked by this call.
    pub fn revoke(&self, name: &str, serial: Option<&str>, now: Timestamp) -> Result<Vec<Issued>> {
        anyhow::ensure!(
            name != SERVER,
            "{SERVER} is the broker's own: `haystack pki refresh` makes the next when it is due"
        );
        let _lock = register::lock(&self.folder)?;
        let mut register = self.register()?;
        let mut revoked = Vec::new();
        let mut known = false;
        for issued in register.issued.iter_mut().filter(|issued| issued.name == name) {
            if serial.is_some_and(|serial| serial != issued.serial) {
                continue;
            }
            known = true;
            if issued.revoked.is_none() {
                issued.revoked = Some(now);
                revoked.push(issued.clone());
            }
        }
        anyhow::ensure!(known, "no such certificate was issued; `haystack pki list` shows all");
        if !revoked.is_empty() {
            register.crl_number += 1;
            register.write(&self.folder)?;
        }
        self.write_crl(&mut register, now)?;
        Ok(revoked)
    }

    /// Renews what is the platform's own and due: the broker's certificate and the CRL.
    pub fn refresh(&self, now: Timestamp) -> Result<Refreshed> {
        let _lock = register::lock(&self.folder)?;
        let mut register = self.register()?;
        self.renew_own(&mut register, now)
    }

    /// Makes a certificate of a service of the platform, with which it signs in at the broker.
    pub fn issue_service(&self, name: &str, days: u32, now: Timestamp) -> Result<Issued> {
        // No device can be called so, so no device can be taken for it.
        anyhow::ensure!(DeviceId::parse(name).is_err(), "{name} could be a device");
        let _lock = register::lock(&self.folder)?;
        let mut register = self.register()?;
        let issued = Issued::new(name, Role::Service, now, days)?;
        self.issue_into(&mut register, issued, &self.folder.join("services").join(name))
    }

    /// A service's certificate and key.
    pub fn service(&self, name: &str) -> (PathBuf, PathBuf) {
        pair(&self.folder.join("services").join(name))
    }

    fn renew_own(&self, register: &mut Register, now: Timestamp) -> Result<Refreshed> {
        let mut refreshed = Refreshed::default();
        let (cert, key) = self.server();
        let newest = register.newest_valid(SERVER, now);
        let fits = newest.is_some_and(|newest| {
            newest.hosts == register.hosts && newest.state(now) == State::Valid
        });
        if !fits || !cert.is_file() || !key.is_file() {
            let hosts = register.hosts.clone();
            let mut issued = Issued::new(SERVER, Role::Server, now, SERVER_DAYS)?;
            issued.hosts = hosts;
            self.issue_into(register, issued, &self.folder.join("server"))?;
            refreshed.server = true;
        }
        let number = fs::read_to_string(self.crl()).ok().and_then(|text| sign::crl_number(&text));
        let soon = now.plus_micros(i64::from(CRL_RENEW_DAYS) * DAY_MICROS);
        if number != Some(register.crl_number) || register.crl_until < soon {
            register.crl_number += 1;
            register.write(&self.folder)?;
            self.write_crl(register, now)?;
            refreshed.crl = true;
        }
        Ok(refreshed)
    }

    fn begin(&self, now: Timestamp) -> Result<Register> {
        let register = Register::new(now)?;
        let (key, cert) = sign::authority(&register)?;
        // The register comes last: without it all of this is made again.
        secret::write(&self.folder.join("ca.key"), key.as_bytes())?;
        secret::write_as(&self.ca(), cert.as_bytes(), 0o644)?;
        register.write(&self.folder)?;
        Ok(register)
    }

    fn issue_device(
        &self,
        register: &mut Register,
        name: &str,
        days: u32,
        now: Timestamp,
    ) -> Result<Issued> {
        let issued = Issued::new(name, Role::Device, now, days)?;
        self.issue_into(register, issued, &self.device_folder(name))
    }

    fn issue_into(&self, register: &mut Register, issued: Issued, to: &Path) -> Result<Issued> {
        let mut issued = issued;
        // Nothing outlives the authority.
        issued.until = issued.until.min(register.until);
        register.issued.push(issued.clone());
        register.write(&self.folder)?;
        let (key, cert) = self.signer(register)?.certificate(&issued)?;
        secret::private_folder(to)?;
        let (cert_file, key_file) = pair(to);
        for file in [&cert_file, &key_file] {
            if let (true, Some(name)) = (file.is_file(), file.file_name().and_then(|n| n.to_str()))
            {
                fs::rename(file, to.join(format!("previous-{name}")))
                    .with_context(|| format!("can't set {} aside", file.display()))?;
            }
        }
        secret::write(&key_file, key.as_bytes())?;
        secret::write_as(&cert_file, cert.as_bytes(), 0o644)?;
        Ok(issued)
    }

    fn write_crl(&self, register: &mut Register, now: Timestamp) -> Result<()> {
        register.crl_until = now.plus_micros(i64::from(CRL_DAYS) * DAY_MICROS);
        let text = self.signer(register)?.crl(register, now)?;
        secret::write_as(&self.crl(), text.as_bytes(), 0o644)?;
        register.write(&self.folder)
    }

    fn register(&self) -> Result<Register> {
        Register::read(&self.folder)?.with_context(|| {
            let folder = self.folder.display();
            format!("there is no authority in {folder}; `haystack pki init` makes one")
        })
    }

    fn signer(&self, register: &Register) -> Result<Signer> {
        let file = self.folder.join("ca.key");
        let key = fs::read_to_string(&file)
            .with_context(|| format!("can't read the authority's key {}", file.display()))?;
        Signer::new(register, &key)
    }

    fn device_folder(&self, name: &str) -> PathBuf {
        self.folder.join("devices").join(name)
    }
}

fn pair(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("cert.pem"), folder.join("key.pem"))
}

#[cfg(test)]
mod tests;
