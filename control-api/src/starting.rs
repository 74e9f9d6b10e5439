//! What is answered before anything can be: that the process is alive, and what it waits for.

use crate::problem::Problem;
use axum::{Json, Router, http::StatusCode, routing::get};
use domain::Holds;
use nats::CancellationToken;
use serde_json::json;
use tokio::net::TcpListener;

/// Answers until `opened`; then the listener's other half takes over.
pub async fn serve(listener: TcpListener, holds: Holds, opened: CancellationToken) {
    let ready = move || async move {
        let body = json!({ "ready": false, "dependencies": {}, "lag": {}, "holds": holds.list() });
        (StatusCode::SERVICE_UNAVAILABLE, Json(body))
    };
    let routes = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { Problem::away("the API is starting; try again soon") });
    let served = axum::serve(listener, routes).with_graceful_shutdown(opened.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "nothing is answered while the API starts");
    }
}
