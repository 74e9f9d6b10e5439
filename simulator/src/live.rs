//! A simulator's life under a lease: requests and time, one thing at a time.

use crate::{
    Shared, commands,
    session::{Opened, Over, Requests, Session, next, open},
    tenure::Tenure,
};
use domain::{SimulatorId, simulator::EventType};
use nats::CancellationToken;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// Runs the simulator until the lease is lost, the service stops, or nobody wants it any more.
pub(crate) async fn run(
    shared: Shared,
    id: SimulatorId,
    epoch: u64,
    tenure: Arc<Tenure>,
    lost: CancellationToken,
) {
    let session = async {
        let Some(opened) = open(&shared, id, epoch, tenure).await else { return };
        let Opened { mut session, served, order } = opened;
        if let Some(order) = order
            && commands::answer(&mut session, order).await.is_err()
        {
            return;
        }
        let _ = live(&mut session, served).await;
    };
    tokio::select! {
        biased;
        () = lost.cancelled() => tracing::warn!(simulator = id.0, "the lease is lost"),
        () = session => {}
    }
}

/// Serves requests and time, until it is over.
async fn live(session: &mut Session, mut served: Option<Requests>) -> Result<(), Over> {
    let id = session.saved.id;
    let mut directory = session.shared.directory.clone();
    let shutdown = session.shared.shutdown.clone();
    let took = format!("{} took it over", session.shared.instance);
    session.note(EventType::Startup, took, json!({ "epoch": session.epoch }));
    loop {
        if served.is_none() {
            served = session.serve().await;
        }
        session.adopt();
        let wait = session.wait();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            request = next(&mut served) => match request {
                // Whoever has the lease now has answered it, or will.
                Some(_) if !session.tenure.holds() => return Err(Over),
                Some(request) => commands::answer(session, request).await?,
                None => served = None,
            },
            changed = directory.changed() => {
                if !changed || session.shared.poller(id).is_none() {
                    break;
                }
            }
            () = sleep(wait) => session.advance().await?,
        }
    }
    session.note(EventType::Shutdown, format!("{} lets it go", session.shared.instance), json!({}));
    if session.settled() {
        let _ = session.save().await;
    }
    Ok(())
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
