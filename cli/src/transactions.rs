//! `haystack transactions`: gateways' reports whose parts are still coming.

use crate::{Globals, connect, table::Table};
use clap::Args;
use domain::chunk::{Limits, Transactions};
use nats::chunks::{self, ChunkReader, Found, What};
use serde_json::json;
use std::{process::ExitCode, time::Duration};
use tokio::time::timeout;

/// A stream that says nothing for so long has nothing more to say.
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct TransactionsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &TransactionsArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let wire = connect::now(&globals.load()?.config, "operator").await?;
    let mut reader = ChunkReader::open(&wire).await?;
    let mut transactions = Transactions::new(Limits::default());
    let mut waiting = reader.waiting();
    while waiting > 0 {
        // What was counted may have gone before it was read.
        let Ok(found) = timeout(SILENCE, reader.next()).await else { break };
        let Found { sequence, what, pending } = found?;
        waiting = pending;
        match what {
            Some(What::Part { name, at, facts, bytes, received_at }) => {
                transactions.part(&name, at, facts, (bytes, received_at), Duration::ZERO);
            }
            Some(What::End(name)) => {
                if let Some(end) = chunks::read_end(&wire, sequence).await? {
                    transactions.end(&name, sequence, end, false, Duration::ZERO);
                }
            }
            Some(What::Done(name)) => transactions.done(&name, sequence, Duration::ZERO),
            None => {}
        }
    }
    let open = transactions.list();
    if args.json {
        let all = open.iter().map(|it| {
            json!({ "org": it.name.org, "gateway": it.name.gateway,
                "transaction": it.name.transaction, "seen": it.seen, "total": it.total,
                "missing": it.missing, "began_at": it.began_at.to_string() })
        });
        println!("{}", serde_json::to_string_pretty(&all.collect::<Vec<_>>())?);
        return Ok(ExitCode::SUCCESS);
    }
    if open.is_empty() {
        println!("no open transactions");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["org", "gateway", "transaction", "parts", "missing", "since"]);
    for it in open {
        table.row([
            it.name.org.to_string(),
            it.name.gateway.to_string(),
            it.name.transaction,
            format!("{} of {}", it.seen, it.total),
            it.missing,
            it.began_at.to_string(),
        ]);
    }
    table.print();
    Ok(ExitCode::SUCCESS)
}
