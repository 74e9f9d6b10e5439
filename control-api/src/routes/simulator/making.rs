//! Making a simulator: under a name that nobody else has, and to the end.

use crate::{Api, caller::Caller, model, problem::Problem};
use domain::{
    OrgId, SimulatorId,
    model::{Poller, REMOVED, SIMULATOR, Wanted},
};
use nats::registry::{RegistryFault, add_poller_as};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};
use tokio::task::JoinError;
use tracing::Instrument;

/// Registers it, though the caller goes away meanwhile: a large building has many entities, and half of
/// them would be of no use. Gives the revision.
pub(super) async fn register(
    api: &Api,
    caller: &Caller,
    poller: Poller,
    wanted: Vec<Wanted>,
    making: Making,
) -> Result<u64, Problem> {
    let (wire, mut directory) = (model::wire(api, caller), api.directory.clone());
    let work = async move {
        let (revision, _) = add_poller_as(&wire, poller, &wanted).await?;
        while directory.read().sequence() < revision && directory.changed().await {}
        drop(making);
        Ok(revision)
    };
    let done: Result<_, RegistryFault> = joined(tokio::spawn(work.in_current_span()).await)?;
    Ok(done?)
}

/// What a task came to; its panic is the request's.
pub(super) fn joined<T>(done: Result<T, JoinError>) -> Result<T, Problem> {
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Problem::away("the API is stopping"),
    })
}

/// Names of simulators that are being made here: the directory does not know them yet.
static MAKING: Mutex<BTreeSet<(i32, String)>> = Mutex::new(BTreeSet::new());

/// A simulator that is being made, until it is dropped.
pub(super) struct Making(i32, String);

impl Making {
    /// `before`: the number under which this request may have made it already.
    pub(super) fn begin(
        api: &Api,
        org: OrgId,
        name: &str,
        before: Option<SimulatorId>,
    ) -> Result<Self, Problem> {
        let names = || MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if !names().insert((org.0, name.to_owned())) {
            let detail = "a simulator of this name is being made at this moment; look again";
            return Err(Problem::away(detail));
        }
        let making = Self(org.0, name.to_owned());
        free_name(api, org, name, before)?;
        Ok(making)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut names = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        names.remove(&(self.0, std::mem::take(&mut self.1)));
    }
}

/// A name that people can tell from those of the org's other simulators.
pub(in crate::routes) fn free_name(
    api: &Api,
    org: OrgId,
    name: &str,
    except: Option<SimulatorId>,
) -> Result<(), Problem> {
    let pollers = api.directory.read().pollers();
    let same = pollers.iter().find(|it| {
        it.org_id == org
            && it.poller_type == SIMULATOR
            && it.status != REMOVED
            && it.name == name
            && Some(it.id) != except
    });
    match same {
        None => Ok(()),
        Some(it) => {
            let detail = format!("simulator {} of this org is called {name:?} already", it.id);
            Err(Problem::conflict(detail))
        }
    }
}
