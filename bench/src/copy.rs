//! The limit: binary COPY straight into the values table, by the encoder of our writer.

use crate::{
    databases,
    meter::{Cost, Meter, Watched},
    stack::Stack,
};
use anyhow::{Context, Result};
use domain::Row;
use std::sync::Arc;

/// Copies all batches into the first `databases` targets, all at the same time.
pub(crate) async fn run(
    stack: &Stack,
    databases: usize,
    batches: &Arc<Vec<Vec<Row>>>,
) -> Result<Cost> {
    let targets = &stack.targets[..databases];
    let mut watched: Vec<Watched> = targets.iter().map(|t| (t.name, t.pid())).collect();
    watched.push(("client", std::process::id()));
    for target in targets {
        // Connected before the clock starts, as ingest is.
        target.writer.ping().await?;
    }
    let meter = Meter::start(&watched);
    let mut tasks = Vec::new();
    for target in targets {
        let (database, org, batches) = (target.writer.clone(), stack.org.clone(), batches.clone());
        tasks.push(tokio::spawn(async move {
            for batch in batches.iter() {
                store::write::copy_only(&database, &org, batch).await?;
            }
            Ok::<_, store::Fault>(())
        }));
    }
    for task in tasks {
        task.await.context("a COPY task panicked")??;
    }
    let cost = meter.look();
    let rows: usize = batches.iter().map(Vec::len).sum();
    let targets: Vec<_> = targets.iter().collect();
    databases::check(&targets, &stack.org, rows as u64).await?;
    Ok(cost)
}
