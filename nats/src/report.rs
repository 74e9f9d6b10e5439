//! What a running service says of itself when `status` asks.

use crate::Wire;
use domain::Hold;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

/// Services without which readings do not get from the broker to the databases.
pub const NEEDED: [&str; 2] = ["bridge", "ingest"];

/// Needed services of which no instance answered; with simulators, theirs is needed too.
pub fn silent(reports: &[Report], simulators: bool) -> Vec<&'static str> {
    let answers = |name: &str| reports.iter().any(|report| report.service == name);
    let needed = NEEDED.into_iter().chain(simulators.then_some("simulator"));
    needed.filter(|name| !answers(name)).collect()
}

/// Where questions arrive.
const SUBJECT: &str = "status.ask";

/// A service's account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `bridge`, `ingest`, …
    pub service: String,
    /// Which of several.
    pub instance: String,
    /// Release.
    pub version: String,
    /// What it waits for.
    pub holds: Vec<Hold>,
    /// Counters since its start, e.g. `readings` or `stored.primary`.
    pub counters: BTreeMap<String, u64>,
    /// What else is worth knowing, e.g. of the bridge its session at the broker.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

/// Answers questions until shutdown.
pub async fn serve(wire: Wire, report: impl Fn() -> Report, shutdown: CancellationToken) {
    loop {
        let Ok(mut questions) = wire.client.subscribe(SUBJECT).await else { return };
        loop {
            let question = tokio::select! {
                () = shutdown.cancelled() => return,
                question = questions.next() => question,
            };
            let Some(question) = question else { break };
            let Some(reply) = question.reply else { continue };
            let Ok(body) = serde_json::to_vec(&report()) else { continue };
            let _ = wire.client.publish(reply, body.into()).await;
        }
    }
}

/// Asks every service and collects the answers that come within `wait`.
pub async fn gather(wire: &Wire, wait: Duration) -> Vec<Report> {
    let inbox = wire.client.new_inbox();
    let Ok(mut answers) = wire.client.subscribe(inbox.clone()).await else { return Vec::new() };
    let asked = wire.client.publish_with_reply(SUBJECT, inbox, "".into()).await;
    if asked.is_err() {
        return Vec::new();
    }
    let mut reports = Vec::new();
    let deadline = tokio::time::Instant::now() + wait;
    while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.next()).await {
        // No service listens: the server says so at once, with an empty answer.
        if answer.status.is_some() {
            break;
        }
        reports.extend(serde_json::from_slice::<Report>(&answer.payload));
    }
    reports.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
    reports
}
