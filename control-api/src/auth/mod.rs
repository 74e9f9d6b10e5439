//! From headers to a caller: a key of ours, or a token of an issuer that is configured.

mod jwks;
mod token;

pub(crate) use token::Tokens;

use crate::{
    Api,
    caller::{Caller, May, Who},
    problem::Problem,
};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use domain::access::{KeyToken, Scope};
use std::collections::BTreeMap;
use token::Known;

/// The header of a key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What every key begins with.
const KEY_PREFIX: &str = "hsk_";

fn unauthorized(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
}

/// Who calls.
pub(crate) async fn caller(headers: &HeaderMap, api: &Api) -> Result<Caller, Problem> {
    let text = credential(headers)?;
    if text.starts_with(KEY_PREFIX) {
        return by_key(text, api);
    }
    let known = api.tokens.verify(text).await?;
    by_token(known, api)
}

/// The one credential that a request bears.
fn credential(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut keys = headers.get_all(API_KEY).iter();
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter();
    let none = "sign in: X-API-Key: <key>, or Authorization: Bearer <token or key>";
    match (keys.next(), bearers.next(), keys.next().or(bearers.next())) {
        (Some(key), None, None) => {
            let key = key.to_str().ok().filter(|key| key.starts_with(KEY_PREFIX));
            key.ok_or_else(|| {
                unauthorized(
                    "X-API-Key: this is no key: one begins with hsk_; `haystack key add` makes one",
                )
            })
        }
        (None, Some(bearer), None) => {
            let text = bearer.to_str().unwrap_or_default();
            let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
            let token = token.trim();
            let bearer = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty();
            bearer.then_some(token).ok_or_else(|| unauthorized(none))
        }
        (None, None, _) => Err(unauthorized(none)),
        _ => Err(unauthorized("one credential is expected, not two")),
    }
}

/// One answer for every key that opens nothing, whatever the reason.
fn by_key(text: &str, api: &Api) -> Result<Caller, Problem> {
    let refused = || unauthorized("this key opens nothing: it is unknown, revoked or expired");
    let token = KeyToken::parse(text).ok_or_else(refused)?;
    let key = api.directory.read().key(&token.id).cloned().ok_or_else(refused)?;
    if !key.hash.is_of(&token) || !key.is_live(api.clock.now()) {
        return Err(refused());
    }
    let may = match &key.scope {
        Scope::Platform => May::All,
        Scope::Org { org_id, rights, .. } => May::Orgs(BTreeMap::from([(*org_id, rights.clone())])),
        Scope::Device { org, device, .. } => May::Device(org.clone(), device.clone()),
    };
    Ok(Caller { who: Who::Key(key.id.clone()), name: key.name.clone(), may })
}

fn by_token(known: Known, api: &Api) -> Result<Caller, Problem> {
    let directory = api.directory.read();
    match known {
        Known::Device(device) => {
            let found = directory.device(&device);
            let found = found.ok_or_else(|| Problem::forbidden("this device is not registered"))?;
            let may = May::Device(found.org.clone(), device.clone());
            Ok(Caller { who: Who::Device(device), name: String::new(), may })
        }
        Known::User { issuer, subject } => {
            let user = directory.signed_in(&issuer, &subject).filter(|user| user.active);
            let user = user.ok_or_else(|| {
                Problem::forbidden(format!(
                    "the token is good, and its subject {subject:?} is no user here; an admin adds one"
                ))
            })?;
            let may = if user.platform_admin {
                May::All
            } else {
                let grants = directory.grants(user.id);
                May::Orgs(grants.map(|grant| (grant.org_id, grant.rights.clone())).collect())
            };
            Ok(Caller { who: Who::User(user.id), name: user.name.clone(), may })
        }
    }
}
