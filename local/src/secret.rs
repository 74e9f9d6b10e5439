//! Secrets: generated once, kept in files of mode 0600 in folders of mode 0700.

use anyhow::{Context, Result};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Length of a generated password: 40 letters and digits are 238 bits.
const LENGTH: usize = 40;
const LETTERS: &[u8; 52] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CHARACTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A new password: letters and digits, the first a letter, so that it needs no quoting in any
/// configuration file, URL or SQL.
pub fn password() -> Result<String> {
    let mut password = String::with_capacity(LENGTH);
    password.push(one_of(LETTERS)?);
    while password.len() < LENGTH {
        password.push(one_of(CHARACTERS)?);
    }
    Ok(password)
}

fn one_of(set: &[u8]) -> Result<char> {
    loop {
        // Six bits name one of 64; those past the end are thrown again, so that all are as likely.
        let random = getrandom::u32().context("the system gives no random numbers")? & 63;
        if let Some(&byte) = set.get(random as usize) {
            return Ok(char::from(byte));
        }
    }
}

/// The secret in `folder/name`, made at the first call. The folder is made too.
pub fn ensure(folder: &Path, name: &str) -> Result<String> {
    private_folder(folder)?;
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(secret) => {
            fs::set_permissions(&path, Permissions::from_mode(0o600))
                .with_context(|| format!("can't make {} private", path.display()))?;
            let secret = secret.trim().to_owned();
            anyhow::ensure!(
                !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                "{} does not hold a password of letters and digits; put the right one back, or \
                 remove the file to have a new one made",
                path.display()
            );
            Ok(secret)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secret = password()?;
            write(&path, secret.as_bytes())?;
            Ok(secret)
        }
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

/// Writes a file of mode 0600 whole or not at all, and onto the disk.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    write_as(path, content, 0o600)
}

/// Writes a file whole or not at all, and onto the disk, with the given mode.
pub fn write_as(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    replace(path, content, mode).with_context(|| format!("can't write {}", path.display()))
}

fn replace(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = beside(path);
    // What a killed run left is ours to remove; `create_new` then follows no link.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    // The mode asked for at `open` is cut by the umask.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Makes a folder, and those above it, that only we can enter.
pub fn private_folder(path: &Path) -> Result<()> {
    folder(path, 0o700)
}

/// Makes a folder, and those above it, with the given mode.
pub fn folder(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("can't make the folder {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_plain_and_different() {
        let (one, two) = (password().unwrap(), password().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), LENGTH);
        assert!(one.starts_with(|c: char| c.is_ascii_alphabetic()));
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_secret_is_made_once_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        let secret = ensure(&secrets, "nats-admin").unwrap();
        assert_eq!(ensure(&secrets, "nats-admin").unwrap(), secret);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&secrets), 0o700);
        assert_eq!(mode(&secrets.join("nats-admin")), 0o600);
    }

    #[test]
    fn a_spoiled_secret_is_refused_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("nats-admin"), "hunter2'; drop").unwrap();
        let error = ensure(folder.path(), "nats-admin").unwrap_err().to_string();
        assert!(error.contains("nats-admin") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn writing_replaces_and_a_leftover_does_not_hinder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(folder.path().join("file.new"), "left by a killed run").unwrap();
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
