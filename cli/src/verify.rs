//! `haystack verify`: are the targets equal?

use crate::{Globals, connect, databases, table::Table};
use clap::Args;
use domain::{OrgKey, TargetName, Timestamp};
use serde::Serialize;
use std::process::ExitCode;
use store::{
    Database,
    verify::{Difference, compare},
};

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Only this org
    #[arg(long)]
    org: Option<OrgKey>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One org in one target, held against the primary.
#[derive(Serialize)]
struct Compared {
    org: OrgKey,
    target: TargetName,
    hours: usize,
    rows: i64,
    differing: Vec<DifferingHour>,
}

/// An hour that differs from the primary.
#[derive(Serialize)]
struct DifferingHour {
    hour: String,
    /// Rows that only the primary has.
    missing: u64,
    /// Rows that only the target has.
    extra: u64,
    /// Rows that both have, with other columns.
    changed: u64,
    /// Keys of the first few, as `entity@time`.
    samples: Vec<String>,
}

#[derive(Serialize)]
struct Verdict {
    equal: bool,
    /// Rows accepted before this were compared.
    cutoff: String,
    compared: Vec<Compared>,
}

pub(crate) async fn run(args: &VerifyArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let config = globals.load()?.config;
    let wire = connect::now(&config, "operator").await?;
    let mut orgs: Vec<OrgKey> =
        nats::model::load(&wire).await?.orgs().iter().map(|org| org.key.clone()).collect();
    orgs.retain(|key| args.org.as_ref().is_none_or(|only| only == key));
    if orgs.is_empty() {
        let org = args.org.as_ref().map_or(String::new(), |org| format!(" {org}"));
        anyhow::bail!("there is no org{org}; `haystack org list` names them");
    }
    let names: Vec<TargetName> = config.targets.keys().cloned().collect();
    // The server's clock, before the look: what it accepts later is not compared.
    let now = nats::inspect::server_time(&wire).await?.unwrap_or_else(connect::now_here);
    let in_flight = nats::inspect::oldest_in_flight(&wire, &names, &orgs).await?;
    let cutoff = in_flight.map_or(now, |oldest| oldest.min(now));

    let databases = databases::targets(&config, "verify")?;
    let primary_name = config.primary().0;
    let (others, primary): (Vec<_>, Vec<_>) =
        databases.into_iter().partition(|(name, _)| name != primary_name);
    let primary = &primary[0].1;
    let mut compared = Vec::new();
    for (target, database) in &others {
        compared.extend(against(primary, target, database, &orgs, cutoff, args.json).await?);
    }
    let equal = compared.iter().all(|compared| compared.differing.is_empty());
    let verdict = Verdict { equal, cutoff: cutoff.to_string(), compared };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        print(&verdict, in_flight.is_some_and(|oldest| oldest < now));
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn against(
    primary: &Database,
    target: &TargetName,
    database: &Database,
    orgs: &[OrgKey],
    cutoff: Timestamp,
    quiet: bool,
) -> anyhow::Result<Vec<Compared>> {
    let known = store::read::orgs(primary)
        .await
        .map_err(|fault| anyhow::anyhow!("the primary: {fault}"))?;
    let mut compared = Vec::new();
    for org in known.into_iter().filter(|org| orgs.contains(&org.key)) {
        if !quiet {
            eprintln!("comparing {target} with the primary: org {} …", org.key);
        }
        let report = compare(primary, database, &org, cutoff)
            .await
            .map_err(|fault| anyhow::anyhow!("org {}, target {target}: {fault}", org.key))?;
        compared.push(Compared {
            org: org.key,
            target: target.clone(),
            hours: report.hours,
            rows: report.rows,
            differing: report.differing.iter().map(differing).collect(),
        });
    }
    Ok(compared)
}

fn differing(difference: &Difference) -> DifferingHour {
    let keys = difference.samples.iter().filter_map(|sample| {
        let row = sample.reference.as_ref().or(sample.other.as_ref())?;
        Some(format!("{}@{}", row.entity, row.ts))
    });
    DifferingHour {
        hour: difference.hour.to_string(),
        missing: difference.missing,
        extra: difference.extra,
        changed: difference.changed,
        samples: keys.collect(),
    }
}

fn print(verdict: &Verdict, behind: bool) {
    let mut table = Table::new(["org", "target", "rows", "hours", "differing hours"]);
    for compared in &verdict.compared {
        table.row([
            compared.org.to_string(),
            compared.target.to_string(),
            compared.rows.to_string(),
            compared.hours.to_string(),
            compared.differing.len().to_string(),
        ]);
    }
    table.print();
    let mut hours =
        Table::new(["org", "target", "hour (UTC)", "missing", "extra", "changed", "e.g."]);
    for compared in &verdict.compared {
        for hour in &compared.differing {
            hours.row([
                compared.org.to_string(),
                compared.target.to_string(),
                hour.hour.clone(),
                hour.missing.to_string(),
                hour.extra.to_string(),
                hour.changed.to_string(),
                hour.samples.first().cloned().unwrap_or_default(),
            ]);
        }
    }
    if !hours.is_empty() {
        println!();
        hours.print();
    }
    let late = if behind { " (older than what is still on its way)" } else { "" };
    println!("\ncompared: what was accepted before {}{late}", verdict.cutoff);
    println!("{}", if verdict.equal { "equal" } else { "NOT equal" });
}
