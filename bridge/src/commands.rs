//! Commands for devices: request and reply over NATS, out through the broker. Any bridge answers.

use crate::{Shared, mqtt};
use domain::{
    Clock, DeviceId, SystemClock,
    command::{Command, Fate, MAX_COMMAND, SERVICE, Told},
    model::Role,
    topic,
};
use metrics::counter;
use nats::micro::{Refusal, Serves, serve};
use std::time::{Duration, Instant};
use tokio::{
    sync::oneshot,
    time::{timeout, timeout_at},
};

/// Commands that wait for the broker at once; more are told to come again.
const AT_ONCE: usize = 256;
/// Longest wait for the broker's answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(4);

/// Serves until shutdown.
pub(crate) async fn run(shared: Shared) {
    let name = (SERVICE[0], SERVICE[1]);
    let serves = Serves { name, verbs: &SERVICE[2..], at_once: AT_ONCE };
    let (wire, patience) = (shared.wire.clone(), shared.patience("commands"));
    serve(&wire, &patience, serves, |command: Command, _| {
        let shared = shared.clone();
        async move {
            let done = send(&shared, &command).await;
            let outcome = match &done {
                Ok(Told { fate: Fate::Taken }) => "taken".to_owned(),
                Ok(Told { fate: Fate::NobodyListens }) => "nobody_listens".to_owned(),
                Err(refusal) => refusal.status.to_string(),
            };
            counter!("haystack_bridge_commands_total", "outcome" => outcome).increment(1);
            done
        }
    })
    .await;
}

async fn send(shared: &Shared, command: &Command) -> Result<Told, Refusal> {
    let Command { device, payload, expires_seconds, not_after } = command;
    if payload.len() > MAX_COMMAND {
        let bytes = payload.len();
        return Err(Refusal::new(
            413,
            format!("{bytes} bytes, a command has {MAX_COMMAND} at most"),
        ));
    }
    if payload.is_empty() || *expires_seconds == 0 {
        return Err(Refusal::new(
            422,
            "a command has a payload, and expires after a second or more",
        ));
    }
    // In our own time from here on: clocks may be set.
    let left = not_after.micros() - SystemClock.now().micros();
    let left = Duration::from_micros(left.try_into().unwrap_or(0)).min(ANSWER_LIMIT);
    let limit = Instant::now() + left;
    registered(shared, device, left).await?;
    if Instant::now() >= limit {
        return Err(Refusal::new(
            503,
            "the command came too late (a bridge that hung, or clocks that differ) and is not sent",
        ));
    }
    let (told, fate) = oneshot::channel();
    let outgoing = mqtt::Outgoing {
        topic: topic::commands(device),
        payload: payload.clone().into(),
        expires: Duration::from_secs((*expires_seconds).into()),
        not_after: Some(limit),
        told: Some(told),
    };
    shared.link.send(outgoing).map_err(|not_sent| Refusal::new(503, not_sent.to_string()))?;
    match timeout_at(limit.into(), fate).await {
        Ok(Ok(mqtt::Sent::Taken)) => Ok(Told { fate: Fate::Taken }),
        Ok(Ok(mqtt::Sent::NobodyListens)) => Ok(Told { fate: Fate::NobodyListens }),
        Ok(Ok(mqtt::Sent::Refused(why))) => {
            Err(Refusal::new(502, format!("the MQTT broker refuses the command: {why}")))
        }
        Ok(Ok(mqtt::Sent::Unknown) | Err(_)) => Err(Refusal::new(
            503,
            format!(
                "the connection to the MQTT broker broke: {device} may get the command, or not"
            ),
        )),
        Err(_) => Err(Refusal::new(
            503,
            format!("the MQTT broker does not answer: {device} may still get the command"),
        )),
    }
}

/// Only a device that is registered, and listens itself, is told anything.
async fn registered(shared: &Shared, id: &DeviceId, limit: Duration) -> Result<(), Refusal> {
    let find = || shared.directory.read().device(id).cloned();
    let mut found = find();
    if found.is_none() {
        let patience = shared.patience("commands");
        let mut directory = shared.directory.clone();
        let caught_up = timeout(limit, directory.caught_up(&shared.wire, &patience)).await;
        if !caught_up.unwrap_or(false) {
            return Err(Refusal::new(503, "the stream server does not answer; come again"));
        }
        found = find();
    }
    match found.as_ref().map(|device| &device.role) {
        None => Err(Refusal::new(404, format!("there is no device {id}"))),
        Some(Role::Logical { gateway, .. }) => {
            let text = format!("{id} does not listen itself: tell its gateway {gateway}");
            Err(Refusal::new(409, text))
        }
        Some(Role::Endpoint | Role::Gateway) => Ok(()),
    }
}
