//! What is to be registered before a message can be normalized: done aside, one message after the
//! other, while everybody else's are normalized. Then the message comes back.

use super::keep::ask_for_time;
use crate::Shared;
use nats::{Delivery, publish::Patience, registry, registry::RegistryFault, retry::Pauses};
use rules::Strangers;
use std::{fmt::Display, slice, sync::Arc};
use tokio::sync::{Semaphore, mpsc};

/// Messages that may be aside: each is in memory, with up to some megabytes.
const MAX_ASIDE: usize = 4;

/// Messages that wait until what they speak of is registered.
pub(super) struct Aside {
    shared: Shared,
    room: Arc<Semaphore>,
    /// One registers at a time.
    turn: Arc<Semaphore>,
    done: mpsc::Sender<Delivery>,
    back: mpsc::Receiver<Delivery>,
}

impl Aside {
    pub(super) fn new(shared: Shared) -> Self {
        // One comes back for each that was put: there is room for it though nobody reads while
        // another is put.
        let (done, back) = mpsc::channel(MAX_ASIDE);
        let (room, turn) = (Arc::new(Semaphore::new(MAX_ASIDE)), Arc::new(Semaphore::new(1)));
        Self { shared, room, turn, done, back }
    }

    /// The next message for which all is registered, as far as it can be. It never ends.
    pub(super) async fn next(&mut self) -> Delivery {
        match self.back.recv().await {
            Some(delivery) => delivery,
            // Its other end is ours.
            None => std::future::pending().await,
        }
    }

    /// One that is there.
    pub(super) fn try_next(&mut self) -> Option<Delivery> {
        self.back.try_recv().ok()
    }

    /// Takes a message; waits where too many are aside.
    pub(super) async fn put(&self, delivery: Delivery, strangers: Strangers) {
        let room = self.room.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (shared, turn, done) = (self.shared.clone(), self.turn.clone(), self.done.clone());
        tokio::spawn(async move {
            let _room = room;
            let registering = async {
                let _turn = turn.acquire().await.ok()?;
                register(&shared, strangers).await?;
                let patience = shared.patience("normalize");
                shared.directory.clone().caught_up(&shared.wire, &patience).await.then_some(())
            };
            let registered = tokio::select! {
                registered = registering => registered,
                never = ask_for_time(slice::from_ref(&delivery), shared.ack_wait) => match never {},
            };
            // Stopping: it comes again.
            if registered.is_some() {
                let _ = done.send(delivery).await;
            }
        });
    }
}

/// Registers metrics and logical devices, however long that takes; `None`: stopping.
pub(crate) async fn register(shared: &Shared, strangers: Strangers) -> Option<()> {
    let wire = &shared.wire;
    for (device, metrics) in strangers.metrics {
        let create = || registry::create_metrics(wire, &device, &metrics);
        until_done(shared, "metrics", &device, create).await?;
    }
    let directory = shared.directory.read().clone();
    for (gateway, identifiers) in strangers.logical {
        let identifiers: Vec<String> = identifiers.into_iter().collect();
        let create = || registry::create_logical(wire, &directory, &gateway, &identifiers);
        until_done(shared, "logical devices", &gateway, create).await?;
    }
    Some(())
}

/// Tries until it is done, or never can be: then it is set aside for good, and nobody waits for it.
async fn until_done<F>(
    shared: &Shared,
    what: &str,
    of: &impl Display,
    mut create: impl FnMut() -> F,
) -> Option<()>
where
    F: Future<Output = Result<usize, RegistryFault>>,
{
    let patience: Patience = shared.patience("normalize/devices");
    let mut pauses = Pauses::default();
    loop {
        match create().await {
            Ok(made) => {
                tracing::info!(%of, made, "registered {what}");
                break;
            }
            Err(fault) if !fault.is_outage() => {
                tracing::error!(%of, %fault, "{what} are not registered");
                break;
            }
            Err(fault) => {
                if !patience.pause(&mut pauses, &format!("{what} of {of}: {fault}")).await {
                    return None;
                }
            }
        }
    }
    patience.moving();
    Some(())
}
