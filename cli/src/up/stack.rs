//! Everything that `up` runs, from the first start to the last stop.

use super::{
    child::Child,
    folder::Folder,
    notice, orphans,
    ports::Ports,
    servers::{Doorstep, Servers, Started},
    services::{self, Binary},
};
use crate::{Globals, migrate::ADMIN_KEY};
use anyhow::Result;
use local::secret;
use std::path::{Path, PathBuf};

/// What runs so far. Whatever stops the start in the middle, [`Stack::stop`] stops the rest.
#[derive(Default)]
pub(crate) struct Stack {
    servers: Option<Started>,
    services: Vec<Child>,
    ports: Option<Ports>,
}

impl Stack {
    /// Starts everything and returns when it serves.
    pub(crate) async fn start(
        &mut self,
        folder: &Folder,
        doorstep: Doorstep,
        set: &[(String, String)],
    ) -> Result<()> {
        orphans::end(folder).await?;
        let ports = self.ports.insert(Ports::choose(folder)?).clone();
        let servers = Servers::lay_out(folder, &ports, doorstep).await?;
        let config = servers.config(folder, &ports);
        secret::write_as(&folder.config(), config.as_bytes(), 0o644)?;
        let started = self.servers.insert(servers.start(folder)?);
        servers.ready(started, folder).await?;
        let binary = Binary::new(folder, set)?;
        binary.migrate(folder).await?;
        binary.start(folder, &mut self.services)?;
        services::ready(&self.services, &ports).await
    }

    /// Stops everything: services first, so that they can still say what they did.
    pub(crate) async fn stop(&mut self) {
        let stops = self.services.drain(..).map(Child::stop);
        futures_util::future::join_all(stops).await;
        if let Some(servers) = self.servers.take() {
            servers.stop().await;
        }
    }

    /// Prints what runs where, and how to try it.
    pub(crate) fn describe(&self, folder: &Folder, globals: &Globals) {
        let (Some(servers), Some(ports)) = (&self.servers, &self.ports) else { return };
        let mut rows = vec![["what", "address", "pid", "log"].map(str::to_owned)];
        for child in servers.all().chain(&self.services) {
            let name = child.name();
            rows.push([
                name.to_owned(),
                format!("127.0.0.1:{}", ports.of(name)),
                child.pid().map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                child.log().display().to_string(),
            ]);
        }
        let (table, hints) = (notice::columns(&rows), how_to_try(folder, globals, ports));
        notice::print(&format!("\n{table}\n\n{hints}\n"));
    }
}

fn how_to_try(folder: &Folder, globals: &Globals, ports: &Ports) -> String {
    let (mqtt, api) = (ports.of("mosquitto"), ports.of("control-api"));
    let key = shell(&folder.secrets().join(ADMIN_KEY).to_string_lossy());
    let primary = ports.of("postgres-primary");
    let pgpass = shell(&folder.secrets().join("pgpass").to_string_lossy());
    let haystack = haystack(&globals.data_dir);
    format!(
        r#"Try it, in another terminal:

  mosquitto_pub -h 127.0.0.1 -p {mqtt} -q 1 -t devices/TS-001-2024/telemetry -m "{{\"ts\":\"$(date -u +%FT%TZ)\",\"temperature\":21.5,\"humidity\":40.2}}"

  PGPASSFILE={pgpass} psql postgresql://haystack@127.0.0.1:{primary}/haystack -c 'select * from core.values_demo_current'

  curl -H "X-API-Key: $(cat {key})" http://127.0.0.1:{api}/simulator/config
                           the API; it shows all of itself on http://127.0.0.1:{api}/docs

  {haystack} pki issue device TS-001-2024    a certificate, and how to send with it
  {haystack} demo      a few devices that keep talking
  {haystack} status    what flows, what waits, what is held
  {haystack} env       these addresses, for scripts"#
    )
}

/// How this binary is called from here.
fn haystack(data_dir: &Path) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("haystack"));
    let here = std::env::current_dir().unwrap_or_default();
    let program = program.strip_prefix(&here).unwrap_or(&program).to_string_lossy().into_owned();
    if data_dir == Path::new(".haystack") {
        return shell(&program);
    }
    format!("{} --data-dir {}", shell(&program), shell(&data_dir.to_string_lossy()))
}

/// A word for the shell: in quotes where it needs them.
pub(crate) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+,%=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn words_survive_the_shell() {
        for word in ["postgresql://haystack@127.0.0.1:5432/haystack", "", "a b", "it's $HOME `x`"] {
            let script = format!("printf %s {}", shell(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
