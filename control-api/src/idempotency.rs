//! `Idempotency-Key`: a request that is repeated is done once. A key belongs to an org, a caller and what
//! is asked; two callers that use the same one never meet.

use crate::{Api, caller::Caller, problem::Problem};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use domain::{OrgKey, Timestamp};
use nats::idempotency::{self, Claimed, Entry};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The header.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Longest key, in bytes.
const MAX_KEY: usize = 255;

/// Tries to publish that are remembered.
const MAX_TRIED: usize = 32;

/// A key that a caller has taken for a body.
pub(crate) struct Taken {
    name: String,
    pub(crate) claimed: Claimed,
}

fn hex(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The caller's key, where there is one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let wrong =
        || Problem::field("/header/idempotency-key", "1 to 255 visible characters are expected");
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(wrong()),
    }
}

/// Takes the caller's key for a body; `None`: the caller names none. One that was taken for another body
/// is refused. `number` is asked for where the key is new.
pub(crate) async fn take(
    api: &Api,
    caller: &Caller,
    org: Option<&OrgKey>,
    asked: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Taken>, Problem> {
    let Some(key) = key(headers)? else { return Ok(None) };
    let org = org.map_or("", OrgKey::as_str);
    let who = caller.who.to_string();
    let name = hex(&[org.as_bytes(), who.as_bytes(), asked.as_bytes(), key.as_bytes()]);
    let entry = Entry {
        body: hex(&[body]),
        made_at: api.clock.now(),
        number: None,
        tried: Vec::new(),
        sequence: None,
    };
    let claimed = idempotency::claim(&api.wire, &name, &entry).await.map_err(|fault| {
        tracing::warn!(%fault, "an Idempotency-Key can't be looked up");
        Problem::away("idempotency keys can't be read now; nothing was stored")
    })?;
    if claimed.entry.body != entry.body {
        let detail = "this Idempotency-Key came with another body before; use a new one";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    Ok(Some(Taken { name, claimed }))
}

impl Taken {
    /// An id for what is published under the key, the same at each try.
    pub(crate) fn message_id(&self) -> String {
        format!("{}-{}", self.name, self.claimed.entry.made_at.micros())
    }

    /// When something was published under the key, or was to be.
    pub(crate) fn tried(&self) -> &[Timestamp] {
        &self.claimed.entry.tried
    }

    /// Notes that something is about to be published, before it is: whoever repeats the request looks
    /// for it then. Where somebody else noted something meanwhile, that counts.
    pub(crate) async fn tries(&mut self, api: &Api) -> Result<(), Problem> {
        let tried = &mut self.claimed.entry.tried;
        if tried.len() >= MAX_TRIED {
            tried.remove(0);
        }
        tried.push(api.clock.now());
        self.keep(api).await
    }

    async fn keep(&mut self, api: &Api) -> Result<(), Problem> {
        let noted = idempotency::note(&api.wire, &self.name, &self.claimed).await;
        self.claimed = noted.map_err(|fault| {
            tracing::warn!(%fault, "what an Idempotency-Key does is not noted");
            Problem::away("idempotency keys can't be written now; nothing was changed")
        })?;
        Ok(())
    }

    /// Notes what was published. Where that is not noted, it is found again by its id.
    pub(crate) async fn published(&mut self, api: &Api, sequence: u64) {
        self.claimed.entry.sequence = Some(sequence);
        if let Err(fault) = idempotency::note(&api.wire, &self.name, &self.claimed).await {
            tracing::warn!(%fault, "what an Idempotency-Key did is not noted");
        }
    }

    /// The number that belongs to the key: the one it had, else a new one that is on record before it
    /// is used.
    pub(crate) async fn number<F, E>(&mut self, api: &Api, allocate: F) -> Result<i32, Problem>
    where
        F: Future<Output = Result<i32, E>>,
        Problem: From<E>,
    {
        if let Some(number) = self.claimed.entry.number {
            return Ok(number);
        }
        let number = allocate.await?;
        self.claimed.entry.number = Some(number);
        self.keep(api).await?;
        // Of several at once, one noted its own.
        Ok(self.claimed.entry.number.unwrap_or(number))
    }
}
