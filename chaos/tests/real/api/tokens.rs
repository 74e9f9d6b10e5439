//! Tokens of an issuer: good ones, forged ones, keys that change, an issuer that is away.

use super::Api;
use axum::{Json, Router, extract::State, routing::get};
use domain::{Clock, SystemClock};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};
use std::{
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use testkit::{Platform, eventually};
use tokio::{net::TcpListener, task::JoinHandle};

/// Keys of the issuer, as it publishes them, and how often it was asked.
#[derive(Clone, Default)]
struct Published {
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

struct Issuer {
    published: Published,
    port: u16,
    url: String,
    serving: Option<JoinHandle<()>>,
}

async fn jwks(State(published): State<Published>) -> Json<Value> {
    published.asked.fetch_add(1, Ordering::SeqCst);
    let keys = published.keys.lock().unwrap().clone();
    Json(json!({ "keys": keys }))
}

impl Issuer {
    async fn start() -> Self {
        let port = local::port::free(&[]).unwrap();
        let url = format!("http://127.0.0.1:{port}/pool");
        let mut issuer = Self { published: Published::default(), port, url, serving: None };
        issuer.serve().await;
        issuer
    }

    async fn serve(&mut self) {
        let url = self.url.clone();
        let discovery = move || async move {
            Json(json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }))
        };
        let routes = Router::new()
            .route("/pool/.well-known/openid-configuration", get(discovery))
            .route("/pool/keys", get(jwks))
            .with_state(self.published.clone());
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.serving =
            Some(tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() }));
    }

    fn stop(&mut self) {
        self.serving.take().unwrap().abort();
    }

    fn publish(&self, keys: &[&Signer]) {
        *self.published.keys.lock().unwrap() = keys.iter().map(|key| key.jwk.clone()).collect();
    }

    fn settings(&self) -> Vec<String> {
        vec![
            format!("auth.issuers.test.issuer={}", self.url),
            "auth.issuers.test.audiences=[app]".to_owned(),
            "auth.issuers.test.device_claim=device_id".to_owned(),
        ]
    }

    fn claims(&self) -> Value {
        let now = SystemClock.now().micros() / 1_000_000;
        json!({ "iss": self.url, "sub": "ada", "aud": "app", "token_use": "id",
            "iat": now, "exp": now + 300 })
    }
}

/// A key that signs.
struct Signer {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
    /// The public key as PEM.
    public: String,
}

fn openssl(arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Signer {
    fn new(kid: &str, algorithm: Algorithm) -> Self {
        let made: &[&str] = match algorithm {
            Algorithm::RS256 => {
                &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
            }
            _ => &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        };
        let private = openssl(made, "");
        let key = match algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(private.as_bytes()),
            _ => EncodingKey::from_ec_pem(private.as_bytes()),
        }
        .unwrap();
        let public = openssl(&["pkey", "-pubout"], &private);
        let mut jwk = serde_json::to_value(
            jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap(),
        )
        .unwrap();
        jwk["kid"] = kid.into();
        jwk["use"] = "sig".into();
        Self { kid: kid.to_owned(), algorithm, key, jwk, public }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }
}

async fn with_token(api: &Api, path: &str, token: &str) -> u16 {
    let request = api.request(Method::GET, path, "").bearer_auth(token);
    api.send(request).await.status
}

async fn start(platform: &Platform, issuer: &Issuer) -> Api {
    let settings = issuer.settings();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let api = Api::start_with(platform, &settings).await;
    let user = json!({ "name": "Ada", "issuer": issuer.url, "subject": "ada" });
    assert_eq!(api.post("/user", &user).await.status, 201);
    api
}

fn changed(mut claims: Value, field: &str, value: Value) -> Value {
    claims[field] = value;
    claims
}

