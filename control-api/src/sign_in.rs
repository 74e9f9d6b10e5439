//! Tokens for service accounts of ours: signed in at an issuer, renewed before they end. One client is
//! shared by all that need a token.

use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// A token is renewed so long before it ends.
pub const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// Longest wait for an answer of the issuer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// How an account signs in.
#[derive(Clone)]
pub enum Account {
    /// At a user pool of Amazon Cognito, with `USER_PASSWORD_AUTH`.
    Cognito {
        /// `https://cognito-idp.{region}.amazonaws.com/`
        endpoint: String,
        /// The app client.
        client_id: String,
        /// The account's name.
        username: String,
        /// Its password.
        password: String,
    },
    /// At any issuer, with the client credentials grant (RFC 6749, 4.4).
    ClientCredentials {
        /// The issuer's token endpoint.
        token_url: String,
        /// The client.
        client_id: String,
        /// Its secret.
        client_secret: String,
        /// Scopes, with blanks between them; empty: those that the issuer gives by itself.
        scope: String,
    },
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cognito { endpoint, username, .. } => write!(f, "{username} at {endpoint}"),
            Self::ClientCredentials { token_url, client_id, .. } => {
                write!(f, "{client_id} at {token_url}")
            }
        }
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignInFault {
    /// The issuer does not answer, or not now.
    #[error("the issuer gives no token now: {0}")]
    Away(String),
    /// The issuer does not take the account.
    #[error("the issuer refuses the account: {0}")]
    Refused(String),
}

/// A token that is held.
#[derive(Clone)]
struct Held {
    token: String,
    refresh: Option<String>,
    ends: Instant,
}

/// Gives tokens of one account. Clones share it.
#[derive(Clone)]
pub struct TokenClient {
    http: reqwest::Client,
    account: Arc<Account>,
    /// One signs in, the others wait for what it gets.
    held: Arc<Mutex<Option<Held>>>,
}

impl TokenClient {
    /// A client that has not signed in yet.
    pub fn new(account: Account) -> anyhow::Result<Self> {
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, account: account.into(), held: Arc::default() })
    }

    /// A token that is good for some minutes at least, where the issuer gives one; else the one that is
    /// held, as long as it is good.
    pub async fn token(&self) -> Result<String, SignInFault> {
        let mut held = self.held.lock().await;
        let now = Instant::now();
        if let Some(held) = held.as_ref().filter(|held| now + RENEW_BEFORE < held.ends) {
            return Ok(held.token.clone());
        }
        match self.renewed(held.clone()).await {
            Ok(new) => {
                let token = new.token.clone();
                *held = Some(new);
                Ok(token)
            }
            Err(fault) => match held.as_ref().filter(|held| now < held.ends) {
                Some(held) => {
                    tracing::warn!(%fault, "a token is not renewed; the old one still counts");
                    Ok(held.token.clone())
                }
                None => Err(fault),
            },
        }
    }

    /// By the refresh token where there is one, else, and where that is not taken, by signing in anew.
    async fn renewed(&self, before: Option<Held>) -> Result<Held, SignInFault> {
        if let Some(refresh) = before.and_then(|held| held.refresh) {
            match self.ask(Some(&refresh)).await {
                // An issuer gives no new refresh token where the old one goes on.
                Ok(new) => return Ok(Held { refresh: new.refresh.or(Some(refresh)), ..new }),
                Err(fault) => tracing::info!(%fault, "signing in anew"),
            }
        }
        self.ask(None).await
    }

    async fn ask(&self, refresh: Option<&str>) -> Result<Held, SignInFault> {
        let request = match &*self.account {
            Account::Cognito { endpoint, client_id, username, password } => {
                let (flow, parameters) = if let Some(token) = refresh {
                    ("REFRESH_TOKEN_AUTH", serde_json::json!({ "REFRESH_TOKEN": token }))
                } else {
                    let parameters =
                        serde_json::json!({ "USERNAME": username, "PASSWORD": password });
                    ("USER_PASSWORD_AUTH", parameters)
                };
                let body = Initiate { flow, client_id, parameters };
                let body = serde_json::to_vec(&body).unwrap_or_default();
                self.http
                    .post(endpoint)
                    .header("content-type", "application/x-amz-json-1.1")
                    .header("x-amz-target", "AWSCognitoIdentityProviderService.InitiateAuth")
                    .body(body)
            }
            Account::ClientCredentials { token_url, client_id, client_secret, scope } => {
                let mut form = "grant_type=client_credentials".to_owned();
                if !scope.is_empty() {
                    form = format!("{form}&scope={}", scope.replace(' ', "+"));
                }
                self.http
                    .post(token_url)
                    .basic_auth(client_id, Some(client_secret))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form)
            }
        };
        answer(request).await
    }
}

#[derive(Serialize)]
struct Initiate<'a> {
    #[serde(rename = "AuthFlow")]
    flow: &'a str,
    #[serde(rename = "ClientId")]
    client_id: &'a str,
    #[serde(rename = "AuthParameters")]
    parameters: serde_json::Value,
}

