//! Who runs a simulator: takes its lease when nobody has it, keeps it while the session runs.

use crate::{Shared, live, session, tenure::Tenure};
use domain::SimulatorId;
use nats::{
    CancellationToken,
    lease::{self, Lease, LeaseFault},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How often a lease that somebody else has is tried.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// A lease is renewed this often in its time.
const RENEWALS: u32 = 3;

/// Runs the simulator whenever the lease can be had, until shutdown.
pub(crate) async fn run(shared: Shared, id: SimulatorId) {
    let key = format!("simulator.{id}");
    loop {
        if shared.poller(id).is_some() {
            let asked = Instant::now();
            match Lease::take(&shared.wire, &key, &shared.instance).await {
                Ok(lease) => own(&shared, id, lease, asked).await,
                Err(LeaseFault::Taken(owner)) => {
                    tracing::debug!(simulator = id.0, owner, "somebody else runs it");
                }
                Err(fault) => tracing::debug!(simulator = id.0, %fault, "no lease"),
            }
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(TRY_EVERY) => {}
        }
    }
}

/// Runs it under the lease. A panic in the session is a hold, not the end of the service.
async fn own(shared: &Shared, id: SimulatorId, lease: Lease, taken: Instant) {
    let epoch = lease.epoch();
    let (lost, over) = (CancellationToken::new(), CancellationToken::new());
    // What the server was told counts, whatever is configured here.
    let lasts = lease::lasts(&shared.wire).await.unwrap_or(shared.lease);
    let tenure = Arc::new(Tenure::new(taken, lasts));
    let keeping = keep(shared.clone(), lease, tenure.clone(), lost.clone(), over.clone());
    let keeper = tokio::spawn(keeping);
    let session = tokio::spawn(live::run(shared.clone(), id, epoch, tenure, lost.clone()));
    let ended = session.await;
    let what = session::hold_name(id);
    match ended {
        Ok(()) => drop(shared.holds.release(&what)),
        Err(error) => {
            let why = format!("a fault of this program, please report it: {error}");
            shared.holds.hold(&what, &why, shared.clock.now());
            tracing::error!(simulator = id.0, why, "the session failed");
        }
    }
    over.cancel();
    let _ = keeper.await;
}

/// Renews the lease until the session is over, then gives it back. Cancels `lost` when it may have
/// ended: silence for as long as it lasts counts.
async fn keep(
    shared: Shared,
    mut lease: Lease,
    tenure: Arc<Tenure>,
    lost: CancellationToken,
    over: CancellationToken,
) {
    let every = tenure.lasts() / RENEWALS;
    loop {
        tokio::select! {
            () = over.cancelled() => break,
            () = tokio::time::sleep(every) => {}
        }
        let asked = Instant::now();
        match lease.renew(&shared.wire).await {
            Ok(()) => tenure.renew(asked),
            Err(LeaseFault::Taken(_)) => {
                // Or our own renewal, whose answer was lost: giving it up is safe in both cases.
                lost.cancel();
                return;
            }
            Err(fault) => {
                tracing::debug!(%fault, "the lease could not be renewed");
                if !tenure.holds() {
                    lost.cancel();
                    return;
                }
            }
        }
    }
    if !lost.is_cancelled() {
        let _ = lease.give_back(&shared.wire).await;
    }
}
