//! `haystack verify`: are the targets equal, and each in itself? `--repair` makes them so.

mod told;

use crate::{Globals, connect, databases};
use clap::Args;
use custody::{compare::Target, ledger::orgs_of, verify::Question};
use domain::OrgKey;
use nats::targets;
use std::{io::IsTerminal, process::ExitCode};

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Only this org
    #[arg(long)]
    org: Option<OrgKey>,
    /// Make the targets equal: deletions first, then the hours that differ, then current values. Where the
    /// stream still has a reading, its value counts; where it has not, the higher version does, and of equal
    /// ones the primary's
    #[arg(long)]
    repair: bool,
    /// With --repair: also take away rows that no accepted message explains
    #[arg(long, requires = "repair")]
    prune: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &VerifyArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let orgs = orgs_of(&nats::model::load(&wire).await?);
    let only = args.org.as_ref();
    if !orgs.iter().any(|org| only.is_none_or(|only| *only == org.key)) {
        let org = only.map_or(String::new(), |org| format!(" {org}"));
        anyhow::bail!("there is no org{org}; `haystack org list` names them");
    }
    let register = targets::list(&wire).await?;
    let databases = databases::attached(&config, &register, "verify")?;
    let targets: Vec<Target<'_>> =
        databases.iter().map(|(name, database)| Target { name, database }).collect();
    let primary = config.primary().0;
    anyhow::ensure!(
        targets.first().is_some_and(|target| target.name == primary),
        "the primary {primary} is detached: `haystack targets list`"
    );
    let (wire, targets, orgs, register) = (&wire, &*targets, &*orgs, &register);
    let (repair, prune) = (args.repair, args.prune);
    let question = Question { wire, targets, orgs, only, register, repair, prune };
    // Where people look, one line is written over.
    let (quiet, terminal) = (args.json, std::io::stderr().is_terminal());
    let mut progress = |text: String| match (quiet, terminal) {
        (true, _) => {}
        (false, true) => eprint!("\r\x1b[K{text}"),
        (false, false) => eprintln!("{text}"),
    };
    let verdict = question.ask(connect::now_here(), &mut progress).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        if terminal {
            eprint!("\r\x1b[K");
        }
        told::print(&verdict);
    }
    Ok(if verdict.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
