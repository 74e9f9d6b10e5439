//! What holds for every request: its id, its limits, a panic that stays its own, headers.

use crate::{Api, problem::Problem};
use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use std::{
    any::Any,
    cell::RefCell,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use tracing::Instrument;

/// The header that names a request, in answers and in messages to other services.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("dq-request-id");

tokio::task_local! {
    static ID: String;
    /// What the request has taken up, until it is answered.
    static HELD: RefCell<Vec<Box<dyn Any + Send>>>;
}

/// Keeps something until the request is answered.
pub(crate) fn hold(what: impl Any + Send) {
    // Outside of a request there is nothing to wait for.
    let _ = HELD.try_with(|held| held.borrow_mut().push(Box::new(what)));
}

/// The id of the request that this task works on; empty outside of one.
pub(crate) fn request_id() -> String {
    ID.try_with(Clone::clone).unwrap_or_default()
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn new_id() -> String {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A caller may name its request; what is no UUID gets one of ours.
fn named(request: &Request) -> Option<String> {
    let text = request.headers().get(REQUEST_ID)?.to_str().ok()?;
    let dashes = [8, 13, 18, 23];
    let fits = |(at, byte): (usize, u8)| {
        if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    (text.len() == 36 && text.bytes().enumerate().all(fits)).then(|| text.to_ascii_lowercase())
}

/// Around every route.
pub(crate) async fn around(State(api): State<Api>, request: Request, next: Next) -> Response {
    let id = named(&request).unwrap_or_else(new_id);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", id = %id, %method, path);
    let began = Instant::now();
    let work = HELD.scope(RefCell::default(), limited(&api, request, next));
    let done = ID.scope(id.clone(), work).instrument(span.clone());
    let mut response = done.await;
    let took = began.elapsed();
    let status = response.status();
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ms = took.as_millis(), "answered"));
    let labels = [("status", status.as_str().to_owned())];
    metrics::counter!("haystack_api_requests_total", &labels).increment(1);
    metrics::histogram!("haystack_api_request_seconds").record(took.as_secs_f64());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    secure(headers);
    response
}

async fn limited(api: &Api, request: Request, next: Next) -> Response {
    // Whether it is alive must be told however busy it is.
    let operation = ["/healthz", "/readyz", "/metrics"].contains(&request.uri().path());
    let permit = api.gate.requests.try_acquire();
    if permit.is_err() && !operation {
        return Problem::away("too many requests at once; try again soon")
            .retry_after(Duration::from_secs(1))
            .into_response();
    }
    survived(api.limits.request, next.run(request)).await
}

/// The answer, or what is told instead where there is none in time, or a fault of this program.
async fn survived(limit: Duration, work: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let text = panic_text(&*panic);
            tracing::error!(text, "a fault of this program, please report it");
            let detail = "a fault of this program; the log has more under this request id";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }
        Err(_) => {
            Problem::away("this took too long; it may have been done all the same").into_response()
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}

/// For browsers: nothing of this is a page of somebody else's, and nothing is kept on the way.
fn secure(headers: &mut axum::http::HeaderMap) {
    let set = |headers: &mut axum::http::HeaderMap, name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(headers, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(headers, header::X_FRAME_OPTIONS, "DENY");
    set(headers, header::REFERRER_POLICY, "no-referrer");
    set(headers, header::CACHE_CONTROL, "no-store");
    let policy = "default-src 'none'; frame-ancestors 'none'";
    set(headers, header::CONTENT_SECURITY_POLICY, policy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500_with_the_requests_id_and_nothing_of_its_text() {
        let work = async { panic!("a secret of the inside") };
        let answer = ID.scope("an-id".to_owned(), survived(Duration::from_secs(5), work)).await;
        assert_eq!(answer.status(), 500);
        let body = axum::body::to_bytes(answer.into_body(), 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("an-id") && !text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_a_503() {
        let answer = survived(Duration::from_millis(1), std::future::pending()).await;
        assert_eq!(answer.status(), 503);
    }

    #[test]
    fn an_id_is_a_uuid_and_a_callers_own_counts_where_it_is_one() {
        let id = new_id();
        let request = |id: &str| {
            Request::builder().header(REQUEST_ID, id).body(axum::body::Body::empty()).unwrap()
        };
        assert_eq!(named(&request(&id)), Some(id.clone()));
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert_eq!(named(&request(&id.to_uppercase())), Some(id));
        for no in ["", "x", "00000000-0000-0000-0000-00000000000g", &"0".repeat(36)] {
            assert_eq!(named(&request(no)), None, "{no}");
        }
    }
}
