//! Lists, a page at a time.

use crate::{Api, caller::Caller, problem::Problem};
use axum::{
    Json,
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;
use store::view::{self, Behind, Kind, Listed, Which};
use tokio::time::timeout;
use utoipa::IntoParams;

/// Rows of a page where the caller names no number, and at most.
const USUAL: u32 = 100;
const MOST: u32 = 1_000;
/// Where a list goes on.
const NEXT: HeaderName = HeaderName::from_static("x-next-cursor");

/// Which page.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Rows, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(crate) limit: Option<u32>,
    /// Go on behind this: `x-next-cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

impl Page {
    pub(crate) fn limit(&self) -> Result<i64, Problem> {
        match self.limit.unwrap_or(USUAL) {
            limit @ 1..=MOST => Ok(limit.into()),
            _ => Err(Problem::field("/query/limit", format!("1 to {MOST} is expected"))),
        }
    }

    fn behind(&self) -> Result<Option<Behind>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let read = || {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            let text = String::from_utf8(bytes).ok()?;
            let (number, name) = text.split_once(':')?;
            Some(Behind(number.parse().ok()?, name.to_owned()))
        };
        let wrong =
            || Problem::field("/query/cursor", "this is no x-next-cursor of an earlier page");
        let fits = |behind: &Behind| !behind.1.contains('\0');
        read().filter(fits).map(Some).ok_or_else(wrong)
    }
}

fn cursor(behind: &Behind) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}:{}", behind.0, behind.1))
}

/// An answer with where the list goes on: `x-next-cursor`.
pub(crate) fn answer<T: Serialize>(rows: Vec<T>, next: Option<String>) -> Response {
    going_on(Json(rows).into_response(), next)
}

/// The same of rows that may be large.
pub(crate) async fn large_page<T: Serialize>(
    api: &Api,
    caller: &Caller,
    rows: &[T],
    next: Option<String>,
) -> Result<Response, Problem> {
    Ok(going_on(large(api, caller, &rows).await?, next))
}

fn going_on(mut response: Response, next: Option<String>) -> Response {
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(NEXT, next);
    }
    response
}

/// Most bytes of one answer, as JSON.
const MAX_ANSWER: usize = 16 << 20;

/// An answer that would be larger than one may be.
pub(crate) fn too_large() -> Problem {
    let detail = "the answer would be too large: ask for fewer rows, or a shorter range";
    Problem::field("/query/limit", detail)
}

/// Bytes of an answer that are handed on at once.
const CHUNK: usize = 64 << 10;

/// An answer up to this size goes at once.
const SMALL: usize = 64 << 10;
/// How long a large answer waits for its room.
const ROOM: Duration = Duration::from_secs(1);

/// An answer that may be large: all that are on their way together take up a bounded memory, however
/// slowly they are read, and one caller's a part of it.
pub(crate) async fn large<T: Serialize>(
    api: &Api,
    caller: &Caller,
    answer: &T,
) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(answer).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("no JSON can be made: {error}"))
    })?;
    if bytes.len() > MAX_ANSWER {
        return Err(too_large());
    }
    let length = bytes.len();
    if length <= SMALL {
        return Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response());
    }
    let busy =
        || Problem::away("too many large answers of yours are not read yet; read those first");
    let room = (length >> 10) + 1;
    let place = api.gate.answers_of.take_many(caller, room).ok_or_else(busy)?;
    let room = room as u32;
    let room = timeout(ROOM, api.gate.answers.clone().acquire_many_owned(room)).await;
    let full = |_| Problem::away("too many large answers are on their way; try again soon");
    let room = (room.map_err(full)?, place);
    let bytes = bytes::Bytes::from(bytes);
    let rest = (bytes, room);
    let chunks = futures_util::stream::unfold(rest, |(mut bytes, room)| async move {
        (!bytes.is_empty()).then(|| {
            let chunk = bytes.split_to(CHUNK.min(bytes.len()));
            (Ok::<_, std::convert::Infallible>(chunk), (bytes, room))
        })
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

/// A page of what the caller may see.
pub(crate) async fn list<T: DeserializeOwned + Serialize>(
    api: &Api,
    caller: &Caller,
    kind: Kind,
    which: &Which,
    page: &Page,
) -> Result<Response, Problem> {
    let (limit, behind) = (page.limit()?, page.behind()?);
    let seen = caller.seen(&api.directory.read());
    // One more than asked for says whether there is more.
    let view::Page { rows: mut listed, whole } = {
        let database = api.reading(caller).await?;
        view::list::<T>(&database, &seen, kind, which, behind.as_ref(), limit + 1).await?
    };
    let more = !whole || listed.len() > limit as usize;
    listed.truncate(limit as usize);
    let next = listed.last().filter(|_| more).map(|last| cursor(&last.behind));
    let rows: Vec<T> = listed.into_iter().map(|listed| listed.row).collect();
    large_page(api, caller, &rows, next).await
}

/// The one that is asked for; 404 where the caller may not see it.
pub(crate) async fn one<T: DeserializeOwned>(
    api: &Api,
    caller: &Caller,
    kind: Kind,
    which: &Which,
    what: &str,
) -> Result<T, Problem> {
    let seen = caller.seen(&api.directory.read());
    let database = api.reading(caller).await?;
    let listed = view::list::<T>(&database, &seen, kind, which, None, 1).await?;
    let row = listed.rows.into_iter().next().map(|Listed { row, .. }| row);
    row.ok_or_else(|| Problem::not_found(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is_one() {
        let page = |cursor: String| Page { limit: None, cursor: Some(cursor) };
        let behind = Behind(7, "a:b/ü".to_owned());
        assert_eq!(page(cursor(&behind)).behind().unwrap(), Some(behind));
        for no in ["", "x", "!!", "NzphAA"] {
            assert!(page(no.to_owned()).behind().is_err(), "{no}");
        }
    }
}
