//! What Mosquitto says of itself (`$SYS`): whom it refused, and what it dropped. Another broker says
//! it elsewhere, and nothing is missed but these numbers.

use metrics::{counter, gauge};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Where all of it is said.
pub(super) const PREFIX: &str = "$SYS/";
/// What is listened to, at `QoS` 0.
pub(super) const FILTERS: [&str; 2] = ["$SYS/broker/publish/messages/dropped", "$SYS/broker/log/#"];
const DROPPED: &str = FILTERS[0];
const LOG: &str = "$SYS/broker/log/";

/// How lines of Mosquitto's log (2.0) begin and end, without the time, and why they refuse somebody. A
/// client's name stands in between, if at all: it must not pass for the line.
const REFUSALS: [(&str, &str, &str); 4] = [
    ("OpenSSL Error", "peer did not return a certificate", "no_certificate"),
    ("Client connection from ", "peer did not return a certificate.", "no_certificate"),
    ("OpenSSL Error", "certificate verify failed", "bad_certificate"),
    ("Client ", " disconnected, not authorised.", "login"),
];

fn refusal(line: &str) -> Option<&'static str> {
    let (_time, text) = line.trim_end().split_once(": ")?;
    let is = |(begin, end, _): &&(&str, &str, &str)| text.starts_with(begin) && text.ends_with(end);
    REFUSALS.iter().find(is).map(|(_, _, reason)| *reason)
}

/// What was heard since the process began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// Connections that the broker refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Messages that the broker has dropped since it began, though it had said yes to them.
    pub dropped: u64,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} messages dropped by the broker", self.dropped)?;
        for (reason, count) in &self.refused {
            let plural = if *count == 1 { "" } else { "s" };
            write!(f, ", {count} connection{plural} refused ({reason})")?;
        }
        Ok(())
    }
}

/// Listens. Clones share what they heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch(Arc<Mutex<Heard>>);

impl Watch {
    pub(super) fn heard(&self) -> Heard {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what came on a topic of the broker's own.
    pub(super) fn take(&self, topic: &str, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if topic == DROPPED
            && let Ok(dropped) = text.trim().parse()
        {
            if dropped > heard.dropped {
                tracing::error!(
                    dropped,
                    "the MQTT broker has dropped messages that it had said yes to"
                );
            }
            heard.dropped = dropped;
            gauge!("haystack_broker_messages_dropped").set(dropped as f64);
        } else if topic.starts_with(LOG)
            && let Some(reason) = refusal(&text)
        {
            *heard.refused.entry(reason).or_default() += 1;
            counter!("haystack_broker_refusals_total", "reason" => reason).increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_and_the_rest_is_not_counted() {
        let watch = Watch::default();
        for (topic, text) in [
            (
                "$SYS/broker/log/N",
                "1: Client connection from ::1 failed: error:0A0000C7:SSL routines::peer did not return a certificate.",
            ),
            (
                "$SYS/broker/log/E",
                "1: OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed",
            ),
            ("$SYS/broker/log/N", "1: Client <unknown> disconnected: Protocol error."),
            ("$SYS/broker/log/N", "1: Client <unknown> disconnected, not authorised."),
            ("$SYS/broker/log/N", "1: Client x disconnected, not authorised. disconnected."),
            (
                "$SYS/broker/log/N",
                "1: New client connected from ::1:1 as certificate verify failed (p2, c1).",
            ),
            ("$SYS/broker/publish/messages/dropped", "7"),
            ("$SYS/broker/uptime", "9 seconds"),
        ] {
            watch.take(topic, text.as_bytes());
        }
        let heard = watch.heard();
        assert_eq!(
            heard.refused,
            [("bad_certificate", 1), ("login", 1), ("no_certificate", 1)].into()
        );
        assert_eq!(heard.dropped, 7);
        assert!(heard.to_string().starts_with("7 messages dropped by the broker, 1 conn"));
    }
}
