//! Secrets: read from files, never shown.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// A password. It is not shown by `{:?}`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The password itself, for the connection that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a secret can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "secret {path} can't be read ({reason}); `haystack up` makes it. From another folder, name the \
     data folder with --data-dir; for servers of your own, set secrets.dir"
)]
pub struct SecretFault {
    path: PathBuf,
    reason: io::Error,
}

/// Reads the secret of that name from the folder.
pub fn read(dir: &Path, name: &str) -> Result<Secret, SecretFault> {
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Secret(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(reason) => Err(SecretFault { path, reason }),
    }
}

/// The same, or what an environment variable of an earlier deployment holds where there is no file.
pub fn read_or(dir: &Path, name: &str, variable: &str) -> Result<Secret, SecretFault> {
    let from_file = read(dir, name);
    match figment::providers::Env::var(variable) {
        Some(text) if from_file.is_err() => Ok(Secret(text)),
        _ => from_file,
    }
}
