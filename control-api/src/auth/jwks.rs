//! An issuer's keys: kept while the issuer is away, asked for again where a token names one that is not
//! known, and not more often than that can be of use.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Shortest time between two questions to an issuer.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Keys older than this are asked for again, though they still serve.
const STALE: Duration = Duration::from_hours(1);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// Most keys of one issuer.
const MAX_KEYS: usize = 64;

/// A key, and the one algorithm that it is for.
#[derive(Clone)]
pub(super) struct IssuersKey {
    pub(super) key: Arc<DecodingKey>,
    pub(super) algorithm: Algorithm,
}

/// The keys of one issuer, by `kid`.
pub(super) struct Jwks {
    client: reqwest::Client,
    issuer: String,
    url: Option<String>,
    keys: RwLock<HashMap<String, IssuersKey>>,
    /// When they were asked for last, and when that succeeded last. One asks, the others wait.
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    at: Option<Instant>,
    got: Option<Instant>,
}

impl Jwks {
    pub(super) fn new(client: reqwest::Client, issuer: String, url: Option<String>) -> Self {
        Self { client, issuer, url, keys: RwLock::default(), asked: Mutex::default() }
    }

    /// The key of that name; asks for news where it is not known or old.
    pub(super) async fn key(&self, kid: &str) -> Option<IssuersKey> {
        if let Some(key) = self.known(kid) {
            if self.is_stale() {
                self.ask(kid, false).await;
            }
            return self.known(kid).or(Some(key));
        }
        self.ask(kid, true).await;
        self.known(kid)
    }

    fn known(&self, kid: &str) -> Option<IssuersKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned()
    }

    /// Whether they are old and nobody asks just now.
    fn is_stale(&self) -> bool {
        let asked = self.asked.try_lock();
        asked.is_ok_and(|asked| asked.got.is_some_and(|got| got.elapsed() > STALE))
    }

    async fn ask(&self, kid: &str, missing: bool) {
        let mut asked = self.asked.lock().await;
        // Whoever had the lock before may have brought it.
        if missing && self.known(kid).is_some() {
            return;
        }
        if asked.at.is_some_and(|at| at.elapsed() < ASK_EVERY) {
            return;
        }
        asked.at = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                tracing::info!(issuer = self.issuer, keys = keys.len(), "has new keys");
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
                asked.got = asked.at;
            }
            Err(why) => {
                let issuer = &self.issuer;
                tracing::warn!(issuer, why, "gives no keys; those that are known stay in force");
            }
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, IssuersKey>, String> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let set: JwkSet = self.get(&url).await?;
        let keys = set.keys.iter().take(MAX_KEYS).filter_map(usable);
        Ok(keys.collect())
    }

    async fn discover(&self) -> Result<String, String> {
        #[derive(serde::Deserialize)]
        struct Discovered {
            issuer: String,
            jwks_uri: String,
        }
        let issuer = self.issuer.trim_end_matches('/');
        let found: Discovered =
            self.get(&format!("{issuer}/.well-known/openid-configuration")).await?;
        // OpenID Connect Discovery 1.0, 4.3: it must be the one that was asked for.
        if found.issuer != self.issuer {
            return Err(format!("its discovery document is of {}", found.issuer));
        }
        Ok(found.jwks_uri)
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let told = |error: reqwest::Error| error.without_url().to_string();
        let request = self.client.get(url).timeout(ANSWER);
        let mut response =
            request.send().await.and_then(reqwest::Response::error_for_status).map_err(told)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(told)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err(format!("more than {MAX_ANSWER} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}

/// A key that signs, with the algorithm that its kind and its own word say; others are left out.
fn usable(jwk: &Jwk) -> Option<(String, IssuersKey)> {
    if jwk.common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != named) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((jwk.common.key_id.clone()?, IssuersKey { key: key.into(), algorithm }))
}
