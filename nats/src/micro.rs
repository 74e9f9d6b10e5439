//! Request and reply between services, as NATS micro services (`nats micro ls` shows them).

mod serve;

pub use serve::{Serves, serve};

use crate::{
    Author, Wire,
    envelope::{self, Schema},
    model::{BY, REQUEST_ID, one_line},
};
use async_nats::{
    HeaderMap,
    service::{Service, ServiceExt, endpoint::Endpoint, error},
};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::HashMap, time::Duration};

/// Why a request was not done, with the status that HTTP would give it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// 404, 409, 422, 503, …
    pub status: u16,
    /// What is wrong and what to do, for people.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

/// Longest text of a refusal, in bytes.
const MAX_REFUSAL: usize = 2_000;

/// The text of a refusal by silence.
pub const NO_ANSWER: &str = "the service did not answer in time; look again";

/// The text of a refusal where nobody serves.
pub const NOBODY: &str = "no service answers: does one run it?";

/// The text of a refusal where the question did not get away.
pub const UNASKED: &str = "the request could not be sent: is NATS up?";

/// The end of a refusal by a service that has too much to do.
pub const AGAIN: &str = "come again";

/// A request that came in.
pub struct Request<T> {
    /// What is asked.
    pub ask: T,
    /// On whose behalf, where the asker says it.
    pub author: Option<Author>,
    answer: async_nats::service::Request,
}

impl<T> Request<T> {
    /// Answers it. An answer that can't be sent is the asker's time-out.
    pub async fn answer<A: Schema + Serialize>(self, answer: Result<A, Refusal>) {
        respond(&self.answer, answer.map(|answer| envelope::encode_named(&answer))).await;
    }
}

/// A header holds one line; one that is too long would be no answer at all.
fn header(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_REFUSAL.min(text.len()));
    text[..end].replace(['\r', '\n'], " ")
}

async fn respond(request: &async_nats::service::Request, answer: Result<bytes::Bytes, Refusal>) {
    let answer = answer.map_err(|refusal| error::Error {
        code: usize::from(refusal.status),
        status: header(&refusal.text),
    });
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "an answer could not be sent");
    }
}

/// Endpoints that are served. Dropping it ends them.
pub struct Served<T> {
    // Its statistics and its answers to `nats micro` live as long as it does.
    _service: Service,
    endpoints: futures_util::stream::SelectAll<Endpoint>,
    ask: std::marker::PhantomData<T>,
}

impl<T: Schema + DeserializeOwned> Served<T> {
    /// Serves `{name}.{id}.{verb}` for each verb.
    pub async fn start(wire: &Wire, name: &str, id: &str, verbs: &[&str]) -> Result<Self, Refusal> {
        let away = |error: async_nats::Error| Refusal::new(503, error.to_string());
        let service = wire
            .client
            .service_builder()
            .metadata(HashMap::from([("id".to_owned(), id.to_owned())]))
            .start(name, env!("CARGO_PKG_VERSION"))
            .await
            .map_err(away)?;
        let mut endpoints = futures_util::stream::SelectAll::new();
        for verb in verbs {
            let subject = format!("{name}.{id}.{verb}");
            endpoints
                .push(service.endpoint_builder().name(*verb).add(subject).await.map_err(away)?);
        }
        Ok(Self { _service: service, endpoints, ask: std::marker::PhantomData })
    }

    /// The next request; one that can't be read is answered here. `None`: the connection is closed.
    pub async fn next(&mut self) -> Option<Request<T>> {
        loop {
            let answer = self.endpoints.next().await?;
            match envelope::decode(&answer.message.payload) {
                Ok(ask) => {
                    let author = author(answer.message.headers.as_ref());
                    return Some(Request { ask, author, answer });
                }
                Err(fault) => respond(&answer, Err(Refusal::new(422, fault.to_string()))).await,
            }
        }
    }
}

/// On whose behalf somebody asks.
fn author(headers: Option<&HeaderMap>) -> Option<Author> {
    let header = |name| Some(headers?.get(name)?.to_string());
    Some(Author { who: header(BY)?, request_id: header(REQUEST_ID) })
}

fn headers_of(author: &Author) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(BY, one_line(&author.who));
    if let Some(id) = &author.request_id {
        headers.insert(REQUEST_ID, one_line(id));
    }
    headers
}

/// Asks and waits for the answer.
pub async fn ask<Q, A>(
    wire: &Wire,
    subject: String,
    question: &Q,
    wait: Duration,
) -> Result<A, Refusal>
where
    Q: Schema + Serialize,
    A: Schema + for<'b> Deserialize<'b>,
{
    let mut request =
        async_nats::Request::new().payload(envelope::encode_named(question)).timeout(Some(wait));
    if let Some(author) = &wire.author {
        request = request.headers(headers_of(author));
    }
    let answer = wire.client.send_request(subject, request).await.map_err(|error| {
        use async_nats::RequestErrorKind::{NoResponders, TimedOut};
        match error.kind() {
            NoResponders => Refusal::new(503, NOBODY),
            TimedOut => Refusal::new(503, NO_ANSWER),
            _ => {
                tracing::warn!(%error, "a request was not sent");
                Refusal::new(503, UNASKED)
            }
        }
    })?;
    let header = |name: &str| {
        answer.headers.as_ref().and_then(|headers| headers.get(name)).map(ToString::to_string)
    };
    if let Some(code) = header("Nats-Service-Error-Code") {
        let text = header("Nats-Service-Error").unwrap_or_default();
        return Err(Refusal::new(code.parse().unwrap_or(500), text));
    }
    envelope::decode(&answer.payload).map_err(|fault| Refusal::new(500, fault.to_string()))
}
