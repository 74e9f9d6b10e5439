//! Group commit: what came in while one pack was on its way is the next pack.
//!
//! One pack is in flight at a time, and one that fails is sent again before the next: so a
//! device's messages enter `RAW` in the order in which the door took them. Idle, a pack holds one
//! message and leaves at once; under load it grows to its limits and one fsync serves them all.

use crate::{
    Fsynced, Wire, chunks, envelope,
    publish::{Outgoing, Patience, Stopped, until_stored},
};
use domain::{
    chunk::{Facts, Name},
    raw::{MAX_PACK_BYTES, MAX_PACK_ENTRIES, Pack, RawMessage},
    subject::Subject,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Header: of several requests that brought a pack's messages, the place of the first message of each.
pub const PLACES: &str = "Haystack-Places";

/// Messages that may wait for their pack.
const MAX_WAITING: usize = 8 * MAX_PACK_ENTRIES;
/// Payload bytes that may wait for their pack or be on their way, before the door stops reading.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// What a message costs beside its payload, for the byte limits.
const ENTRY_OVERHEAD: usize = 128;

/// Parts of gateway reports that are on their way at once, each behind an fsync of its own.
const MAX_PARTS: usize = 256;

/// Where a message goes.
enum Goal {
    /// Into a pack of `RAW`.
    Raw,
    /// Into `CHUNKS`, as a part of a transaction.
    Part { name: Name, index: u32, facts: Facts },
}

/// A message that waits, with what the door needs to say yes to its sender.
struct Waiting<T> {
    message: RawMessage<'static>,
    goal: Goal,
    ticket: T,
    bytes: OwnedSemaphorePermit,
}

/// Where a door puts messages.
pub struct Door<T> {
    queue: mpsc::Sender<Waiting<T>>,
    bytes: Arc<Semaphore>,
}

impl<T> Clone for Door<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bytes: self.bytes.clone() }
    }
}

impl<T> Door<T> {
    /// Takes a message and the sender's ticket; waits where too much waits already. `false` where
    /// the packer has ended. This is no yes: the yes comes with the ticket, out of the packer.
    pub async fn accept(&self, message: RawMessage<'static>, ticket: T) -> bool {
        self.put(message, Goal::Raw, ticket).await
    }

    /// The same for a part of a gateway's report: it goes into `CHUNKS`.
    pub async fn accept_part(
        &self,
        message: RawMessage<'static>,
        (name, index, facts): (Name, u32, Facts),
        ticket: T,
    ) -> bool {
        self.put(message, Goal::Part { name, index, facts }, ticket).await
    }

    async fn put(&self, message: RawMessage<'static>, goal: Goal, ticket: T) -> bool {
        let cost = cost(&message).min(MAX_WAITING_BYTES);
        let Ok(permit) = self.bytes.clone().acquire_many_owned(cost as u32).await else {
            return false;
        };
        self.queue.send(Waiting { message, goal, ticket, bytes: permit }).await.is_ok()
    }
}

fn cost(message: &RawMessage<'_>) -> usize {
    message.payload.len() + message.name.len() + ENTRY_OVERHEAD
}

/// Packs messages of one door's instance into `RAW`.
pub struct Packer<T> {
    queue: mpsc::Receiver<Waiting<T>>,
    wire: Wire,
    subject: String,
    instance: String,
    patience: Patience,
    /// A message that did not fit into the last pack.
    left_over: Option<Waiting<T>>,
    number: u64,
}

/// A door and its packer. `instance` must be unique among running doors; ids of packs start
/// with it.
pub fn door<T>(wire: Wire, name: &str, instance: &str, patience: Patience) -> (Door<T>, Packer<T>) {
    let (sender, queue) = mpsc::channel(MAX_WAITING);
    let subject = Subject::Raw { door: name.to_owned(), instance: instance.to_owned() };
    let door = Door { queue: sender, bytes: Arc::new(Semaphore::new(MAX_WAITING_BYTES)) };
    let packer = Packer {
        queue,
        wire,
        subject: subject.to_string(),
        // A restarted instance must not repeat ids: the random part is new each time.
        instance: format!("{}{:016x}", id_prefix(instance), random()),
        patience,
        left_over: None,
        number: 0,
    };
    (door, packer)
}

