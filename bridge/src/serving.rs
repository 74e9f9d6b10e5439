//! Requests of others over NATS, answered for as long as the process lives. Any bridge answers.

use crate::Shared;
use nats::{
    envelope::Schema,
    micro::{AGAIN, Refusal, Served},
    retry::Pauses,
};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What is served.
pub(crate) struct Service {
    /// What waits, in the holds.
    pub(crate) what: &'static str,
    /// Name and id, which joined with a verb by dots are a subject.
    pub(crate) name: (&'static str, &'static str),
    pub(crate) verbs: &'static [&'static str],
    /// Requests at once; more are told to come again.
    pub(crate) at_once: usize,
}

/// Serves until shutdown; each request is answered in a task of its own.
pub(crate) async fn serve<Q, A, F>(
    shared: Shared,
    service: Service,
    answer: impl Fn(Shared, Q, Option<nats::Author>) -> F,
) where
    Q: Schema + DeserializeOwned + Clone + Send + Sync + 'static,
    A: Schema + Serialize + Send + 'static,
    F: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let patience = shared.patience(service.what);
    let mut pauses = Pauses::default();
    let room = Arc::new(Semaphore::new(service.at_once));
    loop {
        let (name, id) = service.name;
        let why = match Served::<Q>::start(&shared.wire, name, id, service.verbs).await {
            Err(refusal) => refusal.text,
            Ok(mut served) => {
                patience.moving();
                loop {
                    let request = tokio::select! {
                        () = shared.shutdown.cancelled() => return,
                        request = served.next() => request,
                    };
                    let Some(request) = request else { break };
                    let Ok(permit) = room.clone().try_acquire_owned() else {
                        let text = format!("{} requests are worked on; {AGAIN}", service.at_once);
                        request.answer::<A>(Err(Refusal::new(503, text))).await;
                        continue;
                    };
                    let work = answer(shared.clone(), request.ask.clone(), request.author.clone());
                    tokio::spawn(async move {
                        request.answer(work.await).await;
                        drop(permit);
                    });
                }
                "the endpoint was closed".to_owned()
            }
        };
        if !patience.pause(&mut pauses, &why).await {
            return;
        }
    }
}
