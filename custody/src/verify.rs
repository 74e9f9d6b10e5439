//! All targets compared, each with the primary and in itself; and, where that is asked for, made equal.

mod verdict;

use crate::{
    Fault,
    compare::{Pair, Target, on_its_way, orgs, stale},
    ledger::{self, apply_again, restore},
    repair::repair,
};
use domain::{OrgKey, TargetName, Timestamp};
use nats::{
    Wire,
    targets::{self, Compared, Register},
};
use store::{
    OrgRef,
    ledger::rows,
    repair::{MOST, restore_current},
    verify::Recent,
};
pub use verdict::{DifferingHour, Lost, OrgInTarget, Repair, Some, Stale, Unknown, Verdict};

/// Keys of each differing hour that are named.
const SAMPLES: usize = 10;

/// What is asked, or to be done.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The stream server.
    pub wire: &'a Wire,
    /// Those that were not let go, the primary first.
    pub targets: &'a [Target<'a>],
    /// All orgs.
    pub orgs: &'a [OrgRef],
    /// Only this one.
    pub only: Option<&'a OrgKey>,
    /// All targets as they are registered.
    pub register: &'a Register,
    /// Make them equal.
    pub repair: bool,
    /// Take away what no accepted message explains, too.
    pub prune: bool,
}

/// Who hears what is being done.
pub type Listener<'a> = &'a mut (dyn FnMut(String) + Send);

/// How many rows more an org has in a target than were written there; fewer: negative.
async fn too_many(target: Target<'_>, org: &OrgRef) -> Result<i64, Fault> {
    let rows = rows(target.database, org).await.map_err(target.fault())?;
    Ok(rows.found.unwrap_or(rows.counted) - rows.counted)
}

impl Question<'_> {
    fn is_about(&self, org: &OrgRef) -> bool {
        self.only.is_none_or(|only| *only == org.key)
    }

    /// Does it.
    pub async fn ask(&self, here: Timestamp, progress: Listener<'_>) -> Result<Verdict, Fault> {
        let names: Vec<TargetName> = self.targets.iter().map(|it| it.name.clone()).collect();
        let own = self.orgs.iter().filter(|org| self.is_about(org));
        let keys: Vec<OrgKey> = own.map(|org| org.key.clone()).collect();
        let (recent, late) = on_its_way(self.wire, &names, &keys, here).await?;
        let mut verdict = Verdict::new(recent.from, late);
        let Some((primary, others)) = self.targets.split_first() else { return Ok(verdict) };
        let mut job = Job { question: self, primary: *primary, recent, know: Vec::new() };
        for target in self.targets {
            job.know.push((*target, orgs(*target, &keys).await?));
        }
        if self.repair {
            verdict.applied_again = job.apply_again().await?;
        }
        for org in self.orgs.iter().filter(|org| self.is_about(org)) {
            for target in self.targets {
                if !job.who_know(org).any(|it| it.name == target.name) {
                    let (org, target) = (org.key.clone(), target.name.clone());
                    verdict.unknown.push(Unknown { org, target });
                }
            }
            if job.who_know(org).any(|it| it.name == primary.name) {
                for other in job.who_know(org).filter(|it| it.name != primary.name) {
                    job.pair(org, other, &mut verdict, progress).await?;
                }
            }
            if self.repair {
                job.restore(org, &mut verdict, progress).await?;
            }
            job.current(org, &mut verdict).await?;
        }
        verdict.judge();
        // One org alone says nothing of a whole target.
        for other in others.iter().filter(|_| self.only.is_none()) {
            let compared = Compared { at: here, equal: verdict.equal_in(other.name) };
            targets::note_compared(self.wire, other.name, compared).await?;
        }
        Ok(verdict)
    }
}

struct Job<'a> {
    question: &'a Question<'a>,
    primary: Target<'a>,
    recent: Recent,
    /// The orgs that each target has tables for.
    know: Vec<(Target<'a>, Vec<OrgRef>)>,
}

impl<'a> Job<'a> {
    /// The targets that have tables for an org.
    fn who_know(&self, org: &OrgRef) -> impl Iterator<Item = Target<'a>> {
        self.know.iter().filter(move |(_, known)| known.contains(org)).map(|(target, _)| *target)
    }

    /// Applies messages that a target has not noted though it was said to be done with them; how many.
    async fn apply_again(&self) -> Result<u64, Fault> {
        let Question { wire, targets, orgs, register, .. } = *self.question;
        let own: Vec<OrgRef> =
            orgs.iter().filter(|org| self.question.is_about(org)).cloned().collect();
        let mut applied = 0;
        for target in targets {
            let hours = (self.recent.from, self.recent.from);
            let (targets, rows) = (std::slice::from_ref(target), Option::Some(false));
            let entries = Option::Some(false);
            let question = ledger::Question { wire, targets, orgs, register, hours, rows, entries };
            for (_, account) in &question.ask().await?.targets {
                applied += apply_again(wire, *target, &own, &account.hop).await?.0;
            }
        }
        Ok(applied)
    }

    async fn pair(
        &self,
        org: &OrgRef,
        other: Target<'_>,
        verdict: &mut Verdict,
        progress: Listener<'_>,
    ) -> Result<(), Fault> {
        let (wire, primary, recent) = (self.question.wire, self.primary, self.recent);
        let pair = Pair { wire, org, primary, other, recent };
        if self.question.repair {
            let off = [too_many(primary, org).await?, too_many(other, org).await?];
            let repaired = repair(&pair, self.question.prune, off, progress).await?;
            verdict.repaired.push(Repair::new(org, other.name, repaired));
        }
        progress(format!("comparing {} with the primary: org {} …", other.name, org.key));
        let compared = pair.compare(SAMPLES).await?;
        verdict.compared.push(OrgInTarget::new(other.name, compared));
        Ok(())
    }

    /// Rows that are in no target any more, read from the stream again.
    async fn restore(
        &self,
        org: &OrgRef,
        verdict: &mut Verdict,
        progress: Listener<'_>,
    ) -> Result<(), Fault> {
        for target in self.who_know(org) {
            let (back, missing) = restore(self.question.wire, target, org, progress).await?;
            if back > 0 || missing > 0 {
                let (org, target) = (org.key.clone(), target.name.clone());
                verdict.lost.push(Lost { org, target, back, missing });
            }
        }
        Ok(())
    }

    /// Current values against each target's own history. A repair has put them right where there are two
    /// targets; a primary alone is put right here.
    async fn current(&self, org: &OrgRef, verdict: &mut Verdict) -> Result<(), Fault> {
        for target in self.who_know(org) {
            let mut entities = stale(target, org).await?;
            if self.question.repair && !entities.is_empty() {
                for part in entities.chunks(MOST) {
                    let put_right = restore_current(target.database, org, part).await;
                    put_right.map_err(target.fault())?;
                }
                entities = stale(target, org).await?;
            }
            if !entities.is_empty() {
                verdict.stale.push(Stale::new(org, target.name, &entities));
            }
        }
        Ok(())
    }
}
