//! Simulators. What a simulator is to be stands in `MODEL`; what it does, its owner is asked: a service
//! that has its lease. The API itself writes nothing of a simulator's state.

mod activity;
mod ask;
mod config;
mod draft;
mod health;
mod making;
mod order;
mod stream;

pub(super) use making::free_name;

use crate::{Api, caller::Caller, problem::Problem};
use domain::{
    SimulatorId,
    access::Permission,
    model::{Poller, REMOVED, SIMULATOR},
};
use std::sync::Arc;
use store::Database;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(config::list_simulators, config::create_simulator))
        .routes(routes!(config::show_simulator, config::replace_simulator))
        .routes(routes!(order::show_simulator_state, order::edit_simulator_state))
        .routes(routes!(order::start_simulator))
        .routes(routes!(order::stop_simulator))
        .routes(routes!(order::reset_simulator))
        .routes(routes!(health::simulator_health))
        .routes(routes!(health::simulator_metrics))
        .routes(routes!(activity::list_activities, activity::add_activity))
        .routes(routes!(stream::follow_activities))
}

/// The simulator, where the caller may do that with it. One that was removed for good is not there.
fn simulator(
    api: &Api,
    caller: &Caller,
    id: i32,
    permission: Permission,
) -> Result<Arc<Poller>, Problem> {
    let found = api.directory.read().poller(SimulatorId(id)).cloned();
    let there = |poller: &Arc<Poller>| poller.poller_type == SIMULATOR && poller.status != REMOVED;
    let poller = found.filter(there).ok_or_else(|| Problem::not_found("simulator"))?;
    caller.require(poller.org_id, permission, "simulator")?;
    Ok(poller)
}

/// The database of what simulators did.
fn log(api: &Api) -> Result<&Database, Problem> {
    let none = || Problem::away("no database of simulators' state is configured (`state.url`)");
    api.state.as_ref().ok_or_else(none)
}

/// What a caller is told where that database fails.
fn log_away(fault: &store::Fault) -> Problem {
    tracing::warn!(%fault, "the state database did not answer a caller");
    Problem::away("the state database does not answer; `haystack status` says why")
}
