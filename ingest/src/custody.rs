//! Answers where readings are: of all targets, for whoever asks over NATS. It reads with connections of its
//! own, few of them.

use custody::{
    compare::Target,
    gaps::{Question, gaps},
    ledger::{self, Ledger, orgs_of},
    tell::{as_json, gap_as_json, ledger_as_json},
    trace::{Message, Story, Tracer},
    verify,
};
use domain::{
    Clock, EntityId, OrgKey, SystemClock, TargetName, Timestamp,
    custody::{Ask, SERVICE, Told, VERBS},
    directory::Directory,
    ledger::{HOUR, hour_of},
};
use nats::{
    Wire,
    micro::{Refusal, Serves, serve},
    model,
    publish::Patience,
    targets::Register,
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use store::{Database, OrgRef};

/// Questions at once; more are told to come again.
const AT_ONCE: usize = 4;
/// What is settled, of `RAW`: a day, in microseconds.
const DAY: i64 = 24 * HOUR;
/// How long a question may take: whoever asked does not wait longer.
const PATIENCE: Duration = Duration::from_secs(18);

/// What is asked with: the primary first.
pub(crate) struct Custody {
    pub(crate) wire: Wire,
    pub(crate) targets: Vec<(TargetName, Database)>,
}

/// What is to be compared, and whether it is to be made equal.
#[derive(Clone, Copy)]
pub(crate) struct Verify<'a> {
    pub(crate) only: Option<&'a OrgKey>,
    pub(crate) repair: bool,
    pub(crate) prune: bool,
}

/// Serves until shutdown.
pub(crate) async fn run(custody: Arc<Custody>, patience: Patience) {
    let wire = custody.wire.clone();
    let serves = Serves { name: SERVICE, verbs: &VERBS, at_once: AT_ONCE };
    serve(&wire, &patience, serves, |ask: Ask, _| {
        let custody = custody.clone();
        async move {
            let answer = tokio::time::timeout(PATIENCE, custody.answer(ask)).await;
            answer.unwrap_or_else(|_| Err(away("it took too long")))
        }
    })
    .await;
}

fn away(fault: impl std::fmt::Display) -> Refusal {
    tracing::warn!(%fault, "a question of where readings are has no answer");
    Refusal::new(503, "a database or the stream server does not answer; try again")
}

/// The same, of what can be refused for what it asks.
fn refused(fault: custody::Fault) -> Refusal {
    match fault {
        custody::Fault::Refused(why) => Refusal::new(422, why),
        fault => away(fault),
    }
}

impl Custody {
    async fn answer(&self, ask: Ask) -> Result<Told, Refusal> {
        // A user of the command line reads the model anew each time, too: questions are rare.
        let directory = model::load(&self.wire).await.map_err(away)?;
        let list: Vec<Value> = match ask {
            Ask::Gaps { org, from, to } => self.gaps(&directory, &org, (from, to)).await?,
            Ask::Verify { org } => {
                org_of(&directory, &org)?;
                let asked = Verify { only: Some(&org), repair: false, prune: false };
                let found = self.verify(&directory, asked, &mut |_| {}).await.map_err(away)?;
                vec![serde_json::to_value(found).map_err(away)?]
            }
            Ask::Ledger { from, to, rows, entries } => {
                let also = (rows.then_some(true), entries.then_some(true));
                let ledger = self.ledger(&directory, (from, to), also).await;
                let ledger = ledger.map_err(refused)?;
                vec![ledger_as_json(&ledger, &directory)]
            }
            ask => self.stories(&directory, ask).await?.iter().map(as_json).collect(),
        };
        let json = serde_json::to_string(&list).map_err(away)?;
        Ok(Told { json })
    }

