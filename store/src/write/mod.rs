//! The merge into one org's tables: one transaction, idempotent, safe beside other writers.

mod copy;
pub(crate) mod current;
pub(crate) mod deletions;
mod hint;
pub(crate) mod note;
pub(crate) mod open;
pub(crate) mod presence;
pub(crate) mod staging;
pub(crate) mod transactions;

use crate::{
    connect::{Database, answered},
    fault::{Fault, Verdict, classify},
    org::OrgRef,
};
pub(crate) use copy::COLUMNS;
use domain::{Proof, Row, Work, ledger::Fates};
use hint::Hints;
use sqlx::PgConnection;

/// How rows enter the values table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePath {
    /// COPY straight into the table, staging where a key is there already.
    Optimistic,
    /// COPY into a temporary table, and what is newer from there.
    Staging,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Rows that were to be written.
    pub offered: u64,
    /// Rows inserted or replaced; the others were there, newer, or deleted.
    pub changed: u64,
    /// Rows that were not there before; the other changed ones took an older one's place.
    pub inserted: u64,
    /// Rows that deletions took out of the table.
    pub deleted: u64,
    /// What became of the rows that were to be written.
    pub fates: Fates,
    /// Whether the messages of the work's page are noted.
    pub noted: bool,
    /// The way the rows went in the end.
    pub path: WritePath,
}

impl Counts {
    fn of(offered: u64, path: WritePath) -> Self {
        let (changed, inserted, deleted, fates) = (0, 0, 0, Fates::default());
        Self { offered, changed, inserted, deleted, fates, noted: false, path }
    }
}

/// Proof that the database has committed a piece of work. Only this room can make one.
#[derive(Debug)]
#[must_use = "what is committed is to be acknowledged"]
pub struct Committed {
    counts: Counts,
}

impl Proof for Committed {}

impl Committed {
    /// Of messages for the archive.
    pub(crate) fn archived(offered: u64, changed: u64) -> Self {
        Self { counts: Counts { changed, ..Counts::of(offered, WritePath::Optimistic) } }
    }

    /// What the write did.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Tries of one piece of work when writers meet (deadlock, lock timeout) or the decompression
/// limit is to be lifted.
const TRIES: u32 = 3;

/// Writes into one target. One is shared by all workers: it remembers which way is cheap.
#[derive(Debug)]
pub struct Writer {
    database: Database,
    hints: Hints,
    always: Option<WritePath>,
}

impl Writer {
    /// A writer that chooses the way by what it meets.
    pub fn new(database: Database) -> Self {
        Self { database, hints: Hints::default(), always: None }
    }

    /// A writer that always tries one way first.
    pub fn always(database: Database, path: WritePath) -> Self {
        Self { database, hints: Hints::default(), always: Some(path) }
    }

    /// Commits work whose rows are [tidy](domain::merge::tidy): deletions, then rows.
    ///
    /// On an error nothing is known to be committed (a COMMIT whose answer was lost may have been
    /// done); the same work may be written again at any time. The verdict is `Again`, `Hold` or
    /// `Data`.
    pub async fn write(&self, org: &OrgRef, work: &Work) -> Result<Committed, Fault> {
        debug_assert!(work.rows.is_sorted_by_key(|row| (row.entity, row.ts)), "rows are tidy");
        let mut lifted = false;
        let mut tries = 1;
        loop {
            let fault = match self.attempt(org, work, lifted).await {
                Ok(counts) => return Ok(Committed { counts }),
                Err(fault) => fault,
            };
            match fault.verdict {
                Verdict::SlowPath if !lifted => lifted = true,
                Verdict::Again if tries < TRIES => tries += 1,
                Verdict::SlowPath | Verdict::Conflict => {
                    return Err(Fault { verdict: Verdict::Hold, ..fault });
                }
                _ => return Err(fault),
            }
        }
    }

    fn path(&self, org: &OrgRef) -> WritePath {
        let staging = self.hints.get(org.id).stage();
        let hinted = if staging { WritePath::Staging } else { WritePath::Optimistic };
        self.always.unwrap_or(hinted)
    }

