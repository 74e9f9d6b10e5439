//! Requests answered for as long as a process lives, each in a task of its own.

use super::{AGAIN, Refusal, Served};
use crate::{Author, Wire, envelope::Schema, publish::Patience, retry::Pauses};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What is served by any instance of a service.
pub struct Serves {
    /// Name and id, which joined with a verb by dots are a subject.
    pub name: (&'static str, &'static str),
    /// The last tokens of their subjects.
    pub verbs: &'static [&'static str],
    /// Requests at once; more are told to come again.
    pub at_once: usize,
}

/// Serves until shutdown; each request is answered in a task of its own.
pub async fn serve<Q, A, F>(
    wire: &Wire,
    patience: &Patience,
    service: Serves,
    answer: impl Fn(Q, Option<Author>) -> F,
) where
    Q: Schema + DeserializeOwned + Clone + Send + Sync + 'static,
    A: Schema + Serialize + Send + 'static,
    F: Future<Output = Result<A, Refusal>> + Send + 'static,
{
    let mut pauses = Pauses::default();
    let room = Arc::new(Semaphore::new(service.at_once));
    loop {
        let (name, id) = service.name;
        let why = match Served::<Q>::start(wire, name, id, service.verbs).await {
            Err(refusal) => refusal.text,
            Ok(mut served) => {
                patience.moving();
                loop {
                    let request = tokio::select! {
                        () = patience.shutdown.cancelled() => return,
                        request = served.next() => request,
                    };
                    let Some(request) = request else { break };
                    let Ok(permit) = room.clone().try_acquire_owned() else {
                        let text = format!("{} requests are worked on; {AGAIN}", service.at_once);
                        request.answer::<A>(Err(Refusal::new(503, text))).await;
                        continue;
                    };
                    let work = answer(request.ask.clone(), request.author.clone());
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