#[tokio::test]
async fn good_tokens_are_let_in_and_forged_ones_are_not() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let issuer = Issuer::start().await;
    let (rsa, elliptic) =
        (Signer::new("rsa", Algorithm::RS256), Signer::new("ec", Algorithm::ES256));
    issuer.publish(&[&rsa, &elliptic]);
    let api = start(&platform, &issuer).await;
    let claims = issuer.claims();
    let access = json!({ "iss": issuer.url, "sub": "ada", "client_id": "app", "token_use": "access",
        "exp": claims["exp"] });
    for token in [rsa.sign(&claims), elliptic.sign(&claims), rsa.sign(&access)] {
        assert_eq!(with_token(&api, "/me", &token).await, 200);
    }
    let now = claims["iat"].as_i64().unwrap();
    let stranger = Signer::new("rsa", Algorithm::RS256);
    let body = |claims: &Value| rsa.sign(claims).split('.').nth(1).unwrap().to_owned();
    // The public key as the secret of a symmetric algorithm.
    let confused = encode(
        &Header { kid: Some("rsa".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims,
        &EncodingKey::from_secret(rsa.public.as_bytes()),
    )
    .unwrap();
    // {"alg":"none","kid":"rsa"}
    let unsigned = format!("eyJhbGciOiJub25lIiwia2lkIjoicnNhIn0.{}.", body(&claims));
    // Of a kind that asks to be understood, and is not.
    let critical = Header {
        kid: Some("rsa".to_owned()),
        crit: Some(vec!["exp".to_owned()]),
        ..Header::new(Algorithm::RS256)
    };
    let critical = encode(&critical, &claims, &rsa.key).unwrap();
    let good = rsa.sign(&claims);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let forged = [
        confused,
        critical,
        unsigned,
        stranger.sign(&claims),
        Signer { kid: "ec".to_owned(), ..Signer::new("x", Algorithm::RS256) }.sign(&claims),
        rsa.sign(&changed(claims.clone(), "iss", json!("https://elsewhere.test"))),
        rsa.sign(&changed(claims.clone(), "aud", json!("other"))),
        rsa.sign(&changed(claims.clone(), "token_use", json!("access"))),
        rsa.sign(&changed(claims.clone(), "token_use", json!("refresh"))),
        rsa.sign(&changed(claims.clone(), "exp", json!(now - 120))),
        rsa.sign(&changed(claims.clone(), "nbf", json!(now + 120))),
        rsa.sign(&changed(claims.clone(), "exp", Value::Null)),
        format!("{signed}."),
        format!("{signed}.AAAA"),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ];
    for (number, token) in forged.iter().enumerate() {
        let status = with_token(&api, "/me", token).await;
        assert!([401, 431].contains(&status), "forged token {number}: {status}");
    }
    // Within the leeway of a minute.
    let late = changed(claims.clone(), "exp", json!(now - 30));
    assert_eq!(with_token(&api, "/me", &rsa.sign(&late)).await, 200);
    // Good, and nobody here.
    let nobody = changed(claims, "sub", json!("eve"));
    assert_eq!(with_token(&api, "/me", &rsa.sign(&nobody)).await, 403);
}

#[tokio::test]
async fn new_keys_are_found_old_ones_go_and_an_issuer_that_is_away_hinders_nobody() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let mut issuer = Issuer::start().await;
    let (first, second) = (Signer::new("1", Algorithm::ES256), Signer::new("2", Algorithm::ES256));
    issuer.publish(&[&first]);
    let api = start(&platform, &issuer).await;
    let claims = issuer.claims();
    assert_eq!(with_token(&api, "/me", &first.sign(&claims)).await, 200);
    issuer.stop();
    assert_eq!(with_token(&api, "/me", &first.sign(&claims)).await, 200, "its keys are known");
    issuer.serve().await;
    issuer.publish(&[&second]);
    eventually("the new key is found, and the old one is gone", || async {
        let new = with_token(&api, "/me", &second.sign(&claims)).await;
        let old = with_token(&api, "/me", &first.sign(&claims)).await;
        if (new, old) == (200, 401) { Ok(()) } else { Err(format!("{new} {old}")) }
    })
    .await;
    // A storm of names that nobody has asks the issuer a few times, not once each.
    let before = issuer.published.asked.load(Ordering::SeqCst);
    let storm = (0..200).map(|number| {
        let stranger = Signer { kid: format!("k{number}"), ..clone(&second) };
        let token = stranger.sign(&claims);
        let api = &api;
        async move { with_token(api, "/me", &token).await }
    });
    let statuses = futures_util::future::join_all(storm).await;
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    let asked = issuer.published.asked.load(Ordering::SeqCst) - before;
    assert!(asked <= 2, "asked {asked} times");
}

fn clone(signer: &Signer) -> Signer {
    let Signer { kid, algorithm, key, jwk, public } = signer;
    Signer {
        kid: kid.clone(),
        algorithm: *algorithm,
        key: key.clone(),
        jwk: jwk.clone(),
        public: public.clone(),
    }
}

#[tokio::test]
async fn what_a_user_may_do_counts_at_once_and_a_device_is_a_device() {
    let platform = Platform::start("").await;
    let _ingest = platform.service("ingest");
    let issuer = Issuer::start().await;
    let signer = Signer::new("1", Algorithm::ES256);
    issuer.publish(&[&signer]);
    let api = start(&platform, &issuer).await;
    let point = api.point(1, "Number").await;
    let (entity, token) = (format!("/entity/{point}"), signer.sign(&issuer.claims()));
    assert_eq!(with_token(&api, &entity, &token).await, 404);
    let grant = |permissions: Value, entities: Value| {
        let body = json!({ "user_id": 1, "permissions": permissions, "entities": entities });
        let api = &api;
        async move { api.post("/org/1/permission", &body).await }
    };
    let one = json!({ point.to_string(): ["read"] });
    assert_eq!(grant(json!([]), one).await.status, 200);
    assert_eq!(with_token(&api, &entity, &token).await, 200);
    let listed = api.request(Method::GET, "/entity", "").bearer_auth(&token);
    let listed = api.send(listed).await;
    assert_eq!(listed.body.as_array().unwrap().len(), 1, "the one entity: {listed:?}");
    assert_eq!(grant(json!(["read"]), json!({})).await.status, 200);
    assert_eq!(with_token(&api, "/entity/1", &token).await, 200);
    assert_eq!(api.delete("/org/1/permission/1").await.status, 204);
    assert_eq!(with_token(&api, &entity, &token).await, 404);
    let device = changed(issuer.claims(), "device_id", json!("TS-001-2024"));
    let token = signer.sign(&device);
    assert_eq!(with_token(&api, &entity, &token).await, 404);
    let sent = api.request(Method::POST, "/api/v1/telemetry", "").bearer_auth(&token);
    let sent =
        api.send(sent.json(&json!({ "ts": "2026-01-01T00:00:00Z", "temperature": 1.5 }))).await;
    assert_eq!(sent.status, 202, "{sent:?}");
}
