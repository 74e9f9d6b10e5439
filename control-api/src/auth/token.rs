//! Tokens (JWT, RFC 7519) of the issuers that are configured.

use super::{jwks::Jwks, unauthorized};
use crate::problem::Problem;
use domain::DeviceId;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};
use service::config::{Auth, Issuer};
use std::{sync::Arc, time::Duration};

/// How far an issuer's clock may be from ours, in seconds.
const LEEWAY: u64 = 60;
/// Longest token, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 256;
/// How long a connection to an issuer may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Whom a token is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Somebody who signed in at an issuer.
    User { issuer: String, subject: String },
    /// A device.
    Device(DeviceId),
}

/// The issuers whose tokens count.
pub(crate) struct Tokens(Vec<Trusted>);

struct Trusted {
    settings: Issuer,
    jwks: Arc<Jwks>,
}

/// What is read of a token before its signature was looked at: who says that it made it.
#[derive(Deserialize)]
struct Unverified {
    iss: Option<String>,
}

/// What is read of it afterwards.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    aud: Option<OneOrMany>,
    client_id: Option<String>,
    token_use: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn names_one_of(&self, wanted: &[String]) -> bool {
        match self {
            Self::One(one) => wanted.contains(one),
            Self::Many(many) => many.iter().any(|one| wanted.contains(one)),
        }
    }
}

fn refused() -> Problem {
    unauthorized("this token is not good here: its issuer, signature, audience or time is wrong")
}

impl Tokens {
    pub(crate) fn new(auth: &Auth) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let trusted = auth.issuers.values().map(|settings| {
            let (issuer, url) = (settings.issuer.clone(), settings.jwks_url.clone());
            let jwks = Jwks::new(client.clone(), issuer, url).into();
            Trusted { settings: settings.clone(), jwks }
        });
        Ok(Self(trusted.collect()))
    }

    /// Whom a token is about, where it is good. One answer for all that are not.
    pub(crate) async fn verify(&self, token: &str) -> Result<Known, Problem> {
        if self.0.is_empty() {
            return Err(unauthorized(
                "tokens are not taken here: no issuer is configured (auth.issuers); use a key",
            ));
        }
        if token.len() > MAX_TOKEN {
            return Err(refused());
        }
        let header = decode_header(token).map_err(|_| refused())?;
        // What it says must be understood (RFC 7515, 4.1.11), and there is nothing of that kind that is.
        if header.crit.is_some() {
            return Err(refused());
        }
        let kid = header.kid.filter(|kid| kid.len() <= MAX_KID).ok_or_else(refused)?;
        let trusted = self.issuer(token).ok_or_else(refused)?;
        let known = trusted.jwks.key(&kid).await.ok_or_else(refused)?;
        // The algorithm is the key's, whatever the token says of itself.
        let mut validation = Validation::new(known.algorithm);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        // Looked at below: where it stands depends on the kind of token.
        validation.validate_aud = false;
        validation.set_issuer(&[&trusted.settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        let verified = decode::<Claims>(token, &known.key, &validation);
        let claims = verified.map_err(|_| refused())?.claims;
        about(claims, &trusted.settings).ok_or_else(refused)
    }

    fn issuer(&self, token: &str) -> Option<&Trusted> {
        let unverified = jsonwebtoken::dangerous::insecure_decode::<Unverified>(token).ok()?;
        let iss = unverified.claims.iss?;
        self.0.iter().find(|trusted| trusted.settings.issuer == iss)
    }
}

/// Whom claims are about, where they are made for us. An access token of Cognito names in `client_id`
/// for whom it was made, an identity token and everybody else's in `aud`.
fn about(claims: Claims, settings: &Issuer) -> Option<Known> {
    let wanted = &settings.audiences;
    let by_audience = || claims.aud.as_ref().is_some_and(|aud| aud.names_one_of(wanted));
    let for_us = match claims.token_use.as_deref() {
        Some("access") => claims.client_id.as_ref().is_some_and(|id| wanted.contains(id)),
        Some("id") | None => by_audience(),
        Some(_) => false,
    };
    if !for_us {
        return None;
    }
    if let Some(claim) = &settings.device_claim
        && let Some(device) = claims.others.get(claim)
    {
        return DeviceId::parse(device.as_str()?).ok().map(Known::Device);
    }
    let subject = claims.sub.filter(|subject| !subject.is_empty())?;
    Some(Known::User { issuer: settings.issuer.clone(), subject })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(claims: Value) -> Option<Known> {
        let settings = Issuer {
            issuer: "https://issuer.test".to_owned(),
            audiences: vec!["app".to_owned()],
            jwks_url: None,
            device_claim: Some("device".to_owned()),
        };
        about(serde_json::from_value(claims).unwrap(), &settings)
    }

    #[test]
    fn a_token_must_be_made_for_us() {
        let good = [
            json!({"sub": "a", "aud": "app"}),
            json!({"sub": "a", "aud": ["x", "app"]}),
            json!({"sub": "a", "aud": "app", "token_use": "id"}),
            json!({"sub": "a", "client_id": "app", "token_use": "access"}),
        ];
        for claims in good {
            assert!(matches!(read(claims), Some(Known::User { .. })));
        }
        let bad = [
            json!({"sub": "a"}),
            json!({"sub": "a", "aud": "other"}),
            json!({"sub": "a", "aud": "app", "token_use": "access"}),
            json!({"sub": "a", "client_id": "app", "token_use": "id"}),
            json!({"sub": "a", "client_id": "app"}),
            json!({"sub": "a", "aud": "app", "token_use": "refresh"}),
            json!({"sub": "", "aud": "app"}),
            json!({"aud": "app"}),
            json!({"aud": "app", "sub": "a", "device": "not a name"}),
            json!({"aud": "app", "sub": "a", "device": 7}),
        ];
        for claims in bad {
            assert_eq!(read(claims.clone()), None, "{claims}");
        }
        let device = read(json!({"aud": "app", "device": "TS-1"}));
        assert_eq!(device, Some(Known::Device("TS-1".parse().unwrap())));
    }
}