/// What either kind of issuer answers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Cognito {
        #[serde(rename = "AuthenticationResult")]
        result: CognitoResult,
    },
    Standard {
        access_token: String,
        expires_in: u64,
        refresh_token: Option<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CognitoResult {
    access_token: String,
    expires_in: u64,
    refresh_token: Option<String>,
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Held, SignInFault> {
    let asked = Instant::now();
    let away = |error: reqwest::Error| SignInFault::Away(error.without_url().to_string());
    let mut response = request.send().await.map_err(away)?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(away)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(SignInFault::Away(format!("it answers more than {MAX_ANSWER} bytes")));
        }
    }
    if status.is_client_error() && status.as_u16() != 429 {
        return Err(SignInFault::Refused(format!("{status} {}", reason(&body))));
    }
    if !status.is_success() {
        return Err(SignInFault::Away(status.to_string()));
    }
    let read = serde_json::from_slice::<Answer>(&body);
    // Its text may hold a token: nothing of it is shown.
    let read =
        read.map_err(|_| SignInFault::Refused("it wants more than a password".to_owned()))?;
    let (token, seconds, refresh) = match read {
        Answer::Cognito { result } => {
            (result.access_token, result.expires_in, result.refresh_token)
        }
        Answer::Standard { access_token, expires_in, refresh_token } => {
            (access_token, expires_in, refresh_token)
        }
    };
    Ok(Held { token, refresh, ends: asked + Duration::from_secs(seconds) })
}

/// What an issuer says went wrong: its own word for it, and no more.
fn reason(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = body.get("error").or_else(|| body.get("__type")).and_then(|word| word.as_str());
    word.unwrap_or_default().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post,
    };
    use serde_json::{Value, json};
    use std::sync::Mutex as Lock;

    /// An issuer that counts what it is asked, and gives tokens of an hour.
    #[derive(Clone, Default)]
    struct Issuer {
        asked: Arc<Lock<Vec<String>>>,
        refuses: Arc<Lock<Vec<&'static str>>>,
    }

    async fn initiate(State(issuer): State<Issuer>, body: String) -> impl IntoResponse {
        let body: Value = serde_json::from_str(&body).unwrap();
        let flow = body["AuthFlow"].as_str().unwrap().to_owned();
        let mut asked = issuer.asked.lock().unwrap();
        asked.push(flow.clone());
        if issuer.refuses.lock().unwrap().contains(&flow.as_str()) {
            let why = json!({ "__type": "NotAuthorizedException" });
            return (StatusCode::BAD_REQUEST, Json(why));
        }
        let mut result = json!({ "AccessToken": format!("t{}", asked.len()), "ExpiresIn": 3600 });
        if flow == "USER_PASSWORD_AUTH" {
            result["RefreshToken"] = "r".into();
        }
        (StatusCode::OK, Json(json!({ "AuthenticationResult": result })))
    }

    async fn start() -> (Issuer, TokenClient) {
        let issuer = Issuer::default();
        let routes = Router::new().route("/", post(initiate)).with_state(issuer.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let (client_id, username) = ("app".to_owned(), "robot".to_owned());
        let account = Account::Cognito { endpoint, client_id, username, password: "s3cret".into() };
        (issuer, TokenClient::new(account).unwrap())
    }

    /// Lets the token that is held end in so many seconds.
    async fn ends_in(client: &TokenClient, seconds: u64) {
        let ends = Instant::now() + Duration::from_secs(seconds);
        client.held.lock().await.as_mut().unwrap().ends = ends;
    }

    #[tokio::test]
    async fn many_at_once_sign_in_once_and_a_token_is_renewed_before_it_ends() {
        let (issuer, client) = start().await;
        let all = futures_util::future::join_all((0..50).map(|_| client.token())).await;
        assert!(all.iter().all(|token| token.as_deref() == Ok("t1")));
        ends_in(&client, 301).await;
        assert_eq!(client.token().await.unwrap(), "t1");
        ends_in(&client, 299).await;
        assert_eq!(client.token().await.unwrap(), "t2");
        let asked = issuer.asked.lock().unwrap().clone();
        assert_eq!(asked, ["USER_PASSWORD_AUTH", "REFRESH_TOKEN_AUTH"]);
    }

    #[tokio::test]
    async fn a_refresh_that_is_not_taken_is_a_new_sign_in_and_an_issuer_in_trouble_hinders_nobody()
    {
        let (issuer, client) = start().await;
        client.token().await.unwrap();
        issuer.refuses.lock().unwrap().push("REFRESH_TOKEN_AUTH");
        ends_in(&client, 10).await;
        assert_eq!(client.token().await.unwrap(), "t3");
        issuer.refuses.lock().unwrap().push("USER_PASSWORD_AUTH");
        ends_in(&client, 10).await;
        assert_eq!(client.token().await.unwrap(), "t3", "the old one still counts");
        ends_in(&client, 0).await;
        let fault = client.token().await.unwrap_err();
        assert!(fault.to_string().contains("NotAuthorizedException"), "{fault}");
        assert!(!format!("{:?}", client.account).contains("s3cret"));
    }
}
