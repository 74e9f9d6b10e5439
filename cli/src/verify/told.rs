//! What `verify` tells people.

use crate::table::Table;
use custody::{
    compare::MOST_COUNTED,
    verify::{Lost, Repair, Some, Stale, Unknown, Verdict},
};
use domain::TargetName;
use std::collections::BTreeMap;

/// Rows that are named.
const SHOWN: usize = 10;

pub(super) fn print(verdict: &Verdict) {
    verdict.repaired.iter().for_each(repaired);
    if verdict.applied_again > 0 {
        println!(
            "{} messages that a target had not noted were applied again\n",
            verdict.applied_again
        );
    }
    for Lost { org, target, back, missing } in &verdict.lost {
        println!(
            "{target}, org {org}: {back} rows that had gone were read from the stream again; {missing} are \
             missing still (haystack ledger)\n"
        );
    }
    for Unknown { org, target } in &verdict.unknown {
        println!(
            "{target} has no tables of org {org} yet: ingest makes them when it runs with it\n"
        );
    }
    let heads = [
        "org",
        "target",
        "rows",
        "hours",
        "differing hours",
        "deletions",
        "presences",
        "transactions",
        "refused",
    ];
    let mut table = Table::new(heads);
    for compared in &verdict.compared {
        let some = |count: usize| {
            let more = if count == MOST_COUNTED { " or more" } else { "" };
            format!("{count}{more}")
        };
        table.row([
            compared.org.to_string(),
            compared.target.to_string(),
            compared.rows.to_string(),
            compared.hours.to_string(),
            compared.differing.len().to_string(),
            some(compared.deletions),
            some(compared.presences),
            some(compared.transactions),
            compared.refused.to_string(),
        ]);
    }
    table.print();
    hours(verdict);
    for Stale { org, target, entities, first } in &verdict.stale {
        let first: Vec<String> = first.iter().map(ToString::to_string).collect();
        println!(
            "\n{target}, org {org}: the current value of {entities} entities is not their newest \
             ({})",
            first.join(", ")
        );
    }
    if verdict.compared.iter().any(|compared| compared.refused > 0) {
        println!(
            "\nrefused: one target has them, the other set them aside (haystack dead-letters)"
        );
    }
    let late = if verdict.behind { " (older than what is still on its way)" } else { "" };
    println!("\ncompared: what was accepted before {}{late}", verdict.cutoff);
    println!("{}", if verdict.equal { "equal" } else { "NOT equal" });
    let unexplained = verdict.repaired.iter().any(|it| it.unexplained.count > it.pruned);
    if !verdict.equal && verdict.repaired.is_empty() {
        println!("(haystack verify --repair makes them equal)");
    } else if !verdict.equal && unexplained {
        println!("(haystack verify --repair --prune takes away what no message explains)");
    }
}

fn hours(verdict: &Verdict) {
    let mut hours =
        Table::new(["org", "target", "hour (UTC)", "missing", "extra", "changed", "e.g."]);
    for compared in &verdict.compared {
        for hour in &compared.differing {
            hours.row([
                compared.org.to_string(),
                compared.target.to_string(),
                hour.hour.to_string(),
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
}

fn repaired(repair: &Repair) {
    let all = |by: &BTreeMap<TargetName, u64>| {
        let some = by.iter().filter(|(_, count)| **count > 0);
        let some: Vec<_> = some.map(|(name, count)| format!("{count} in {name}")).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    println!(
        "repaired org {}, primary and {}: deletions {}; presences {}; transactions {}; rows: {}; \
         current values: {}",
        repair.org,
        repair.target,
        repair.deletions,
        repair.presences,
        repair.transactions,
        all(&repair.rows),
        all(&repair.current)
    );
    let named = |what: &str, some: &Some| {
        if some.count > 0 {
            println!("  {} {what}:", some.count);
            some.first.iter().take(SHOWN).for_each(|name| println!("    {name}"));
        }
    };
    named("keys had one version and other values; the primary's count", &repair.settled);
    let fate = if repair.pruned > 0 { "taken away" } else { "left (--prune takes them away)" };
    named(&format!("that no accepted message explains, {fate}"), &repair.unexplained);
    named("refused by the database", &repair.refused);
}
