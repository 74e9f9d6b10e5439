//! What the API offers, as `OpenAPI` 3.1: made from the routes themselves.

mod complete;

pub(crate) use complete::complete;

use crate::problem::{FieldProblem, Told};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Haystack Platform",
        description = "Entities, values, devices and simulators of buildings.\n\n\
            **Sign in** with a key (`X-API-Key: hsk_…`, or as a bearer) or with a token of an issuer \
            that is configured. `haystack up` says where the first admin's key lies.\n\n\
            **Times** are RFC 3339; one without an offset is UTC. **Errors** are \
            `application/problem+json` (RFC 9457). Every answer bears `dq-request-id`, which is in every \
            line of the log about it. **Lists** come in pages: go on with `x-next-cursor`. **Changes** of \
            what has an `ETag` take `If-Match`, and answer when the primary database has applied them."
    ),
    components(schemas(Told, FieldProblem)),
    modifiers(&Secured),
    tags(
        (name = "values", description = "Values of entities: written, read, thinned out"),
        (name = "model", description = "Entities, tags, devices, assets"),
        (name = "simulators", description = "Simulated buildings and other pollers"),
        (name = "devices", description = "Telemetry of devices that speak HTTP"),
        (name = "access", description = "Orgs, users, permissions, keys"),
        (name = "operations", description = "Health and metrics; open to everybody who gets here"),
    )
)]
pub(crate) struct Document;

/// The ways to sign in.
struct Secured;

impl Modify for Secured {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let key = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
        let bearer = Http::new(HttpAuthScheme::Bearer);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// The document as it is served at `/openapi.json` and committed beside this room.
pub fn document() -> String {
    let document = crate::routes::documented();
    let mut text = document.to_pretty_json().expect("a document can be written");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let committed = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            committed == super::document(),
            "control-api/openapi.json is stale; look at what changed and renew it:\n\n    \
             cargo run -p haystack-cli -- control-api --openapi > control-api/openapi.json\n"
        );
    }
}
