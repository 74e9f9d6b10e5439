//! The user as whom a server runs: ourselves, or its own user when we are root.
//!
//! PostgreSQL refuses to run as root, and a broker should not. Their own users must then be able
//! to reach their folders, which is not so below `/root`.

use crate::secret;
use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User};
use std::{
    ffi::CString,
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where folders go that would be out of a server's reach.
const SYSTEM: &str = "/var/lib/haystack";

/// As whom a server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// As whoever runs us.
    Ourselves,
    /// As another user, which needs root.
    Other {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

impl Account {
    /// Ourselves, or where we are root the first of the named users that exists. `None` where we
    /// are root and none of them does.
    pub fn choose(names: &[&str]) -> Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(Some(Self::Ourselves));
        }
        for name in names {
            let user = User::from_name(name).with_context(|| format!("can't look up {name}"))?;
            if let Some(user) = user {
                return Ok(Some(Self::Other { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
            }
        }
        Ok(None)
    }

    /// Makes the command run as this user, without our other groups.
    pub fn apply(self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            // With a user id given, std drops root's supplementary groups itself.
            command.uid(uid).gid(gid);
        }
    }

    /// Hands a file or folder (not what is in it) over to this user.
    pub fn own(self, path: &Path) -> Result<()> {
        if let Self::Other { uid, gid } = self {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid))
                .with_context(|| format!("can't hand {} to its server's user", path.display()))?;
        }
        Ok(())
    }

    /// Makes a folder of mode 0700 that belongs to this user. The one above it must exist.
    pub fn folder(self, path: &Path) -> Result<()> {
        secret::private_folder(path)?;
        self.own(path)
    }

    /// Whether this user can enter the folder.
    fn reaches(self, folder: &Path) -> bool {
        let mut command = Command::new("/usr/bin/test");
        command.arg("-x").arg(folder).current_dir("/");
        self.apply(&mut command);
        command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

/// The folder in which a server of this account keeps its things: `wanted` where its user can get
/// there, else one of the same meaning under `/var/lib/haystack`. Made if need be.
pub fn home(account: Account, wanted: &Path) -> Result<PathBuf> {
    if account == Account::Ourselves {
        secret::private_folder(wanted)?;
        return absolute(wanted);
    }
    // Others may pass through, not look.
    secret::folder(wanted, 0o711)?;
    let wanted = absolute(wanted)?;
    if account.reaches(&wanted) {
        return Ok(wanted);
    }
    secret::folder(Path::new(SYSTEM), 0o711)?;
    let elsewhere = elsewhere(&wanted);
    secret::folder(&elsewhere, 0o711)?;
    anyhow::ensure!(
        account.reaches(&elsewhere),
        "neither {} nor {} can be entered by the user of the server; choose another --data-dir",
        wanted.display(),
        elsewhere.display()
    );
    Ok(elsewhere)
}

/// The two places that [`home`] chooses from, for an existing or absolute `wanted`.
pub fn homes(wanted: &Path) -> [PathBuf; 2] {
    let wanted = wanted.canonicalize().unwrap_or_else(|_| wanted.to_path_buf());
    let elsewhere = elsewhere(&wanted);
    [wanted, elsewhere]
}

fn elsewhere(wanted: &Path) -> PathBuf {
    let name = wanted.file_name().unwrap_or_default().to_string_lossy();
    Path::new(SYSTEM).join(format!("{:016x}-{name}", hash(wanted)))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().with_context(|| format!("can't find {}", path.display()))?;
    let plain = CString::new(path.as_os_str().as_bytes()).is_ok()
        && path.to_str().is_some_and(|text| !text.contains(char::is_control));
    anyhow::ensure!(
        plain,
        "the path {} has characters that no configuration file can hold; \
        choose another --data-dir",
        path.display()
    );
    Ok(path)
}

/// FNV-1a over the path: the same folder finds the same place again in every release.
fn hash(path: &Path) -> u64 {
    path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// As whom to run a server whose data folder already exists: its owner, so that a folder made by
/// a user is not lost when root starts it, and the other way round is refused plainly.
pub fn owner(data: &Path, fallback: Account) -> Result<Account> {
    let Ok(metadata) = std::fs::metadata(data) else { return Ok(fallback) };
    let (uid, gid) = (metadata.uid(), metadata.gid());
    if uid == Uid::effective().as_raw() {
        return Ok(if uid == 0 { fallback } else { Account::Ourselves });
    }
    anyhow::ensure!(
        Uid::effective().is_root(),
        "{} belongs to another user ({}); run as that user or as root, or choose another \
         --data-dir",
        data.display(),
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or(uid.to_string(), |u| u.name)
    );
    Ok(Account::Other { uid, gid: Gid::from_raw(gid).as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_in_reach_is_used_as_it_is() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let wanted = folder.path().join("postgres-primary");
        assert_eq!(home(Account::Ourselves, &wanted).unwrap(), wanted.canonicalize().unwrap());
    }

    #[test]
    fn the_hash_of_a_folder_is_stable() {
        assert_eq!(hash(Path::new("/srv/site")), hash(Path::new("/srv/site")));
        assert_ne!(hash(Path::new("/srv/site")), hash(Path::new("/srv/site2")));
        assert_eq!(hash(Path::new("")), 0xcbf2_9ce4_8422_2325);
    }
}
