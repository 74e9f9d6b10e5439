//! The routes, and the page that shows them.

mod access;
mod asset;
mod bulk;
mod custody;
mod device;
mod entity;
mod health;
mod job;
mod letter;
mod moment;
mod poller;
mod replay;
mod simulator;
mod telemetry;
mod value;

use crate::{
    Api,
    openapi::{Document, complete},
    problem::Problem,
    shell,
};
use axum::{
    Router,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{from_fn_with_state, map_response},
    response::Response,
};
use std::time::Duration;
use tower_http::cors::CorsLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

/// How long a browser may rely on what it was told of other origins.
const CORS_AGE: Duration = Duration::from_mins(10);

fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(health::routes())
        .merge(letter::routes())
        .merge(replay::routes())
        .merge(job::routes())
        .merge(custody::routes())
        .merge(bulk::routes())
        .merge(value::routes())
        .merge(entity::routes())
        .merge(device::routes())
        .merge(asset::routes())
        .merge(poller::routes())
        .merge(simulator::routes())
        .merge(telemetry::routes())
        .merge(access::routes())
}

/// The API's description.
pub(crate) fn documented() -> utoipa::openapi::OpenApi {
    complete(router().split_for_parts().1)
}

/// Everything that is served.
pub(crate) fn all(api: Api, cors_origins: &[String]) -> Router {
    let routes = router().split_for_parts().0;
    let docs = Router::new()
        .merge(SwaggerUi::new("/docs").url("/openapi.json", documented()))
        .layer(map_response(of_a_page));
    let routes = routes
        .fallback(|| async { Problem::not_found("route; /docs shows those that there are") })
        .method_not_allowed_fallback(|| async {
            let detail = "the route has no such method; /docs shows those that there are";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .with_state(api.clone())
        .merge(docs)
        .layer(from_fn_with_state(api, shell::around));
    match cors(cors_origins) {
        Some(cors) => routes.layer(cors),
        None => routes,
    }
}

/// The page may load what we serve, and nothing from elsewhere.
async fn of_a_page(mut response: Response) -> Response {
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                  frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|it| it.parse().ok()).collect();
    if origins.is_empty() {
        return None;
    }
    let named = |name: &'static str| axum::http::HeaderName::from_static(name);
    let shown = [
        header::ETAG,
        header::LINK,
        header::RETRY_AFTER,
        shell::REQUEST_ID,
        named("x-next-cursor"),
        named("x-limited-to"),
    ];
    let taken = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_MATCH,
        shell::REQUEST_ID,
        named("x-api-key"),
        named("idempotency-key"),
        named("last-event-id"),
        named("prefer"),
    ];
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(methods)
            .allow_headers(taken)
            .expose_headers(shown)
            .max_age(CORS_AGE),
    )
}
