//! Two targets' rows of a table side by side, in the order of their keys, one of each in memory.

use super::{Recent, unlimited};
use crate::{connect::Database, fault::Fault, org::OrgRef};
use futures_util::{Stream, StreamExt as _};
use sqlx::PgConnection;
use std::pin::Pin;

/// Something that stands in a table under a key.
pub(super) trait Keyed {
    type Key: Ord + Clone;
    fn key(&self) -> Self::Key;
}

/// All of a table that is of one org.
pub(super) trait Listed: Keyed + PartialEq + Sized {
    /// Whether it may be on its way to one of two targets.
    fn is_recent(&self, recent: Recent) -> bool;

    /// Those behind a key.
    fn stream<'c>(
        connection: &'c mut PgConnection,
        org: &OrgRef,
        behind: Option<Self::Key>,
    ) -> Rows<'c, Self>;
}

/// What only one target has, or both differently.
pub type Unlike<T> = (Option<T>, Option<T>);

/// The first in which two targets differ, of those not recent and behind a key; `most` of them.
pub(super) async fn unlike<T: Listed>(
    (reference, other): (&Database, &Database),
    org: &OrgRef,
    recent: Recent,
    behind: Option<T::Key>,
    most: usize,
) -> Result<Vec<Unlike<T>>, Fault> {
    let (mut ours, mut theirs) = tokio::try_join!(reference.borrow(), other.borrow())?;
    unlimited(&mut ours.held).await?;
    unlimited(&mut theirs.held).await?;
    let mut found = Vec::new();
    {
        let one = T::stream(&mut ours.held, org, behind.clone());
        let mut pairs = Pairs::new(one, T::stream(&mut theirs.held, org, behind));
        while let Some((ours, theirs)) = pairs.next().await? {
            let is_recent = |row: &Option<T>| row.as_ref().is_some_and(|row| row.is_recent(recent));
            if ours != theirs && !is_recent(&ours) && !is_recent(&theirs) {
                found.push((ours, theirs));
                if found.len() >= most {
                    // The connections are in the middle of an answer: they are not used again.
                    return Ok(found);
                }
            }
        }
    }
    for mut side in [ours, theirs] {
        sqlx::raw_sql("commit").execute(&mut *side.held).await?;
        side.give_back();
    }
    Ok(found)
}

/// Rows in the order of their keys.
pub(super) type Rows<'c, T> = Pin<Box<dyn Stream<Item = Result<T, Fault>> + Send + 'c>>;

/// One target's rows with a look at the next.
struct Side<'c, T> {
    rows: Rows<'c, T>,
    next: Option<T>,
    started: bool,
}

impl<T: Keyed> Side<'_, T> {
    async fn peek(&mut self) -> Result<Option<T::Key>, Fault> {
        if !self.started {
            self.started = true;
            self.advance().await?;
        }
        Ok(self.next.as_ref().map(Keyed::key))
    }

    async fn advance(&mut self) -> Result<Option<T>, Fault> {
        let following = self.rows.next().await.transpose()?;
        Ok(std::mem::replace(&mut self.next, following))
    }
}

/// Both sides.
pub(super) struct Pairs<'c, T> {
    ours: Side<'c, T>,
    theirs: Side<'c, T>,
}

impl<'c, T: Keyed> Pairs<'c, T> {
    pub(super) fn new(ours: Rows<'c, T>, theirs: Rows<'c, T>) -> Self {
        let side = |rows| Side { rows, next: None, started: false };
        Self { ours: side(ours), theirs: side(theirs) }
    }

    /// What both have under the next key.
    pub(super) async fn next(&mut self) -> Result<Option<(Option<T>, Option<T>)>, Fault> {
        let (a, b) = (self.ours.peek().await?, self.theirs.peek().await?);
        let key = match (&a, &b) {
            (None, None) => return Ok(None),
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (Some(key), None) | (None, Some(key)) => Some(key.clone()),
        };
        let ours = if a == key { self.ours.advance().await? } else { None };
        let theirs = if b == key { self.theirs.advance().await? } else { None };
        Ok(Some((ours, theirs)))
    }
}
