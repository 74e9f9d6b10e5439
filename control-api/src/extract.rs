//! What callers send, read into types; what can't be is told with its place.

use crate::{Api, problem::Problem, shell::hold};
use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{StatusCode, header, request::Parts},
};
use futures_util::StreamExt;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData, time::Duration};

/// Most bytes of a body that has no limit of its own.
const MAX_BODY: usize = 2 << 20;
/// How long a body may take.
const BODY: Duration = Duration::from_secs(20);

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        require_json(&request)?;
        let bytes = body(api, request.into_body(), MAX_BODY).await?;
        json(&bytes).map(Self)
    }
}

/// The media type of a body, without parameters, in lower case.
pub(crate) fn media_type(request: &Request) -> String {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let value = value.unwrap_or_default().split(';').next().unwrap_or_default();
    value.trim().to_ascii_lowercase()
}

/// Refuses what does not say that it is JSON.
pub(crate) fn require_json(request: &Request) -> Result<(), Problem> {
    let media_type = media_type(request);
    if media_type == "application/json" || media_type.ends_with("+json") {
        return Ok(());
    }
    let detail = "content-type: application/json is expected";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail))
}

/// Reads a body, at most so many bytes. Room is taken as they come, and kept until the request is
/// answered; who calls is known before, so that nobody else takes it.
pub(crate) async fn body(api: &Api, body: Body, most: usize) -> Result<Bytes, Problem> {
    let slow = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long");
    tokio::time::timeout(BODY, gathered(api, body, most)).await.map_err(slow)?
}

async fn gathered(api: &Api, body: Body, most: usize) -> Result<Bytes, Problem> {
    let (mut whole, mut chunks) = (Vec::new(), body.into_data_stream());
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"))?;
        if whole.len() + chunk.len() > most {
            let detail = format!("the body is larger than {most} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let room = api.gate.bodies.clone().try_acquire_many_owned((chunk.len() >> 10) as u32 + 1);
        hold(room.map_err(|_| {
            Problem::away("too many large requests at once; try again soon")
                .retry_after(Duration::from_secs(1))
        })?);
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// An object. What serde derives for a struct would take a list of its fields in their order too.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData)).map(Self)
    }
}

/// An object that may be left out, for `deserialize_with`.
pub(crate) fn maybe<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let read = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(read.map(|Object(read)| read))
}

/// Objects, for `deserialize_with`.
pub(crate) fn objects<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let read = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(read.into_iter().map(|Object(read)| read).collect())
}

/// Reads an object of JSON; says where it is wrong.
pub(crate) fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let Object(read) = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        // The parser counts a number that is too large, or a key that is to be one, as bad JSON too.
        if inner.is_data() || serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
            return Problem::field(pointer, told(&inner));
        }
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {inner}"))
    })?;
    from.end().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
    })?;
    Ok(read)
}

/// Without the place in the text, which the pointer says better.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = text.strip_suffix(&place).unwrap_or(&text);
    // What a type is called here tells nobody anything.
    let Some((wrong, expected)) = text.rsplit_once(", expected ") else { return text.to_owned() };
    let expected = match expected {
        _ if expected.starts_with("struct ") => "an object",
        "i8" | "i16" | "i32" | "i64" => "a whole number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        other => other,
    };
    format!("{wrong}, expected {expected}")
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Segment::Enum { variant } => format!("/{variant}"),
        // Then it is told of what holds it.
        Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

/// Parameters behind the `?`.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(read)) => Ok(Self(read)),
            Err(rejection) => {
                use std::error::Error;
                let why =
                    rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string);
                let missing =
                    why.strip_prefix("missing field `").and_then(|it| it.strip_suffix('`'));
                let (name, why) = match (missing, why.split_once(": ")) {
                    (Some(name), _) => (name.to_owned(), "it is missing".to_owned()),
                    (None, Some((name, why))) => (name.to_owned(), why.to_owned()),
                    (None, None) => (String::new(), why),
                };
                Err(Problem::field(format!("/query/{name}"), why))
            }
        }
    }
}

/// Parts of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<Api> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, api).await;
        read.map(|axum::extract::Path(read)| Self(read)).map_err(|_| {
            let detail = "nothing here has such a number or name as the path gives";
            Problem::new(StatusCode::NOT_FOUND, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[allow(dead_code, reason = "it is only read")]
        #[serde(deserialize_with = "objects")]
        inner: Vec<Inner>,
        #[allow(dead_code, reason = "it is only read")]
        #[serde(default)]
        by_number: BTreeMap<i32, f64>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[allow(dead_code, reason = "it is only read")]
        number: i32,
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_names_of_types() {
        let told = |text: &str| {
            let problem = json::<Outer>(text.as_bytes()).unwrap_err();
            let told = serde_json::to_value(&problem).unwrap();
            (problem.status(), told["detail"].as_str().unwrap().to_owned())
        };
        for (text, status, detail) in [
            ("7", 422, "the body: invalid type: integer `7`, expected an object"),
            (r#"{"inner": [3]}"#, 422, "/inner/0: invalid type: integer `3`, expected an object"),
            (
                r#"{"inner": [{"number": "x"}]}"#,
                422,
                "/inner/0/number: invalid type: string \"x\", expected a whole number",
            ),
            ("[[]]", 422, "the body: invalid type: sequence, expected an object"),
            (r#"{"inner": [[3]]}"#, 422, "/inner/0: invalid type: sequence, expected an object"),
            (r#"{"inner": [{}]}"#, 422, "/inner/0: missing field `number`"),
            (
                r#"{"inner": [], "by_number": {"x": 1}}"#,
                422,
                "/by_number: invalid value: expected key to be a number in quotes",
            ),
            (
                r#"{"inner": [], "by_number": {"1": 1e999}}"#,
                422,
                "/by_number/1: number out of range",
            ),
        ] {
            assert_eq!(told(text), (status, detail.to_owned()), "{text}");
        }
        for text in ["", "{", r#"{"inner": []} x"#, "{\"inner\": \u{1}}"] {
            let (status, detail) = told(text);
            assert!(status == 400 && detail.starts_with("the body is no JSON"), "{text} {detail}");
        }
    }
}
