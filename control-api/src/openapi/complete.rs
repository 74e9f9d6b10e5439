//! What holds for every operation is said once: the answers that any of them may give, the headers that
//! answers bear, and how to sign in.

use crate::problem::MEDIA_TYPE;
use std::collections::BTreeMap;
use utoipa::openapi::{
    self, Components, Content, Header, Object, ObjectBuilder, PathItem, Ref, RefOr, Response,
    ResponseBuilder, Schema, SchemaFormat, Type,
    path::{Operation, Parameter},
    schema::{AnyOf, OneOf, SchemaType},
};

/// Problems that an operation names by their status alone.
struct Common {
    status: &'static str,
    name: &'static str,
    text: &'static str,
    of: Of,
}

/// Which operations may give an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// All that somebody must sign in for.
    All,
    /// Those of them that take anything: parameters or a body.
    Asked,
    /// Those of them that take a body.
    Body,
}

const COMMON: [Common; 10] = [
    common("400", "NoJson", "The body is no JSON, or could not be read", Of::Body),
    common("401", "SignIn", "Sign in", Of::All),
    common("403", "Forbidden", "The caller may not do this", Of::All),
    common("404", "NotFound", "There is no such thing, or it is another org's", Of::Asked),
    common("408", "TooSlow", "The request took too long to come", Of::Body),
    common("413", "TooLarge", "The body is too large", Of::Body),
    common("415", "OtherMediaType", "The body is of another media type", Of::Body),
    common("422", "WrongField", "A field or parameter is wrong", Of::Asked),
    common("500", "Fault", "A fault of this program", Of::All),
    common("503", "Away", "Something is away or too busy; the same may work later", Of::All),
];

const fn common(status: &'static str, name: &'static str, text: &'static str, of: Of) -> Common {
    Common { status, name, text, of }
}

/// Routes that nobody signs in for.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What a list begins behind, by the name of its parameter.
const CURSORS: [&str; 2] = ["cursor", "after"];

const REQUEST_ID: &str = "dq-request-id";
const RETRY_AFTER: &str = "retry-after";
const ETAG: &str = "etag";
const NEXT: &str = "x-next-cursor";
const LINK: &str = "link";
const AUTHENTICATE: &str = "www-authenticate";

/// Adds what every operation may answer, and how to sign in.
pub(crate) fn complete(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let components = document.components.get_or_insert_default();
    either_of_both(components, "History");
    components.headers = headers();
    for Common { status, name, text, .. } in COMMON {
        let problem = RefOr::T(borne(status, problem(text)));
        components.responses.insert(name.to_owned(), problem);
    }
    let revised = revised(components);
    for (path, item) in &mut document.paths.paths {
        let open = OPEN.contains(&path.as_str());
        for operation in operations(item) {
            describe(operation, open, &revised);
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

fn describe(operation: &mut Operation, open: bool, revised: &[String]) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(Parameter { schema: Some(schema), .. }) = parameter {
            not_null(schema);
        }
    }
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let of = match (&operation.request_body, parameters) {
        (Some(_), _) => Of::Body,
        (None, []) => Of::All,
        (None, _) => Of::Asked,
    };
    let named = |parameter: &_| match parameter {
        RefOr::T(Parameter { name, .. }) => CURSORS.contains(&name.as_str()),
        RefOr::Ref(_) => false,
    };
    let paged = parameters.iter().any(named);
    for (status, answer) in &mut operation.responses.responses {
        let RefOr::T(answer) = answer else { continue };
        // A problem that a route named without its body.
        if status.as_str() >= "400" && answer.content.is_empty() {
            answer.content.insert(MEDIA_TYPE.to_owned(), RefOr::T(told()));
        }
        *answer = borne(status, std::mem::take(answer));
        let body = body(answer);
        if body.as_ref().is_some_and(|name| revised.contains(name)) {
            bears(answer, &[ETAG]);
        }
        if paged && body.is_none() && answer.content.contains_key("application/json") {
            bears(answer, &[NEXT, LINK]);
        }
    }
    if open {
        return;
    }
    for Common { status, name, .. } in COMMON.iter().filter(|common| common.of <= of) {
        let answer = || RefOr::Ref(Ref::from_response_name(*name));
        operation.responses.responses.entry((*status).to_owned()).or_insert_with(answer);
    }
    let by = |name: &str| openapi::SecurityRequirement::new::<_, _, &str>(name, []);
    operation.security = Some(vec![by("key"), by("bearer")]);
}

fn told() -> Content {
    Content::new(Some(Ref::from_schema_name("Problem")))
}

fn problem(text: &str) -> Response {
    ResponseBuilder::new().description(text).content(MEDIA_TYPE, told()).build()
}

/// An answer with the headers that it has by its status.
fn borne(status: &str, mut answer: Response) -> Response {
    bears(&mut answer, &[REQUEST_ID]);
    match status {
        "401" => bears(&mut answer, &[AUTHENTICATE]),
        "429" => bears(&mut answer, &[RETRY_AFTER]),
        "503" if answer.content.contains_key(MEDIA_TYPE) => bears(&mut answer, &[RETRY_AFTER]),
        _ => {}
    }
    answer
}

fn bears(answer: &mut Response, headers: &[&str]) {
    for name in headers {
        let header = Ref::new(format!("#/components/headers/{name}"));
        answer.headers.insert((*name).to_owned(), RefOr::Ref(header));
    }
}

/// The headers of ours.
fn headers() -> BTreeMap<String, RefOr<Header>> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let uuid = text().format(Some(SchemaFormat::Custom("uuid".to_owned())));
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    [
        (REQUEST_ID, uuid.build(), "The request, as the log names it: the caller's own, else ours"),
        (RETRY_AFTER, seconds.build(), "After how many seconds the same may work"),
        (ETAG, text().build(), "What was seen, for `If-Match`: the revision in quotes"),
        (NEXT, text().build(), "The cursor of the next page; left out where there is none"),
        (LINK, text().build(), "The next page (RFC 8288)"),
        (AUTHENTICATE, text().build(), "`Bearer`"),
    ]
    .map(|(name, schema, text): (&str, Object, &str)| {
        let mut header = Header::new(schema);
        header.description = Some(text.to_owned());
        (name.to_owned(), RefOr::T(header))
    })
    .into()
}

