//! News of devices that came or went, for `EVENTS`. Not of what a reading waits for: the databases learn
//! of presence by `TELEMETRY`. Where the stream of news takes nothing, or one device floods, only the
//! newest of each device waits here, and readings go on.

use crate::Shared;
use domain::{DeviceId, OrgKey, Revision, RowVersion, presence::Presence, subject::Subject};
use metrics::{counter, gauge};
use nats::{
    envelope,
    publish::{Outgoing, publish},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::timeout};

/// Most devices whose news wait.
const MAX_WAITING: usize = 100_000;
/// Longest wait for the stream's yes. What has no yes is dropped: it is news, and gets old.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Pause after news that were not taken.
const PAUSE: Duration = Duration::from_secs(1);

/// News that wait. Clones share them.
#[derive(Clone, Default)]
pub(super) struct News {
    waiting: Arc<Mutex<BTreeMap<DeviceId, (OrgKey, Presence)>>>,
    come: Arc<Notify>,
}

impl News {
    /// Takes what is stored for the databases.
    pub(super) fn tell(&self, presences: BTreeMap<OrgKey, Vec<Presence>>) {
        if presences.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let each = |(org, all): (OrgKey, Vec<Presence>)| {
            all.into_iter().map(move |presence| (org.clone(), presence))
        };
        for (org, presence) in presences.into_iter().flat_map(each) {
            let newest = waiting.get(&presence.device).map(|(_, known)| version(known));
            if newest.is_some_and(|newest| newest >= version(&presence)) {
                continue;
            }
            if newest.is_none() && waiting.len() >= MAX_WAITING {
                counter!("haystack_bridge_events_dropped_total").increment(1);
                continue;
            }
            waiting.insert(presence.device.clone(), (org, presence));
        }
        gauge!("haystack_bridge_events_waiting").set(waiting.len() as f64);
        drop(waiting);
        self.come.notify_one();
    }

    fn take(&self) -> Option<(OrgKey, Presence)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_first().map(|(_, news)| news)
    }

    /// Publishes one after the other until shutdown: a device's in their order.
    pub(super) async fn run(self, shared: Shared) {
        loop {
            tokio::select! {
                () = shared.shutdown.cancelled() => return,
                () = self.come.notified() => {}
            }
            while let Some((org, presence)) = self.take() {
                if shared.shutdown.is_cancelled() {
                    return;
                }
                let sent =
                    timeout(ANSWER_LIMIT, publish(&shared.wire, event(&org, &presence))).await;
                let why = match sent {
                    Ok(Ok(_stored)) => continue,
                    Ok(Err(fault)) => fault.to_string(),
                    Err(_) => "no answer in time".to_owned(),
                };
                counter!("haystack_bridge_events_dropped_total").increment(1);
                tracing::warn!(device = %presence.device, why, "EVENTS did not take news; dropped");
                tokio::select! {
                    () = shared.shutdown.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }
}

/// Which of two news of a device is newer; nothing, where it fits no version.
fn version(presence: &Presence) -> Option<RowVersion> {
    RowVersion::new(&presence.origin, Revision::default()).ok()
}

fn event(org: &OrgKey, presence: &Presence) -> Outgoing {
    let Presence { device, origin, .. } = presence;
    let (org, kind) = (org.to_string(), "device".to_owned());
    let subject = Subject::Event { org, kind, id: device.to_string() };
    let id = format!("presence/{}/{}", origin.sequence, origin.index);
    Outgoing::new(subject.to_string(), &id, envelope::encode_named(presence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Origin, OriginStream, Timestamp};

    fn presence(device: &str, sequence: u64, online: bool) -> Presence {
        let accepted_at = Timestamp::EPOCH;
        let origin = Origin { stream: OriginStream::Raw, sequence, index: 0, accepted_at };
        let device = device.parse().unwrap();
        Presence { device, online, at: accepted_at, kept: false, origin }
    }

    #[test]
    fn the_newest_of_each_device_waits() {
        let news = News::default();
        let tell = |all| news.tell(BTreeMap::from([("demo".parse().unwrap(), all)]));
        tell(vec![presence("A", 1, true), presence("A", 3, false), presence("B", 2, true)]);
        tell(vec![presence("A", 2, true)]);
        let taken: Vec<_> = std::iter::from_fn(|| news.take())
            .map(|(_, it)| (it.device.to_string(), it.online))
            .collect();
        assert_eq!(taken, [("A".to_owned(), false), ("B".to_owned(), true)]);
    }
}
