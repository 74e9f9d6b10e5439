//! Changes of the model: into `MODEL` with the revision that the caller saw, and a yes when the primary
//! has applied them.

use crate::{Api, caller::Caller, problem::Problem};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use domain::{access::Permission, model::Record, subject::Subject};
use nats::{
    Wire,
    model::{ModelFault, get, put},
    registry::put_new,
};
use std::time::Duration;
use store::inspect::model_position;

/// First and longest pause between two looks at how far the primary is.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));
/// Tries where others write the same record and the caller did not say what it saw.
const TRIES: usize = 5;

/// What a caller expects to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nothing.
    New,
    /// The record of this revision (`If-Match`).
    Revision(u64),
    /// Whatever it is.
    Last,
}

/// What the caller saw, by `If-Match`.
pub(crate) fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(Expected::Last) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(Expected::Last);
    }
    let revision = text.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(text);
    let revision = revision.parse().map_err(|_| {
        Problem::field("/header/if-match", "the ETag of an earlier answer is expected, e.g. \"42\"")
    })?;
    Ok(Expected::Revision(revision))
}

/// The header (`ETag`) that says what a caller saw.
pub(crate) fn etag(revision: u64) -> [(header::HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&format!("\"{revision}\""));
    [(header::ETAG, value.unwrap_or_else(|_| HeaderValue::from_static("")))]
}

/// The connection on a caller's behalf.
pub(crate) fn wire(api: &Api, caller: &Caller) -> Wire {
    api.wire.on_behalf_of(caller.author())
}

/// Refuses while the primary is away: then nothing is changed.
pub(crate) async fn ready(api: &Api) -> Result<(), Problem> {
    model_position(&api.pulse).await?;
    Ok(())
}

/// Writes a record; its revision, when the primary has applied it. A caller that repeats its own write,
/// whose answer was lost, is told that it succeeded.
pub(crate) async fn write(
    api: &Api,
    caller: &Caller,
    record: &Record,
    expected: Expected,
) -> Result<u64, Problem> {
    ready(api).await?;
    let wire = wire(api, caller);
    let revision = match expected {
        Expected::New if is_numbered(record) => made(&wire, record).await?,
        Expected::New => put_new(&wire, record).await?,
        Expected::Last => put_last(&wire, record).await?,
        Expected::Revision(revision) => match put(&wire, record, revision).await {
            Err(ModelFault::Conflict(_)) => {
                let detail = "it was changed since you saw it; look at it again and repeat";
                return Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail));
            }
            done => done?,
        },
    };
    applied(api, revision).await?;
    Ok(revision)
}

/// Whether the platform chose what it is called by.
fn is_numbered(record: &Record) -> bool {
    matches!(record, Record::Entity(_) | Record::Asset(_))
}

/// Writes a record whose number is this request's alone: one that is there was made by an earlier try of it,
/// whatever became of it since.
async fn made(wire: &Wire, record: &Record) -> Result<u64, Problem> {
    match put(wire, record, 0).await {
        Err(ModelFault::Conflict(subject)) => match get(wire, &subject).await? {
            Some((_, Record::Gone(_))) => {
                let detail = "this request made it before, and it was taken away since; send a new \
                              Idempotency-Key to make another";
                Err(Problem::conflict(detail))
            }
            Some((sequence, _)) => Ok(sequence),
            None => Err(ModelFault::Conflict(subject).into()),
        },
        done => Ok(done?),
    }
}

async fn put_last(wire: &Wire, record: &Record) -> Result<u64, Problem> {
    let subject = record.subject().to_string();
    for _ in 0..TRIES {
        let last = match get(wire, &subject).await? {
            // It has a number that nobody chose: what was taken away stays away.
            Some((_, Record::Gone(_))) if is_numbered(record) => {
                return Err(Problem::not_found("resource"));
            }
            last => last.map_or(0, |(sequence, _)| sequence),
        };
        match put(wire, record, last).await {
            Err(ModelFault::Conflict(_)) => {}
            done => return Ok(done?),
        }
    }
    Err(ModelFault::Conflict(subject).into())
}

/// Whether what a caller wants to take away was taken away before; then the primary knows it too. Whoever
/// repeats a request whose answer was lost is told that it is done. `subject` may leave the org open.
pub(crate) async fn is_gone(api: &Api, caller: &Caller, subject: &str) -> Result<bool, Problem> {
    let Some((sequence, Record::Gone(gone))) = get(&api.wire, subject).await? else {
        return Ok(false);
    };
    if !caller.may(gone.org_id, Permission::Model) {
        return Ok(false);
    }
    applied(api, sequence).await?;
    Ok(true)
}

/// Changes a record by what it is at that moment: of two who change it at once, each one's change is
/// in the end.
pub(crate) async fn edit<T>(
    api: &Api,
    caller: &Caller,
    subject: Subject,
    change: impl Fn(Record) -> Result<(Record, T), Problem>,
) -> Result<T, Problem> {
    ready(api).await?;
    let (wire, subject) = (wire(api, caller), subject.to_string());
    for _ in 0..TRIES {
        let found = get(&wire, &subject).await?;
        let (sequence, record) = found.ok_or_else(|| Problem::not_found("resource"))?;
        let (record, changed) = change(record)?;
        match put(&wire, &record, sequence).await {
            Err(ModelFault::Conflict(_)) => {}
            done => {
                applied(api, done?).await?;
                return Ok(changed);
            }
        }
    }
    Err(ModelFault::Conflict(subject).into())
}

/// Waits until the primary has applied all up to a revision, and this service knows it too.
pub(crate) async fn applied(api: &Api, revision: u64) -> Result<(), Problem> {
    let waiting = async {
        let mut directory = api.directory.clone();
        while directory.read().sequence() < revision {
            if !directory.changed().await {
                return;
            }
        }
        let mut pause = LOOK.0;
        while !model_position(&api.pulse).await.is_ok_and(|position| position >= revision) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    };
    tokio::time::timeout(api.limits.commit, waiting).await.map_err(|_| {
        Problem::away(
            "it is changed, and the primary database has not applied it yet; repeat the request: you \
             will be told when it has",
        )
    })
}

/// Waits for all that was written until now, in this service and in the primary.
pub(crate) async fn settled(api: &Api) -> Result<(), Problem> {
    known(api).await?;
    let revision = api.directory.read().sequence();
    applied(api, revision).await
}

/// The same in this service alone: for what counts here and in no database.
pub(crate) async fn known(api: &Api) -> Result<(), Problem> {
    let patience = nats::publish::Patience {
        holds: api.holds.clone(),
        what: "model".to_owned(),
        shutdown: api.shutdown.clone(),
    };
    let mut directory = api.directory.clone();
    let caught_up = directory.caught_up(&api.wire, &patience);
    let caught_up = tokio::time::timeout(api.limits.commit, caught_up).await;
    if !caught_up.unwrap_or(false) {
        return Err(Problem::away("the model can't be read now"));
    }
    Ok(())
}
