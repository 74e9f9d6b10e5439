//! Asking a simulator's owner.

use crate::{Api, caller::Caller, model, problem::Problem};
use axum::http::StatusCode;
use domain::{
    model::{ACTIVE, Poller},
    simulator::{Ask, State},
};
use nats::{
    Wire,
    micro::{self, NO_ANSWER, NOBODY, Refusal},
};
use std::time::{Duration, Instant};

/// How long an owner has to answer: one that waits for a server tries it first.
const ANSWER: Duration = Duration::from_secs(10);
/// The same, once of several times, where the request may be repeated.
const ONCE: Duration = Duration::from_millis(2_500);
/// How long an owner has where the answer can do without it.
const GLANCE: Duration = Duration::from_secs(2);
/// How long somebody is looked for who answers: a simulator that was just made, or whose service was just
/// stopped, is found by the next within about a second.
const FIND: Duration = Duration::from_secs(2);
/// Pause before somebody is looked for again.
const AGAIN: Duration = Duration::from_millis(200);

/// Asks on the caller's behalf. What is wrong with a field is told with its place below `pointer`.
pub(super) async fn ask(
    api: &Api,
    caller: &Caller,
    poller: &Poller,
    ask: &Ask,
    pointer: &str,
) -> Result<State, Problem> {
    let answer = patiently(&model::wire(api, caller), poller, ask).await;
    answer.map_err(|refusal| told(poller, refusal, pointer, StatusCode::CONFLICT))
}

/// What it does. That it can't be run is, for who only looks, an outage of what was asked for.
pub(super) async fn look(api: &Api, caller: &Caller, poller: &Poller) -> Result<State, Problem> {
    let answer = patiently(&model::wire(api, caller), poller, &Ask::State).await;
    answer.map_err(|refusal| told(poller, refusal, "", StatusCode::SERVICE_UNAVAILABLE))
}

/// Asks once, for what can be told without an answer too.
pub(super) async fn glance(api: &Api, poller: &Poller, ask: &Ask) -> Option<State> {
    micro::ask(&api.wire, subject(poller, ask), ask, GLANCE).await.ok()
}

fn subject(poller: &Poller, ask: &Ask) -> String {
    format!("simulator.{}.{}", poller.id, ask.verb())
}

/// A service that was frozen swallows what it is asked until the server drops it, and another answers:
/// what can be repeated is asked again.
async fn patiently(wire: &Wire, poller: &Poller, ask: &Ask) -> Result<State, Refusal> {
    let subject = subject(poller, ask);
    let once = if ask.repeatable() { ONCE } else { ANSWER };
    let began = Instant::now();
    loop {
        let answer: Result<State, Refusal> = micro::ask(wire, subject.clone(), ask, once).await;
        let Err(refusal) = &answer else { return answer };
        let waited = began.elapsed();
        let again = match refusal.text.as_str() {
            NOBODY => waited < FIND,
            NO_ANSWER => ask.repeatable() && waited + ONCE <= ANSWER,
            _ => false,
        };
        if !again {
            return answer;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What the caller is told of a refusal; `denied` where the simulator's state forbids it.
fn told(poller: &Poller, refusal: Refusal, pointer: &str, denied: StatusCode) -> Problem {
    let id = poller.id;
    match (refusal.status, refusal.text.as_str()) {
        (_, NOBODY) if poller.status != ACTIVE => {
            let detail = format!(
                "simulator {id} is {}, so nobody runs it; PATCH /poller/{id} makes it {ACTIVE}",
                poller.status
            );
            Problem::new(denied, detail)
        }
        (_, NOBODY) => Problem::away(format!(
            "no simulator service answers for simulator {id}: `haystack status` says whether one runs; one \
             that was just made is found in a moment"
        )),
        (_, NO_ANSWER) => Problem::away(format!(
            "the service of simulator {id} did not answer in time; it may have been done all the same. \
             GET /simulator/health/{id} tells what is known without it, `haystack status` whether it runs"
        )),
        (409, text) => Problem::new(denied, text),
        (422, text) => match field(text) {
            Some((name, detail)) => Problem::field(format!("{pointer}/{name}"), detail),
            None => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text),
        },
        (500, text) => {
            tracing::warn!(simulator = id.0, text, "an answer that can't be read");
            Problem::away("the simulator service is of another release, whose answer can't be read")
        }
        _ => refusal.into(),
    }
}

/// The field of `name: what is expected`.
pub(super) fn field(text: &str) -> Option<(&str, &str)> {
    let (name, detail) = text.split_once(": ")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (!name.is_empty() && name.bytes().all(plain)).then_some((name, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_names_a_field_is_told_with_its_place() {
        assert_eq!(field("speed: between 1 and 2"), Some(("speed", "between 1 and 2")));
        assert_eq!(field("the building's description: line 7: x"), None);
        assert_eq!(field("it runs at another pace; stop it first"), None);
    }
}