    /// Those that were not let go.
    async fn targets(&self) -> Result<Vec<Target<'_>>, Refusal> {
        let register = nats::targets::list(&self.wire).await.map_err(away)?;
        Ok(self.attached(&register))
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Target<'_>> {
        self.targets.iter().map(|(name, database)| Target { name, database }).collect()
    }

    /// The same by a register that was read.
    pub(crate) fn attached(&self, register: &Register) -> Vec<Target<'_>> {
        let gone =
            |name: &TargetName| register.get(name).is_some_and(|target| target.detached.is_some());
        let attached = self.targets.iter().filter(|(name, _)| !gone(name));
        attached.map(|(name, database)| Target { name, database }).collect()
    }

    /// Takes what is in all targets as right; the ledger as it is then.
    pub(crate) async fn settled(
        &self,
        directory: &Directory,
        now: Timestamp,
    ) -> Result<Ledger, custody::Fault> {
        let register = nats::targets::list(&self.wire).await?;
        let (wire, targets, orgs) = (&self.wire, self.attached(&register), orgs_of(directory));
        let hours = (hour_of(now.plus_micros(-DAY)), now);
        let (targets, orgs, register, rows) = (&*targets, &*orgs, &register, Some(true));
        let question =
            ledger::Question { wire, targets, orgs, register, hours, rows, entries: None };
        let ledger = question.ask().await?;
        question.settle(&ledger).await
    }

    /// The ledger of all targets.
    pub(crate) async fn ledger(
        &self,
        directory: &Directory,
        hours: (Timestamp, Timestamp),
        (rows, entries): (Option<bool>, Option<bool>),
    ) -> Result<Ledger, custody::Fault> {
        let register = nats::targets::list(&self.wire).await?;
        let (wire, targets, orgs) = (&self.wire, self.attached(&register), orgs_of(directory));
        let (targets, orgs, register) = (&*targets, &*orgs, &register);
        ledger::Question { wire, targets, orgs, register, hours, rows, entries }.ask().await
    }

    /// Compares all targets, and may make them equal.
    pub(crate) async fn verify(
        &self,
        directory: &Directory,
        Verify { only, repair, prune }: Verify<'_>,
        progress: verify::Listener<'_>,
    ) -> Result<verify::Verdict, custody::Fault> {
        let register = nats::targets::list(&self.wire).await?;
        let (wire, targets, orgs) = (&self.wire, self.attached(&register), orgs_of(directory));
        let (targets, orgs, register) = (&*targets, &*orgs, &register);
        let question = verify::Question { wire, targets, orgs, only, register, repair, prune };
        question.ask(SystemClock.now(), progress).await
    }

    async fn stories(&self, directory: &Directory, ask: Ask) -> Result<Vec<Story>, Refusal> {
        let targets = self.targets().await?;
        let tracer = Tracer { wire: &self.wire, directory, targets: &targets };
        let stories = match ask {
            Ask::Reading { entity, at } => {
                let org = of_entity(directory, entity)?;
                tracer.keys(&org, &[(entity, at)]).await
            }
            Ask::Message { name } => {
                let wrong =
                    || Refusal::new(422, "RAW-SEQUENCE[-INDEX] or TELEMETRY-SEQUENCE is expected");
                tracer.message(Message::parse(&name).ok_or_else(wrong)?).await
            }
            Ask::Request { id } => tracer.request(&id, SystemClock.now()).await,
            Ask::Gaps { .. } | Ask::Ledger { .. } | Ask::Verify { .. } => Ok(Vec::new()),
        };
        stories.map_err(away)
    }

    async fn gaps(
        &self,
        directory: &Directory,
        key: &OrgKey,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<Value>, Refusal> {
        let org = &org_of(directory, key)?;
        let Some(primary) = self.targets().await?.first().copied() else { return Ok(Vec::new()) };
        let question = Question { wire: &self.wire, directory, primary, org, from, to };
        let (_, gaps) = gaps(&question).await.map_err(away)?;
        Ok(gaps.iter().map(|gap| gap_as_json(key, gap)).collect())
    }
}

fn org_of(directory: &Directory, key: &OrgKey) -> Result<OrgRef, Refusal> {
    let none = || Refusal::new(404, "there is no such org");
    let org = directory.org(key).ok_or_else(none)?;
    Ok(OrgRef { id: org.id, key: org.key.clone() })
}

fn of_entity(directory: &Directory, entity: EntityId) -> Result<OrgRef, Refusal> {
    let none = || Refusal::new(404, "there is no such entity");
    let entity = directory.entity(entity).ok_or_else(none)?;
    let org = directory.org_by_id(entity.org_id).ok_or_else(none)?;
    Ok(OrgRef { id: org.id, key: org.key.clone() })
}
