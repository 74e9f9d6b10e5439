//! Orgs, users, what they may do, and keys.

mod key;
mod org;
mod permission;
mod user;

use crate::{Api, problem::Problem};
use domain::{
    EntityId, OrgId,
    access::{MAX_ENTITIES, Rights},
    model::MAX_NAME,
};
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(org::routes())
        .merge(permission::routes())
        .merge(user::routes())
        .merge(key::routes())
}

fn parsed<T: std::str::FromStr>(pointer: &str, text: &str) -> Result<T, Problem>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| Problem::field(pointer, error.to_string()))
}

fn short(pointer: &str, text: &str) -> Result<(), Problem> {
    if (1..=MAX_NAME).contains(&text.len()) {
        return Ok(());
    }
    Err(Problem::field(pointer, format!("1 to {MAX_NAME} bytes are expected")))
}

/// Rights name entities of their own org, and not too many.
fn of_org(api: &Api, org: OrgId, rights: &Rights) -> Result<(), Problem> {
    if rights.entities.len() > MAX_ENTITIES {
        return Err(Problem::field("/entities", format!("at most {MAX_ENTITIES} are taken")));
    }
    let directory = api.directory.read();
    let strange = |id: &&EntityId| directory.entity(**id).is_none_or(|it| it.org_id != org);
    match rights.entities.keys().find(strange) {
        Some(id) => Err(Problem::field(format!("/entities/{id}"), "no entity of this org")),
        None => Ok(()),
    }
}