/// What the ids of an instance's messages begin with. No other instance's begin so: what follows is
/// 16 digits, and a `-`.
fn id_prefix(instance: &str) -> String {
    format!("{instance}-")
}

/// Whether a message of that id is an instance's.
pub fn is_of(instance: &str, id: &str) -> bool {
    const DIGITS: usize = 16;
    let rest = id.strip_prefix(&id_prefix(instance)).unwrap_or_default();
    let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    digits == DIGITS && rest[DIGITS..].starts_with('-')
}

/// A random number, for names that must not repeat.
pub fn random() -> u64 {
    getrandom::u64().expect("the system gives random numbers")
}

impl<T> Packer<T> {
    /// Packs until every door is gone (all that waits is stored first) or the process must stop.
    /// `confirm` gets the tickets of each stored pack, in the order of arrival, with the proof.
    pub async fn run<F>(mut self, mut confirm: impl FnMut(Vec<T>, Fsynced) -> F)
    where
        F: Future<Output = ()>,
    {
        while let Some(taken) = self.next_taken().await {
            let (mut pack, mut parts) = (Pack::default(), Vec::new());
            let (mut tickets, mut permits) = (Vec::new(), Vec::new());
            for Waiting { message, goal, ticket, bytes } in taken {
                match goal {
                    Goal::Raw => pack.entries.push(message),
                    Goal::Part { name, index, facts } => {
                        self.number += 1;
                        let id = format!("{}-{}", self.instance, self.number);
                        parts.push(chunks::part(&name, index, &facts, &message, &id));
                    }
                }
                tickets.push(ticket);
                permits.push(bytes);
            }
            let stored = if parts.is_empty() {
                self.store(&pack).await
            } else {
                self.store_parts(parts).await
            };
            drop(permits);
            match stored {
                Ok(stored) => confirm(tickets, stored).await,
                Err(fault) => {
                    // Nobody was told yes, so the senders send again.
                    tracing::warn!(%fault, messages = tickets.len(), "a pack is not stored");
                    return;
                }
            }
        }
    }

    async fn store(&mut self, pack: &Pack<'static>) -> Result<Fsynced, Stopped> {
        self.number += 1;
        let id = format!("{}-{}", self.instance, self.number);
        let about = pack.entries.iter().map(cost).sum();
        let message = Outgoing::new(&self.subject, &id, envelope::encode_sized(pack, about));
        until_stored(&self.wire, message, &self.patience).await
    }

    /// All of them are stored; any one's yes is given.
    async fn store_parts(&mut self, parts: Vec<Outgoing>) -> Result<Fsynced, Stopped> {
        let each = parts.into_iter().map(|part| until_stored(&self.wire, part, &self.patience));
        let stored = futures_util::future::try_join_all(each).await?;
        stored.into_iter().next_back().ok_or(Stopped)
    }

    /// Waits for a message, then takes what else is there and goes the same way, as far as it fits.
    async fn next_taken(&mut self) -> Option<Vec<Waiting<T>>> {
        let first = match self.left_over.take() {
            Some(waiting) => waiting,
            None => self.queue.recv().await?,
        };
        let is_part = |waiting: &Waiting<T>| matches!(waiting.goal, Goal::Part { .. });
        let parts = is_part(&first);
        let (most, most_bytes) =
            if parts { (MAX_PARTS, MAX_WAITING_BYTES) } else { (MAX_PACK_ENTRIES, MAX_PACK_BYTES) };
        let mut bytes = cost(&first.message);
        let mut taken = vec![first];
        while taken.len() < most {
            let Ok(waiting) = self.queue.try_recv() else { break };
            bytes += cost(&waiting.message);
            if bytes > most_bytes || is_part(&waiting) != parts {
                self.left_over = Some(waiting);
                break;
            }
            taken.push(waiting);
        }
        Some(taken)
    }
}
