//! What went wrong, as callers are told: RFC 9457. What a database, a broker or a panic says stays in the
//! log.

use crate::shell::request_id;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use nats::{micro::Refusal, model::ModelFault, registry::RegistryFault};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// Media type of every error.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";
/// When to try again where nothing better is known.
const SOON: Duration = Duration::from_secs(2);
/// Most fields that one answer names.
const MAX_FIELDS: usize = 50;

/// An error, told to the caller. In a box: most answers are none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Problem(Box<Told>);

/// How it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Told {
    /// What kind of problem it is; `about:blank` where the status says it.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
    /// The request that failed, as the log names it.
    request_id: String,
    /// Fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    #[serde(skip)]
    #[schema(ignore)]
    retry_after: Option<Duration>,
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// Where it stands (RFC 6901); `/query/…` and `/header/…` where it is not in the body.
    pub(crate) pointer: String,
    /// What is wrong with it.
    pub(crate) detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self(Box::new(Told {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            request_id: request_id(),
            errors: Vec::new(),
            retry_after: None,
        }))
    }

    /// One answer for what is not there and what is another org's.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no such {what}"))
    }

    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Something is away; the same may work later.
    pub(crate) fn away(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(SOON)
    }

    /// A field of the body is wrong.
    pub(crate) fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::fields(vec![FieldProblem { pointer: pointer.into(), detail: detail.into() }])
    }

    /// Fields of the body are wrong.
    pub(crate) fn fields(errors: Vec<FieldProblem>) -> Self {
        let detail = match &errors[..] {
            [one] if one.pointer.is_empty() => format!("the body: {}", one.detail),
            [one] => format!("{}: {}", one.pointer, one.detail),
            many => format!("{} fields are wrong", many.len()),
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).naming(errors)
    }

    /// The same, naming fields.
    #[must_use]
    pub(crate) fn naming(mut self, mut errors: Vec<FieldProblem>) -> Self {
        errors.truncate(MAX_FIELDS);
        self.0.errors = errors;
        self
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    pub(crate) fn status(&self) -> u16 {
        self.0.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        let soon = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(SOON);
        if let Some(wait) = self.0.retry_after.or(soon) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<store::Fault> for Problem {
    fn from(fault: store::Fault) -> Self {
        // A query that takes too long is the caller's to make smaller; everything else is an outage.
        if fault.sqlstate.as_deref() == Some("57014") {
            return Self::away(
                "the database took too long; ask for less (a shorter range, a limit)",
            );
        }
        tracing::warn!(%fault, "the database did not answer a caller");
        Self::away("the primary database does not answer; `haystack status` says why")
    }
}

impl From<ModelFault> for Problem {
    fn from(fault: ModelFault) -> Self {
        match fault {
            ModelFault::Unkeepable(_, why) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, why.to_string())
            }
            ModelFault::Conflict(_) => {
                Self::conflict("somebody else changed it in between; look at it again and repeat")
            }
            ModelFault::Server(_) | ModelFault::Unreadable { .. } => {
                tracing::warn!(%fault, "MODEL did not take a caller's change");
                Self::away(
                    "the model can't be read or written now, and whether something was changed is not known: \
                     repeat the request; what was done is done once",
                )
            }
        }
    }
}

impl From<RegistryFault> for Problem {
    fn from(fault: RegistryFault) -> Self {
        let unprocessable = |text: String| Self::new(StatusCode::UNPROCESSABLE_ENTITY, text);
        match fault {
            RegistryFault::Model(fault) => fault.into(),
            RegistryFault::Counter(fault) => {
                tracing::warn!(%fault, "no number for a caller");
                Self::away(
                    "no new number can be had now; repeat the request, what was done is done once",
                )
            }
            RegistryFault::NoOrg(_) => Self::not_found("org"),
            RegistryFault::NoType(_, id) => {
                unprocessable(format!("the org has no device type {id}"))
            }
            RegistryFault::Invalid(fault) => unprocessable(fault.to_string()),
            RegistryFault::Example(fault) => unprocessable(fault.to_string()),
            RegistryFault::Taken(text) => Self::conflict(text),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).ok().filter(|it| it.as_u16() >= 400);
        Self::new(status.unwrap_or(StatusCode::BAD_GATEWAY), refusal.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_503_says_when_to_come_again_whoever_told_it() {
        let wait = |problem: Problem| {
            let response = problem.into_response();
            response.headers().get(header::RETRY_AFTER).map(|it| it.to_str().unwrap().to_owned())
        };
        let refusal = Refusal { status: 503, text: "not now".to_owned() };
        assert_eq!(wait(refusal.into()).as_deref(), Some("2"));
        assert_eq!(wait(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "")).as_deref(), Some("2"));
        let later = Problem::away("").retry_after(Duration::from_secs(9));
        assert_eq!(wait(later).as_deref(), Some("9"));
        assert_eq!(wait(Problem::not_found("entity")), None);
    }
}
