//! `MODEL` into a target, in order: each time all there is, in one transaction.
//!
//! Any number of instances may do this to one database: the projection's lock lets one in at a
//! time, and its position shows the others what is done. Nothing here is ever set aside: a record
//! that can't be read or applied holds the projection until somebody helps.

use crate::target::Target;
use nats::{
    model::{ModelFault, ModelReader, Stored},
    retry::Pauses,
};
use store::{Fault, OrgRef, Projection, inspect, model::Change, read};

/// Why following stopped.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Stream(#[from] ModelFault),
    #[error(transparent)]
    Database(#[from] Fault),
    #[error(
        "this database was filled from another platform's MODEL: it has applied {position}, the \
         stream ends at {last}. Point the target at a new database, or the platform at its stream"
    )]
    Foreign { position: u64, last: u64 },
    #[error("the database was set back to an earlier state; reading MODEL again from there")]
    SetBack,
}

/// Projects until the process is to stop. `known` hears of the orgs whose tables are there, after
/// every change, and for the first time when the model has been applied as it stood.
pub(crate) async fn follow(target: &Target, mut known: impl FnMut(Vec<OrgRef>)) {
    // In capitals: no org's key is.
    let patience = target.patience("MODEL");
    let mut pauses = Pauses::default();
    loop {
        let mut moving = || {
            patience.moving();
            pauses = Pauses::default();
        };
        let interrupted = tokio::select! {
            () = target.shutdown.cancelled() => return,
            result = follow_once(target, &mut known, &mut moving) => result,
        };
        let Err(why) = interrupted;
        if !patience.pause(&mut pauses, &why.to_string()).await {
            return;
        }
    }
}

async fn follow_once(
    target: &Target,
    known: &mut impl FnMut(Vec<OrgRef>),
    moving: &mut impl FnMut(),
) -> Result<std::convert::Infallible, Interrupted> {
    let mut position = inspect::model_position(&target.database).await?;
    let mut reader = ModelReader::open(&target.wire, position).await?;
    let last = reader.last();
    if position > last {
        return Err(Interrupted::Foreign { position, last });
    }
    // Applied before, or nothing to apply: the tables of the orgs known so far are there.
    if position > 0 || reader.waiting() == 0 {
        known(read::orgs(&target.database).await?);
    }
    // Not before: what waits may be the record that is held.
    if reader.waiting() == 0 {
        moving();
    }
    loop {
        let first = reader.next().await?;
        position = apply(target, &mut reader, first, position).await?;
        known(read::orgs(&target.database).await?);
        moving();
    }
}

/// Applies a record and those that wait behind it; the position after that.
async fn apply(
    target: &Target,
    reader: &mut ModelReader,
    first: Stored,
    position: u64,
) -> Result<u64, Interrupted> {
    let mut projection = Projection::begin(&target.database).await?;
    let applied = projection.position();
    if applied < position {
        return Err(Interrupted::SetBack);
    }
    let (mut stored, mut left) = (first, None);
    loop {
        // Counted from the first on, so that steady writers don't keep the transaction open.
        let follow = left.unwrap_or(stored.pending);
        if stored.sequence > applied {
            projection.apply(stored.sequence, &stored.record).await?;
            if let Some(author) = &stored.author {
                let (by, request_id) = (&author.who, author.request_id.as_deref());
                let change = Change { by, request_id, at: stored.at };
                projection.note(stored.sequence, &stored.record, change).await?;
            }
        }
        if follow == 0 || stored.pending == 0 {
            break;
        }
        left = Some(follow - 1);
        stored = reader.next().await?;
    }
    let position = stored.sequence.max(applied);
    projection.commit(position).await?;
    tracing::info!(target_name = %target.name, position, "MODEL applied");
    Ok(position)
}
