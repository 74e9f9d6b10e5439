//! Health and metrics over HTTP: `/healthz` (alive), `/readyz` (nothing held), `/metrics`.

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use domain::Holds;
use metrics_exporter_prometheus::PrometheusBuilder;
pub use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Shared {
    holds: Holds,
    metrics: PrometheusHandle,
}

/// Starts collecting metrics; once a process.
pub fn collect() -> anyhow::Result<PrometheusHandle> {
    PrometheusBuilder::new().install_recorder().map_err(|error| anyhow::anyhow!("metrics: {error}"))
}

/// Serves until shutdown. The caller brings the listener.
pub async fn serve(
    listener: TcpListener,
    holds: Holds,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|State(shared): State<Shared>| async move { shared.metrics.render() }),
        )
        .with_state(Shared { holds, metrics });
    axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// 503 while anything is held, with what and why.
async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let holds = shared.holds.list();
    let status = if holds.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": holds.is_empty(), "holds": holds })))
}
