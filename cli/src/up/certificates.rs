//! Keeps the broker's certificates those of the authority while `up` runs: what is renewed or
//! revoked counts within a second, and a revoked device's connection is ended.

use super::{child::Watch, notice};
use anyhow::{Context, Result};
use domain::{Clock, SystemClock, Timestamp};
use local::{
    Mosquitto, Server,
    pki::{Authority, Issued},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

/// How often the authority's folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the platform's own certificates are looked at.
const REFRESH_EVERY: Duration = Duration::from_hours(1);
/// Longest wait for a broker that is restarted.
const RESTART_LIMIT: Duration = Duration::from_mins(1);
/// A connection that a revoked device had opened, but not signed in on, when the broker learned of
/// it: it is ended at one of these times after. The broker drops who does not sign in for 90 s.
const END_AFTER: [Duration; 4] =
    [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(15), Duration::from_secs(95)];

/// Runs until it is dropped.
pub(super) async fn keep(authority: Authority, mosquitto: Arc<Mosquitto>, broker: Watch) {
    let mut keeper = Keeper {
        known: revoked(&authority).unwrap_or_default(),
        given: stamps(&authority),
        authority,
        mosquitto,
        broker,
        refreshed: Instant::now(),
        endings: Vec::new(),
        said: String::new(),
    };
    loop {
        sleep(LOOK_EVERY).await;
        let said = match keeper.look().await {
            Ok(()) => String::new(),
            Err(error) => format!("certificates: {error:#}"),
        };
        if said != keeper.said && !said.is_empty() {
            notice::say(&said);
        }
        keeper.said = said;
    }
}

struct Keeper {
    authority: Authority,
    mosquitto: Arc<Mosquitto>,
    broker: Watch,
    /// Serials that were revoked when the broker was told last.
    known: BTreeSet<String>,
    /// The files as the broker has them.
    given: Vec<Option<Stamp>>,
    refreshed: Instant,
    /// Whose connections are to be ended, and when.
    endings: Vec<(Instant, Ending)>,
    /// The last complaint.
    said: String,
}

/// A client whose connection is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ending {
    name: String,
    /// It has no other certificate: what the broker keeps for it goes too.
    forget: bool,
}

/// What tells one version of a file from the next: files are replaced, never written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
}

fn stamps(authority: &Authority) -> Vec<Option<Stamp>> {
    let (cert, _) = authority.server();
    let stamp = |path| {
        let file = fs::metadata(path).ok()?;
        Some(Stamp { inode: file.ino(), changed: (file.ctime(), file.ctime_nsec()) })
    };
    [authority.ca(), authority.crl(), cert].into_iter().map(stamp).collect()
}

fn revoked(authority: &Authority) -> Result<BTreeSet<String>> {
    let issued = authority.list()?.into_iter();
    Ok(issued.filter(|issued| issued.revoked.is_some()).map(|issued| issued.serial).collect())
}

impl Keeper {
    async fn look(&mut self) -> Result<()> {
        if self.refreshed.elapsed() >= REFRESH_EVERY {
            let authority = self.authority.clone();
            let refreshed = spawn_blocking(move || authority.refresh(SystemClock.now())).await?;
            refreshed.context("the platform's own certificates can't be renewed")?;
            self.refreshed = Instant::now();
        }
        let there = stamps(&self.authority);
        if there != self.given {
            self.tell().await?;
            self.given = there;
        }
        self.end_due().await
    }

    /// Gives the broker the files as they are, and notes whose connections are to be ended.
    async fn tell(&mut self) -> Result<()> {
        // A broker that does not run reads them when it starts.
        let pid = self.broker.pid();
        self.mosquitto.give_certificates(&self.authority)?;
        if let Some(pid) = pid {
            self.reread(pid).await?;
        }
        let issued = self.authority.list()?;
        for (name, forget) in newly_revoked(&issued, &self.known, SystemClock.now()) {
            notice::say(&format!("a certificate of {name} was revoked: its connection is ended"));
            let ending = Ending { name, forget };
            let now = Instant::now();
            self.endings.extend(END_AFTER.map(|after| (now + after, ending.clone())));
        }
        self.known = revoked(&self.authority)?;
        Ok(())
    }

    /// Makes the broker read its certificates anew.
    async fn reread(&self, pid: Pid) -> Result<()> {
        let untold = "can't tell Mosquitto to read its certificates";
        if self.mosquitto.listeners().wss.is_none() {
            kill(pid, Signal::SIGHUP).context(untold)?;
            return self.mosquitto.settled().await;
        }
        notice::say("the broker is restarted: with WebSocket it can't read certificates otherwise");
        kill(pid, Signal::SIGTERM).context(untold)?;
        while self.broker.pid() == Some(pid) {
            sleep(LOOK_EVERY).await;
        }
        timeout(RESTART_LIMIT, self.mosquitto.ready()).await.context("it is not back yet")?
    }

    async fn end_due(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(at) = self.endings.iter().position(|(due, _)| *due <= now) {
            let Ending { name, forget } = &self.endings[at].1;
            self.mosquitto.end_session(name, *forget).await?;
            self.endings.swap_remove(at);
        }
        Ok(())
    }
}

/// Names of the certificates that were revoked since; whether none of a name is left that counts.
fn newly_revoked(
    issued: &[Issued],
    known: &BTreeSet<String>,
    now: Timestamp,
) -> BTreeMap<String, bool> {
    let new = issued.iter().filter(|it| it.revoked.is_some() && !known.contains(&it.serial));
    let another = |name: &str| issued.iter().any(|it| it.name == name && it.counts(now));
    new.map(|it| (it.name.clone(), !another(&it.name))).collect()
}
