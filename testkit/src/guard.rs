//! The folder of this test process, and the guard that clears up behind it.

use std::{
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

const SCRIPT: &str = include_str!("guard.sh");

struct Guard {
    base: PathBuf,
    /// Its pipe is never written to. The guard acts when that closes, which the kernel does for us.
    _process: Child,
}

static GUARD: OnceLock<Guard> = OnceLock::new();
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The temporary folder of this process. Gone when the process is.
pub(crate) fn base() -> &'static Path {
    &GUARD.get_or_init(start).base
}

/// A new name for a folder below the temporary folder of this process.
pub fn folder(kind: &str) -> PathBuf {
    base().join(format!("{kind}-{}", NUMBER.fetch_add(1, Ordering::Relaxed)))
}

fn start() -> Guard {
    // Servers that run as other users must be able to pass through; a home folder may be closed.
    let temporary = if nix::unistd::Uid::effective().is_root() {
        tempfile::Builder::new().prefix("haystack-test-").tempdir_in("/tmp")
    } else {
        tempfile::Builder::new().prefix("haystack-test-").tempdir()
    };
    let base = temporary.expect("the temporary folder takes a folder of ours").keep();
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o711))
        .expect("the folder is ours");
    let process = Command::new("/bin/sh")
        .args(["-c", SCRIPT, "haystack-test-guard"])
        .arg(&base)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // Ctrl-C reaches the tests; the guard then clears up.
        .process_group(0)
        .spawn()
        .expect("/bin/sh starts");
    Guard { base, _process: process }
}
