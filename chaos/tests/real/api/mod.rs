//! The control API over real sockets: who may do what, what a yes is worth, and what happens when
//! something behind it is away.

mod access;
mod bulk;
mod devices;
pub mod jobs;
mod killed;
mod model;
mod outages;
mod schema;
mod simulators;
mod tenancy;
mod tokens;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use testkit::{Platform, Process, eventually};

/// A running API and a way to talk to it.
pub struct Api {
    pub process: Process,
    pub port: u16,
    pub admin: String,
    pub client: Client,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub etag: Option<String>,
    pub retry_after: Option<u64>,
    pub next: Option<String>,
    pub request_id: String,
}

impl Answer {
    async fn of(response: Response) -> Self {
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let (etag, next) = (header("etag"), header("x-next-cursor"));
        let retry_after = header("retry-after").map(|text| text.parse().unwrap());
        let request_id = header("dq-request-id").unwrap_or_default();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, body, etag, retry_after, next, request_id }
    }

    /// Whether it says what an error of ours must say.
    pub fn is_problem(&self) -> bool {
        let body = &self.body;
        body["status"] == self.status
            && body["title"].is_string()
            && body["detail"].is_string()
            && body["request_id"] == self.request_id.as_str()
    }

    pub fn number(&self, field: &str) -> i32 {
        self.body[field].as_i64().unwrap_or_else(|| panic!("no {field} in {self:?}")) as i32
    }
}

impl Api {
    /// Starts it, and waits until it is ready.
    pub async fn start(platform: &Platform) -> Self {
        Self::start_with(platform, &[]).await
    }

    /// The same with settings (`key=value`).
    pub async fn start_with(platform: &Platform, settings: &[&str]) -> Self {
        let api = Self::launch(platform, settings);
        api.ready().await;
        api
    }

    pub fn launch(platform: &Platform, settings: &[&str]) -> Self {
        let port = local::port::free(&[]).unwrap();
        let mut all = vec![format!("api.http=127.0.0.1:{port}")];
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        let process = platform.instance_with("control-api", "api-1", &all);
        // Whoever made a choice before us has made the same.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        // Proxies of the environment are nobody's business here.
        let client = Client::builder().no_proxy().build().unwrap();
        Self { process, port, admin: platform.admin_key(), client }
    }

    pub async fn ready(&self) {
        eventually("the API is ready", || async {
            let url = format!("http://127.0.0.1:{}/readyz", self.port);
            let answer = self.client.get(url).send().await.map_err(|error| error.to_string())?;
            if answer.status() == StatusCode::OK {
                Ok(())
            } else {
                Err(answer.text().await.unwrap_or_default())
            }
        })
        .await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// A request with a key; none: an anonymous one.
    pub fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        if key.is_empty() { request } else { request.header("x-api-key", key) }
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        Answer::of(request.send().await.unwrap()).await
    }

    /// As the admin.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, &self.admin)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, &self.admin).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path, &self.admin).json(body)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path, &self.admin)).await
    }

    /// Makes an org; its number.
    pub async fn org(&self, key: &str) -> i32 {
        let made = self.post("/org", &json!({ "org_key": key })).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.number("org_id")
    }

    /// Makes a point; its number.
    pub async fn point(&self, org: i32, kind: &str) -> i32 {
        let tags = json!({ "point": "M", "kind": kind });
        let made = self.post("/entity", &json!({ "org_id": org, "name": "p", "tags": tags })).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.number("entity_id")
    }

    /// Makes a key for an org.
    pub async fn key(&self, org: i32, permissions: &[&str]) -> String {
        let body = json!({ "name": "k", "org_id": org, "permissions": permissions });
        let made = self.post("/key", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.body["key"].as_str().unwrap().to_owned()
    }
}

impl Api {
    /// A dead letter of org 1: a message of its device that says nothing that is mapped.
    pub async fn letter(&self, name: &str) -> i64 {
        let body = json!({ "ts": "2026-01-01T00:00:00Z", name: 1 });
        let sent = self.post("/api/v1/telemetry?device_id=TS-001-2024", &body).await;
        assert_eq!(sent.status, 202, "{sent:?}");
        eventually("the letter", || async {
            let all = self.get("/dead-letter?org_id=1&reason=nothing_mapped&limit=1000").await;
            let last = all.body.as_array().and_then(|all| all.last()?["number"].as_i64());
            last.ok_or_else(|| format!("{all:?}"))
        })
        .await
    }
}

/// A value for `/bulk/value`.
pub fn number(entity: i32, ts: &str, n: f64) -> Value {
    json!({ "ts": ts, "entity_id": entity, "value_n": n })
}