    async fn attempt(&self, org: &OrgRef, work: &Work, lifted: bool) -> Result<Counts, Fault> {
        let path = self.path(org);
        let task = Task { org, work, path, lifted, hints: &self.hints };
        let patience = self.database.patience(lifted || !work.deletions.is_empty());
        let deletion_millis = self.database.limits.deletion.as_millis();
        let mut connection = self.database.borrow().await?;
        let transaction = async {
            let done = task.run(&mut connection.held, deletion_millis).await;
            let clean = match &done {
                Ok(_) => true,
                Err(error) => rolled_back(&mut connection.held, error).await,
            };
            Ok::<_, Fault>((done, clean))
        };
        let (done, clean) = answered(patience, transaction).await?;
        if clean {
            connection.give_back();
        }
        done.map_err(|error| classify(&error))
    }
}

/// Rolls back after an error that the server reported; other errors end the connection.
async fn rolled_back(connection: &mut PgConnection, error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(_))
        && sqlx::raw_sql("rollback").execute(connection).await.is_ok()
}

/// One try of one piece of work.
struct Task<'a> {
    org: &'a OrgRef,
    work: &'a Work,
    path: WritePath,
    lifted: bool,
    hints: &'a Hints,
}

impl Task<'_> {
    async fn run(
        &self,
        connection: &mut PgConnection,
        deletion_millis: u128,
    ) -> sqlx::Result<Counts> {
        let (org, work) = (self.org, self.work);
        let offered = work.rows.len() as u64;
        let mut counts = Counts::of(offered, self.path);
        let matter = open::open(connection, org, work, deletion_millis, self.lifted).await?;
        if !work.deletions.is_empty() {
            counts.deleted = deletions::apply(connection, org, &work.deletions).await?;
        }
        if !work.rows.is_empty() {
            self.rows(connection, matter, &mut counts).await?;
        }
        // After the rows: those may go back to the savepoint, and would take these along.
        if !work.transactions.is_empty() {
            transactions::apply(connection, org, &work.transactions).await?;
        }
        if !work.presences.is_empty() {
            presence::apply(connection, org, &work.presences).await?;
        }
        note::commit(connection, org, &work.page, &mut counts).await?;
        Ok(counts)
    }

    async fn rows(
        &self,
        connection: &mut PgConnection,
        deletions_matter: bool,
        counts: &mut Counts,
    ) -> sqlx::Result<()> {
        let (org, rows) = (self.org, &self.work.rows);
        let deletes = !self.work.deletions.is_empty();
        if deletions_matter || deletes {
            counts.path = WritePath::Staging;
            // Where deletions were applied, the org is locked for all others, and nothing is to be undone.
            let before = if deletes { "" } else { open::ANEW };
            staging::fill(connection, before, rows).await?;
            counts.fates.deleted = staging::drop_deleted(connection, org).await?;
            self.merge(connection, counts).await?;
            return current::from_staging(connection, org).await;
        }
        if self.path == WritePath::Staging || !self.straight(connection, counts).await? {
            staging::fill(connection, open::ANEW, rows).await?;
            self.merge(connection, counts).await?;
            if self.path == WritePath::Staging {
                let all_new = counts.changed == counts.offered;
                self.hints.change(org.id, |hint| hint.staged(all_new));
            }
            counts.path = WritePath::Staging;
        }
        current::from_rows(connection, org, rows).await
    }

    /// From the staging table, with nobody beside who writes the org's rows: what is found there stays.
    async fn merge(&self, connection: &mut PgConnection, counts: &mut Counts) -> sqlx::Result<()> {
        let met = staging::look(connection, self.org).await?;
        counts.changed = staging::merge(connection, self.org, &met).await?;
        counts.inserted = met.new;
        counts.fates.stored = counts.changed;
        counts.fates.superseded = met.lower;
        counts.fates.duplicate = met.same;
        Ok(())
    }

    /// Whether COPY straight into the table met no row that was there.
    async fn straight(
        &self,
        connection: &mut PgConnection,
        counts: &mut Counts,
    ) -> sqlx::Result<bool> {
        match copy::rows(connection, &self.org.values(), &self.work.rows).await {
            Ok(copied) => {
                (counts.changed, counts.inserted, counts.fates.stored) = (copied, copied, copied);
                self.hints.change(self.org.id, hint::Hint::straight);
                Ok(true)
            }
            Err(error) if classify(&error).verdict == Verdict::Conflict => {
                self.hints.change(self.org.id, hint::Hint::conflict);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Rows into the values table by COPY alone, in a transaction of its own: what the bench holds
/// [`Writer::write`] against. Keys must be new.
pub async fn copy_only(database: &Database, org: &OrgRef, rows: &[Row]) -> Result<u64, Fault> {
    let mut connection = database.borrow().await?;
    let copied = copy::rows(&mut connection.held, &org.values(), rows).await?;
    connection.give_back();
    Ok(copied)
}
