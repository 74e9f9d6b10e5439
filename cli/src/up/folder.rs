//! The data folder: all that `up` keeps, and the lock that only one `up` holds.
//!
//! ```text
//! version          layout of this folder
//! lock             held by the running `up`; its pid is inside
//! ready            there while all is ready
//! ports.json       ports chosen at the first start
//! haystack.toml    configuration of the services, written at every start
//! secrets/         one file a password, and pgpass
//! pki/             certificates of devices and of the broker (`haystack pki`)
//! log/             one file a child, and the one before it
//! nats/ mosquitto/ postgres-primary/ postgres-secondary/
//! ```

use anyhow::{Context, Result};
use local::secret;
use nix::unistd::{Uid, User};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The layout that this release writes, and the newest that it can read.
const LAYOUT: u32 = 1;
/// A log longer than this is set aside at the next start.
const LONGEST_LOG: u64 = 16 << 20;

/// The folder of the authority, in a data folder.
pub(crate) fn pki(data_dir: &Path) -> PathBuf {
    data_dir.join("pki")
}

/// An opened data folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// Held while an `up` runs on the folder.
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// Opens the folder, made if need be. Refuses one that a newer release wrote, and one that
    /// holds something else.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Root's servers run as other users, who must get through.
        let mode = if Uid::effective().is_root() { 0o711 } else { 0o700 };
        let created = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        created.with_context(|| format!("can't make the data folder {}", path.display()))?;
        let path = path.canonicalize().context("can't find the data folder")?;
        let folder = Self { path };
        folder.check_owner()?;
        folder.check_layout()?;
        Ok(folder)
    }

    /// Two users on one folder would leave files behind that the other can't read.
    fn check_owner(&self) -> Result<()> {
        let Ok(file) = self.path.join("version").metadata() else { return Ok(()) };
        let owner = Uid::from_raw(file.uid());
        if owner == Uid::effective() {
            return Ok(());
        }
        let name = User::from_uid(owner).ok().flatten().map_or(owner.to_string(), |user| user.name);
        anyhow::bail!(
            "{} belongs to the user {name}; run this as {name}, or name another --data-dir",
            self.path.display()
        )
    }

    fn check_layout(&self) -> Result<()> {
        let file = self.path.join("version");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.start_layout(&file);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("can't read {}", file.display()));
            }
        };
        let layout: u32 = text
            .trim()
            .parse()
            .with_context(|| format!("{} does not hold a number", file.display()))?;
        anyhow::ensure!(
            layout <= LAYOUT,
            "{} was written by a newer haystack (layout {layout}; this release knows up to \
             {LAYOUT}); use that release, or another --data-dir",
            self.path.display()
        );
        Ok(())
    }

    fn start_layout(&self, file: &Path) -> Result<()> {
        let mut entries = fs::read_dir(&self.path).context("can't read the data folder")?;
        anyhow::ensure!(
            entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == "version.new")),
            "{} holds something else; name an empty or new folder with --data-dir",
            self.path.display()
        );
        secret::write_as(file, format!("{LAYOUT}\n").as_bytes(), 0o644)
    }

    /// Takes the lock. An error names the `up` that holds it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        if let Some(lock) = self.try_lock()? {
            return Ok(lock);
        }
        let pid = self.holder().map_or("unknown".to_owned(), |pid| pid.to_string());
        anyhow::bail!(
            "`haystack up` already runs on {} (pid {pid}); stop it with Ctrl-C or `haystack \
             down`, or name another --data-dir",
            self.path.display()
        )
    }

    /// Takes the lock; `None` where another holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let mut file = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => {
                let written = file.set_len(0).and_then(|()| file.rewind());
                written.and_then(|()| writeln!(file, "{}", std::process::id()))?;
                Ok(Some(Lock { _file: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context("can't lock the data folder"),
        }
    }

    /// Waits for the lock; blocks the thread.
    pub(crate) fn wait_for_lock(&self) -> Result<Lock> {
        let file = self.open_lock()?;
        file.lock().context("can't lock the data folder")?;
        Ok(Lock { _file: file })
    }

    fn open_lock(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(self.path.join("lock")).context("can't open the lock of the data folder")
    }

    /// The pid of the `up` that holds the lock.
    pub(crate) fn holder(&self) -> Option<i32> {
        let mut text = String::new();
        self.open_lock().ok()?.read_to_string(&mut text).ok()?;
        text.trim().parse().ok().filter(|pid| *pid > 1)
    }

    /// Says to others that all is ready.
    pub(crate) fn tell_ready(&self) -> Result<()> {
        secret::write(&self.path.join("ready"), b"")
    }

    /// Takes that back.
    pub(crate) fn forget_ready(&self) -> Result<()> {
        match fs::remove_file(self.path.join("ready")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("can't write to the data folder")
            }
            _ => Ok(()),
        }
    }

    /// Whether all is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.path.join("ready").exists()
    }

    /// The folder itself, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration of the services.
    pub(crate) fn config(&self) -> PathBuf {
        self.path.join("haystack.toml")
    }

    /// The authority that certifies devices.
    pub(crate) fn pki(&self) -> PathBuf {
        pki(&self.path)
    }

    /// The folder of passwords.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.path.join("secrets")
    }

    /// Where a child's log goes. What is there and too long is set aside.
    pub(crate) fn log(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join("log");
        secret::private_folder(&folder)?;
        let path = folder.join(format!("{name}.log"));
        if path.metadata().is_ok_and(|file| file.len() > LONGEST_LOG) {
            fs::rename(&path, folder.join(format!("{name}.log.1")))
                .with_context(|| format!("can't set {} aside", path.display()))?;
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_up_a_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temporary.path().join("data")).unwrap();
        let lock = folder.lock().unwrap();
        let Err(error) = folder.lock() else { panic!("two locks on one folder") };
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        drop(lock);
        folder.lock().unwrap();
    }

    #[test]
    fn a_folder_of_the_future_or_of_others_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("data");
        Folder::open(&path).unwrap();
        Folder::open(&path).unwrap();
        fs::write(path.join("version"), "999\n").unwrap();
        assert!(Folder::open(&path).unwrap_err().to_string().contains("newer haystack"));
        let others = temporary.path().join("photos");
        fs::create_dir(&others).unwrap();
        fs::write(others.join("cat.jpg"), "").unwrap();
        assert!(Folder::open(&others).unwrap_err().to_string().contains("something else"));
    }

    #[test]
    fn a_long_log_is_set_aside() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        let log = folder.log("nats").unwrap();
        File::create(&log).unwrap().set_len(LONGEST_LOG + 1).unwrap();
        assert_eq!(folder.log("nats").unwrap(), log);
        assert!(!log.exists() && log.with_extension("log.1").exists());
    }
}
