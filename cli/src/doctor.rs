//! `haystack doctor`: what is wrong, or will be, and what to do about it.

mod checks;

use crate::{Globals, table::Table};
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;

#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// As it should be.
    Ok,
    /// It works; look at it.
    Warn,
    /// Data is at risk, or nothing moves.
    Fail,
}

/// A finding.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    health: Health,
    /// What was looked at.
    what: String,
    /// What was seen.
    found: String,
    /// What to do; empty where all is well.
    remedy: String,
}

impl Finding {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { health: Health::Ok, what: what.into(), found: found.into(), remedy: String::new() }
    }

    fn bad(
        health: Health,
        what: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { health, what: what.into(), found: found.into(), remedy: remedy.into() }
    }
}

/// Exits 1 where a check failed.
pub(crate) async fn run(args: &DoctorArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let mut findings = checks::files(&config, &globals.data_dir);
    // Side by side: each may wait a while for something that is away.
    let targets = config.targets.iter().map(|(name, of)| checks::target(&config, name, of));
    let (stream_server, broker, targets) = tokio::join!(
        checks::stream_server(&config),
        checks::broker(&config),
        futures_util::future::join_all(targets)
    );
    findings.extend(stream_server.into_iter().chain(broker).chain(targets.into_iter().flatten()));
    findings.extend(checks::ledger(&config).await);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print(&findings);
    }
    let worst = findings.iter().map(|finding| finding.health).max();
    let failed = worst == Some(Health::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(findings: &[Finding]) {
    let mut table = Table::new(["", "what", "found"]);
    for finding in findings {
        let mark = match finding.health {
            Health::Ok => "ok",
            Health::Warn => "WARN",
            Health::Fail => "FAIL",
        };
        table.row([mark.to_owned(), finding.what.clone(), finding.found.clone()]);
    }
    table.print();
    let remedies: Vec<_> = findings.iter().filter(|finding| !finding.remedy.is_empty()).collect();
    if remedies.is_empty() {
        println!("\nall is well");
        return;
    }
    println!("\nwhat to do:");
    for finding in remedies {
        println!("- {}: {}", finding.what, finding.remedy);
    }
}
