//! Long work that somebody asked the API for, of which there is a record each: taken up, done, and told how far it
//! is. A job of a service that died is done again by another, from its beginning, which harms nothing.

use crate::custody::{Custody, Verify};
use custody::{
    Fault,
    backfill::fill_all,
    compare::Target,
    preview,
    tell::{filled_as_json, filling, ledger_as_json, preview_as_json},
};
use domain::{
    Clock, OrgKey, SystemClock, TargetName,
    directory::Directory,
    failpoint,
    job::{Job, State, What},
    normalize::TimeLimits,
};
use nats::{
    model,
    records::{self, Kept, RecordFault},
};
use serde_json::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

/// Jobs at once in one service.
pub(crate) const AT_ONCE: u16 = 2;
/// How often it is looked for a job, ...
const LOOK: Duration = Duration::from_secs(1);
/// ... and said how far one is.
const TOUCH: Duration = Duration::from_secs(1);
/// Points and days of which a preview tells.
const MOST_DAYS: usize = 1_000;
/// Longest record, in bytes: the bucket has room for a thousand of them.
const LONGEST: usize = 512 << 10;
/// A job is begun no more often: each time its service died.
const ATTEMPTS: u32 = 5;
/// Tries to say that one has ended; then it is begun again.
const TRIES: u32 = 30;

/// What jobs are done with.
pub(crate) struct Jobs {
    pub(crate) custody: Arc<Custody>,
    pub(crate) limits: TimeLimits,
    /// Who works, in records: another each time the process begins.
    pub(crate) worker: String,
}

/// What is said while a job is done.
type Said = Arc<Mutex<String>>;

