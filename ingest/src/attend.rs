//! A target's place in the register: nothing is written before it stands there, so that the streams wait for
//! it, and nothing after it was let go.

use crate::{begin, target::Target};
use domain::{Clock, SystemClock};
use nats::{
    retry::Pauses,
    targets::{self, Registered},
};
use service::Lifecycle;
use std::{sync::Arc, time::Duration};
use store::connect::BadLogin;

/// How often it is looked whether a target was let go, or taken back.
const LOOK: Duration = Duration::from_secs(5);

/// Attends to a target until the process is to stop. `target` was opened for its name and settings, and is
/// opened again for each time it is attached.
pub(crate) async fn run(
    lifecycle: Lifecycle,
    target: Target,
    open: impl Fn(&Lifecycle) -> Result<Target, BadLogin>,
    archives: bool,
) {
    while let Some(()) = registered(&target, archives).await {
        let part = lifecycle.part();
        let Ok(attached) = open(&part) else { return };
        begin(&Arc::new(attached), archives, &part);
        if detached(&target).await.is_none() {
            return;
        }
        tracing::warn!(target = %target.name, "let go: nothing more is written there");
        part.shutdown.cancel();
        // What waited for it waits no more.
        let of = format!("{}/", target.name);
        for hold in target.holds.list().into_iter().filter(|hold| hold.what.starts_with(&of)) {
            target.holds.release(&hold.what);
        }
    }
}

/// Waits until the target stands in the register and is not detached; `None`: stopping.
async fn registered(target: &Target, archives: bool) -> Option<()> {
    let patience = target.patience("register");
    let mut pauses = Pauses::default();
    loop {
        let now = SystemClock.now();
        match targets::register(&target.wire, &target.name, archives, now).await {
            Ok(Registered { detached: None, .. }) => {
                patience.moving();
                return Some(());
            }
            Ok(Registered { detached: Some(detached), .. }) => {
                let name = &target.name;
                let why = format!(
                    "detached at {} by {}: take it out of the configuration, or take it back with \
                     `haystack targets attach {name}`",
                    detached.at, detached.by
                );
                patience.holds.hold(&patience.what, &why, now);
                tokio::select! {
                    () = target.shutdown.cancelled() => return None,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
            Err(fault) => {
                patience.pause(&mut pauses, &fault.to_string()).await.then_some(())?;
            }
        }
    }
}

/// Waits until the target was let go; `None`: stopping.
async fn detached(target: &Target) -> Option<()> {
    loop {
        tokio::select! {
            () = target.shutdown.cancelled() => return None,
            () = tokio::time::sleep(LOOK) => {}
        }
        // While it can't be read, all stays as it is.
        let Ok(register) = targets::list(&target.wire).await else { continue };
        if register.get(&target.name).is_none_or(|entry| entry.detached.is_some()) {
            return Some(());
        }
    }
}