/// The schema of a JSON answer that is one thing.
fn body(answer: &Response) -> Option<String> {
    let RefOr::T(content) = answer.content.get("application/json")? else { return None };
    let Some(RefOr::Ref(schema)) = &content.schema else { return None };
    schema.ref_location.rsplit('/').next().map(str::to_owned)
}

/// What has a revision: it is told in the `ETag` too.
fn revised(components: &Components) -> Vec<String> {
    let has = |schema: &RefOr<Schema>| match schema {
        RefOr::T(Schema::Object(object)) => object.properties.contains_key("revision"),
        _ => false,
    };
    let schemas = components.schemas.iter();
    schemas.filter(|(_, schema)| has(schema)).map(|(name, _)| name.clone()).collect()
}

/// A parameter is there or it is left out: none is null.
fn not_null(schema: &mut RefOr<Schema>) {
    let null = |kind: &Type| *kind == Type::Null;
    let other = match schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(kinds) = &object.schema_type
                && let Some(kind) = kinds.iter().find(|kind| !null(kind)).cloned()
            {
                object.schema_type = kind.into();
            }
            None
        }
        RefOr::T(Schema::OneOf(OneOf { items, .. })) => items.iter().find(|item| match item {
            RefOr::T(Schema::Object(Object { schema_type: SchemaType::Type(kind), .. })) => {
                !null(kind)
            }
            _ => true,
        }),
        _ => None,
    };
    if let Some(other) = other.cloned() {
        *schema = other;
    }
}

/// An empty list is a list of either kind: `oneOf`, which is what utoipa derives, forbids that.
fn either_of_both(components: &mut Components, name: &str) {
    let Some(RefOr::T(schema)) = components.schemas.get_mut(name) else { return };
    if let Schema::OneOf(OneOf { items, description, .. }) = schema {
        let mut either = AnyOf::new();
        either.items = std::mem::take(items);
        either.description = description.take();
        *schema = Schema::AnyOf(either);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    fn document() -> Value {
        serde_json::from_str(&crate::document()).unwrap()
    }

    #[test]
    fn what_an_operation_may_answer_follows_from_what_it_takes() {
        let document = document();
        let answers = |path: &str, method: &str| {
            let answers = document["paths"][path][method]["responses"].as_object().unwrap();
            answers.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(answers("/healthz", "get"), "200");
        assert_eq!(answers("/me", "get"), "200 401 403 500 503");
        assert_eq!(answers("/org/{org_id}", "get"), "200 401 403 404 422 500 503");
        assert_eq!(answers("/entity", "post"), "201 400 401 403 404 408 409 413 415 422 500 503");
    }

    #[test]
    fn answers_name_the_headers_that_they_bear() {
        let document = document();
        let bears = |path: &str, method: &str, status: &str| {
            let mut answer = &document["paths"][path][method]["responses"][status];
            if let Some(name) = answer["$ref"].as_str() {
                answer = document.pointer(&name[1..]).unwrap();
            }
            let headers = answer["headers"].as_object().unwrap();
            headers.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(bears("/entity", "get", "200"), "dq-request-id link x-next-cursor");
        assert_eq!(bears("/entity/{entity_id}", "get", "200"), "dq-request-id etag");
        assert_eq!(bears("/entity/{entity_id}", "put", "412"), "dq-request-id");
        assert_eq!(bears("/entity", "post", "503"), "dq-request-id retry-after");
        assert_eq!(bears("/api/v1/telemetry", "post", "429"), "dq-request-id retry-after");
        assert_eq!(bears("/me", "get", "401"), "dq-request-id www-authenticate");
        assert_eq!(bears("/readyz", "get", "503"), "dq-request-id");
    }

    #[test]
    fn no_parameter_is_null() {
        let document = document();
        let operations = document["paths"].as_object().unwrap().values();
        let operations = operations.flat_map(|path| path.as_object().unwrap().values());
        let parameters = operations.filter_map(|it| it["parameters"].as_array()).flatten();
        let mut looked_at = 0;
        for parameter in parameters {
            assert!(!parameter["schema"].to_string().contains("null"), "{parameter}");
            looked_at += 1;
        }
        assert!(looked_at > 100, "{looked_at}");
    }

    #[test]
    fn nothing_that_a_body_must_hold_is_left_undescribed() {
        let document = document();
        let values = &document["components"]["schemas"]["Bulk"]["properties"]["values"];
        assert_eq!(values["items"]["$ref"], "#/components/schemas/NewValue");
        assert!(document["components"]["schemas"]["History"]["anyOf"].is_array());
    }
}