/// Works on jobs, one after the other, until shutdown.
pub(crate) async fn run(jobs: Arc<Jobs>, shutdown: CancellationToken) {
    // Those below it are over.
    let mut first_open = 1;
    while !shutdown.is_cancelled() {
        let now = SystemClock.now();
        let wire = &jobs.custody.wire;
        match records::take::<Job>(wire, &jobs.worker, now, &mut first_open).await {
            Ok(Some(kept)) => {
                work(&jobs, kept, &shutdown).await;
                continue;
            }
            Ok(None) => {}
            Err(fault) => tracing::debug!(%fault, "jobs can't be looked at"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// Does a job, until it is done, or somebody stopped it or took it over.
async fn work(jobs: &Arc<Jobs>, mut kept: Kept<Job>, shutdown: &CancellationToken) {
    if kept.record.attempts > ATTEMPTS {
        let why = format!("it was begun {ATTEMPTS} times, and each time its ingest service died");
        return end(jobs, kept, State::Failed(why), shutdown).await;
    }
    let said = Said::default();
    let (own, what, telling) = (jobs.clone(), kept.record.what.clone(), said.clone());
    let mut working =
        Ended(tokio::spawn(async move { own.custody.do_it(&own, what, &telling).await }));
    let told = loop {
        tokio::select! {
            told = &mut working.0 => break told,
            () = sleep(TOUCH) => {}
            () = shutdown.cancelled() => {
                // Another service takes it up at once.
                kept.record.owner = None;
                kept.record.attempts -= 1;
                let _ = records::put(&jobs.custody.wire, kept).await;
                return;
            }
        }
        kept.record.touched_at = SystemClock.now();
        kept.record.progress.clone_from(&said.lock().unwrap_or_else(PoisonError::into_inner));
        match records::put(&jobs.custody.wire, kept.clone()).await {
            Ok(written) => kept = written,
            Err(RecordFault::Conflict(..)) => return,
            Err(fault) => tracing::debug!(%fault, "how far a job is can't be said"),
        }
    };
    failpoint::hit(failpoint::BEFORE_JOB_DONE);
    let state = match told {
        Ok(Ok(told)) => State::Done(told.to_string()),
        Ok(Err(fault)) => {
            tracing::warn!(job = kept.record.id, %fault, "a job failed");
            State::Failed(why(fault))
        }
        Err(error) => {
            tracing::error!(job = kept.record.id, %error, "a job ended by a fault of this program");
            State::Failed("a fault of the program; the log of ingest says more".to_owned())
        }
    };
    end(jobs, kept, state, shutdown).await;
}

/// Why a job failed, for whoever asked for it: what databases and servers say is for the log.
fn why(fault: Fault) -> String {
    match fault {
        Fault::Refused(why) => why,
        Fault::Target(name, _) => {
            format!("target {name} does not answer, or refuses; the log of ingest says more")
        }
        Fault::Stream(_) | Fault::Message(_) => {
            "the stream server does not answer, or refuses; the log of ingest says more".to_owned()
        }
    }
}

/// Says that a job has ended, unless it is another's meanwhile, or was stopped.
async fn end(jobs: &Jobs, mut kept: Kept<Job>, state: State, shutdown: &CancellationToken) {
    kept.record.owner = None;
    kept.record.progress.clear();
    kept.record.state = state;
    kept.record.touched_at = SystemClock.now();
    // A text within a text: its quotes and newlines count twice.
    let length = serde_json::to_vec(&kept.record).map_or(0, |body| body.len());
    if length > LONGEST {
        kept.record.state = State::Failed(format!(
            "it is done, but what it would tell has {length} bytes, of at most {LONGEST}; the command line \
             tells all of it"
        ));
    }
    for _ in 0..TRIES {
        let fault = match records::put(&jobs.custody.wire, kept.clone()).await {
            Ok(_) | Err(RecordFault::Conflict(..)) => return,
            Err(fault) => fault,
        };
        tracing::warn!(job = kept.record.id, %fault, "a job's end can't be said");
        if matches!(kept.record.state, State::Done(_)) {
            // There may be no room for what it tells, and for less there is.
            let now = records::get::<Job>(&jobs.custody.wire, kept.record.id).await;
            if now.is_ok_and(|now| now.is_none_or(|now| now.revision != kept.revision)) {
                return;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(TOUCH) => {}
        }
    }
    kept.record.state = State::Failed("what it told could not be kept".to_owned());
    let _ = records::put(&jobs.custody.wire, kept).await;
}

/// Work that ends when nobody waits for it any more: what it has begun in a database is rolled back.
struct Ended(JoinHandle<Result<Value, Fault>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn say(said: &Said, text: String) {
    *said.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

impl Custody {
    async fn do_it(&self, jobs: &Jobs, what: What, said: &Said) -> Result<Value, Fault> {
        let directory = model::load(&self.wire).await?;
        match what {
            What::Preview(spec) => {
                let targets = self.all();
                let Some(primary) = targets.first().copied() else { return Err(no_target()) };
                let (wire, directory, limits) = (&self.wire, &directory, jobs.limits);
                let question = preview::Question { wire, primary, directory, limits };
                let mut progress = |share: f64, taken: u64| {
                    say(said, format!("{:.0} % looked at, {taken} messages", share * 100.0));
                };
                let preview = question.ask(spec, &mut progress).await?;
                Ok(preview_as_json(&preview, directory, MOST_DAYS))
            }
            What::Verify { org, repair, prune } => {
                let asked = Verify { only: org.as_ref(), repair, prune };
                let verdict = self.verify(&directory, asked, &mut |text| say(said, text)).await?;
                serde_json::to_value(verdict).map_err(|error| Fault::Refused(error.to_string()))
            }
            What::Settle => {
                let now = SystemClock.now();
                let ledger = self.settled(&directory, now).await?;
                Ok(ledger_as_json(&ledger, &directory))
            }
            What::Backfill { target, from, org } => {
                self.backfill((&from, &target), org.as_ref(), &directory, said).await
            }
        }
    }

    async fn backfill(
        &self,
        (from, to): (&TargetName, &TargetName),
        org: Option<&OrgKey>,
        directory: &Directory,
        said: &Said,
    ) -> Result<Value, Fault> {
        if let Some(org) = org.filter(|org| directory.org(org).is_none()) {
            return Err(Fault::Refused(format!("there is no org {org}")));
        }
        let register = nats::targets::list(&self.wire).await?;
        let targets = self.attached(&register);
        let find = |name: &TargetName| -> Result<Target<'_>, Fault> {
            let none = || {
                Fault::Refused(format!(
                    "the ingest service has no target {name}, or it is detached"
                ))
            };
            targets.iter().find(|target| target.name == name).copied().ok_or_else(none)
        };
        let (from, to) = (find(from)?, find(to)?);
        let mut progress = |org: &store::OrgRef, done| say(said, filling(org, to, done));
        Ok(filled_as_json(&fill_all(from, to, org, &mut progress).await?))
    }
}

fn no_target() -> Fault {
    Fault::Refused("the ingest service has no target".to_owned())
}
