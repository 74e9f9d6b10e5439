//! Two targets' rows of a table side by side, in the order of their keys, one of each in memory.

use crate::fault::Fault;
use futures_util::{Stream, StreamExt as _};
use std::pin::Pin;

/// Something that stands in a table under a key.
pub(super) trait Keyed {
    type Key: Ord + Copy;
    fn key(&self) -> Self::Key;
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
        let key = match (a, b) {
            (None, None) => return Ok(None),
            (Some(a), Some(b)) => a.min(b),
            (Some(key), None) | (None, Some(key)) => key,
        };
        let ours = if a == Some(key) { self.ours.advance().await? } else { None };
        let theirs = if b == Some(key) { self.theirs.advance().await? } else { None };
        Ok(Some((ours, theirs)))
    }
}
