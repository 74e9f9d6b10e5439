//! Our own services under `up`: this same binary, with the configuration that `up` wrote.

use super::{
    child::{Child, Ending, Spec, tail},
    folder::Folder,
    notice,
    orphans::Pattern,
    ports::Ports,
    probe,
};
use anyhow::{Context, Result};
use std::{
    ffi::OsString,
    fs::OpenOptions,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// Services, in the order of starting and stopping.
const ROLES: [&str; 4] = ["bridge", "ingest", "simulator", "control-api"];
/// How long a service that runs may take until it waits for nothing.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Names that would lead the services away from the servers that `up` started.
const MISLEADING: [&str; 2] = ["DATABASE_URL", "STATE_DB_URL"];

/// How services of an earlier `up` on this folder are recognised.
pub(crate) fn patterns(folder: &Folder) -> Vec<Pattern> {
    let pattern = |name: &'static str| Pattern {
        name,
        program: "haystack",
        arguments: vec![vec![folder.config().into_os_string(), name.into()]],
        ending: Ending::SERVICE,
    };
    ["control-api", "bridge", "ingest", "simulator", "migrate"].map(pattern).into()
}

/// This binary with a role and the configuration.
#[derive(Clone)]
pub(crate) struct Binary {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Binary {
    /// `set` is handed on as it was given to `up`.
    pub(crate) fn new(folder: &Folder, set: &[(String, String)]) -> Result<Self> {
        let program = std::env::current_exe().context("can't find the haystack binary")?;
        let mut arguments = vec!["--config".into(), folder.config().into_os_string()];
        for (key, value) in set {
            arguments.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        Ok(Self { program, arguments })
    }

    fn command(&self, role: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(role);
        for name in MISLEADING {
            command.env_remove(name);
        }
        command
    }

    /// Brings streams and databases to this release, and makes the demonstration org.
    pub(crate) async fn migrate(&self, folder: &Folder) -> Result<()> {
        let path = folder.log("migrate")?;
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut command = self.command(&["migrate", "--seed"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let mut command = tokio::process::Command::from(command);
        // A stop in the middle ends it too: migrations are transactions, run again next time.
        let status = command.kill_on_drop(true).status().await.context("can't run migrate")?;
        anyhow::ensure!(
            status.success(),
            "migrate failed; the end of {}:\n{}",
            path.display(),
            tail(&path)
        );
        Ok(())
    }

    /// Starts the services, with no wait.
    pub(crate) fn start(&self, folder: &Folder, started: &mut Vec<Child>) -> Result<()> {
        for role in ROLES {
            let binary = self.clone();
            started.push(Child::start(Spec {
                name: role.to_owned(),
                command: Box::new(move || binary.command(&[role])),
                ending: Ending::SERVICE,
                log: folder.log(role)?,
            }));
        }
        Ok(())
    }
}

/// Waits until all services are alive.
pub(crate) async fn ready(services: &[Child], ports: &Ports) -> Result<()> {
    for service in services {
        let port = ports.of(service.name());
        service.ready(probe::alive(port)).await?;
        // A message that comes before the first subscription is kept by nobody.
        if tokio::time::timeout(READY_LIMIT, probe::ready(port)).await.is_err() {
            let name = service.name();
            notice::say(&format!("{name} waits for something; `haystack status` says for what"));
        }
    }
    Ok(())
}
