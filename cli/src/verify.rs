//! `haystack verify`: are the targets equal, and each in itself? `--repair` makes them so.

mod told;

use crate::{Globals, connect, databases};
use clap::Args;
use custody::{
    compare::{Pair, Target, on_its_way, orgs, stale},
    ledger::{Question, apply_again, orgs_of, restore},
    repair::repair,
};
use domain::{OrgKey, TargetName};
use nats::{
    Wire,
    targets::{self, Compared, Register},
};
use std::{io::IsTerminal, process::ExitCode};
use store::{Database, OrgRef, verify::Recent};
use told::{Lost, OrgInTarget, Repair, Stale, Verdict};

/// Keys of each differing hour that are named.
const SAMPLES: usize = 10;

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
    let all = orgs_of(&nats::model::load(&wire).await?);
    let mut keys: Vec<OrgKey> = all.iter().map(|org| org.key.clone()).collect();
    keys.retain(|key| args.org.as_ref().is_none_or(|only| only == key));
    if keys.is_empty() {
        let org = args.org.as_ref().map_or(String::new(), |org| format!(" {org}"));
        anyhow::bail!("there is no org{org}; `haystack org list` names them");
    }
    // What was let go gets nothing more: it is not expected to be equal.
    let register = targets::list(&wire).await?;
    let attached = |name: &TargetName| register.get(name).is_none_or(|it| it.detached.is_none());
    let databases: Vec<(TargetName, Database)> = databases::targets(&config, "verify")?
        .into_iter()
        .filter(|(name, _)| attached(name))
        .collect();
    let names: Vec<TargetName> = databases.iter().map(|(name, _)| name.clone()).collect();
    let (recent, late) = on_its_way(&wire, &names, &keys, connect::now_here()).await?;
    let (others, primary): (Vec<_>, Vec<_>) =
        databases.iter().partition(|(name, _)| name != config.primary().0);
    let Some((name, database)) = primary.first() else {
        anyhow::bail!("the primary {} is detached: `haystack targets list`", config.primary().0);
    };
    let primary = Target { name, database };
    let job = Job { wire: &wire, args, primary, recent };
    let mut verdict = Verdict::new(recent.from, late);
    if args.repair {
        verdict.applied_again = job.apply_again(&databases, &all, &register).await?;
    }
    for org in orgs(primary, &keys).await? {
        for (name, database) in &others {
            let other = Target { name, database };
            job.pair(&org, other, &mut verdict).await?;
        }
        if args.repair {
            job.restore(&org, &databases, &mut verdict).await?;
        }
        job.current(&org, &others, &mut verdict).await?;
    }
    verdict.judge();
    // One org alone says nothing of a whole target.
    for (name, _) in others.iter().filter(|_| args.org.is_none()) {
        let compared = Compared { at: connect::now_here(), equal: verdict.equal_in(name) };
        targets::note_compared(&wire, name, compared).await?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        verdict.print();
    }
    Ok(if verdict.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many rows more an org has in a target than were written there; fewer: negative.
async fn too_many(target: Target<'_>, org: &OrgRef) -> anyhow::Result<i64> {
    let rows = store::ledger::rows(target.database, org).await?;
    Ok(rows.found.unwrap_or(rows.counted) - rows.counted)
}

struct Job<'a> {
    wire: &'a Wire,
    args: &'a VerifyArgs,
    primary: Target<'a>,
    recent: Recent,
}

impl Job<'_> {
    /// Says what is being done, on one line that is written over where people look.
    fn progress(&self) -> impl FnMut(String) + use<> {
        let (quiet, terminal) = (self.args.json, std::io::stderr().is_terminal());
        move |text| {
            if quiet {
                return;
            }
            if terminal {
                eprint!("\r\x1b[K{text}");
            } else {
                eprintln!("{text}");
            }
        }
    }

    /// Applies messages that a target has not noted though it was said to be done with them; how many.
    async fn apply_again(
        &self,
        databases: &[(TargetName, Database)],
        orgs: &[OrgRef],
        register: &Register,
    ) -> anyhow::Result<u64> {
        let mut applied = 0;
        for (name, database) in databases {
            let target = Target { name, database };
            let (wire, hours) = (self.wire, (self.recent.from, self.recent.from));
            let (targets, rows) = (&[target][..], Some(false));
            let ledger = Question { wire, targets, orgs, register, hours, rows }.ask().await?;
            for (_, account) in &ledger.targets {
                applied += apply_again(wire, target, orgs, &account.hop).await?.0;
            }
        }
        Ok(applied)
    }

    async fn pair(
        &self,
        org: &store::OrgRef,
        other: Target<'_>,
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let (wire, primary, recent) = (self.wire, self.primary, self.recent);
        let pair = Pair { wire, org, primary, other, recent };
        let mut progress = self.progress();
        let mut before = Vec::new();
        if self.args.repair {
            for target in [primary, other] {
                before.push((target, too_many(target, org).await?));
            }
            let repaired = repair(&pair, self.args.prune, &mut progress).await?;
            verdict.repaired.push(Repair::new(org, other.name, repaired));
        }
        progress(format!("comparing {} with the primary: org {} …", other.name, org.key));
        let compared = pair.compare(SAMPLES).await?;
        if compared.report.differing.is_empty() {
            // Rows that came from the other target, and were never given to this one, are counted now. What was
            // missing before stays missing.
            for (target, before) in before {
                let more = too_many(target, org).await? - before.max(0);
                store::ledger::note_more(target.database, org, more.max(0)).await?;
            }
        }
        verdict.compared.push(OrgInTarget::new(other.name, compared));
        if std::io::stderr().is_terminal() && !self.args.json {
            eprint!("\r\x1b[K");
        }
        Ok(())
    }

    /// Rows that are in no target any more, read from the stream again.
    async fn restore(
        &self,
        org: &store::OrgRef,
        databases: &[(TargetName, Database)],
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        for (name, database) in databases {
            let target = Target { name, database };
            let (back, missing) = restore(self.wire, target, org, self.progress()).await?;
            if back > 0 || missing > 0 {
                verdict.lost.push(Lost {
                    org: org.key.clone(),
                    target: name.clone(),
                    back,
                    missing,
                });
            }
        }
        Ok(())
    }

    /// Current values against each target's own history. A repair has put them right where there are two
    /// targets; a primary alone is put right here.
    async fn current(
        &self,
        org: &store::OrgRef,
        others: &[&(TargetName, Database)],
        verdict: &mut Verdict,
    ) -> anyhow::Result<()> {
        let others = others.iter().map(|(name, database)| Target { name, database });
        for target in [self.primary].into_iter().chain(others) {
            let mut entities = stale(target, org).await?;
            if self.args.repair && !entities.is_empty() {
                for part in entities.chunks(store::repair::MOST) {
                    store::repair::restore_current(target.database, org, part).await?;
                }
                entities = stale(target, org).await?;
            }
            if !entities.is_empty() {
                verdict.stale.push(Stale::new(org, target.name, &entities));
            }
        }
        Ok(())
    }
}
