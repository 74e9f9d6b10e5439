//! What simulators do, as it happens: Server-Sent Events (WHATWG HTML, 9.2) out of the activity log.
//!
//! The rows of the log are what counts, in their order; news of `EVENTS` only say when to look. A row's
//! number is its event's id, so that a reader goes on exactly behind what it has.

use super::{
    activity::{ActivityView, line},
    log, log_away, simulator,
};
use crate::{
    Api, auth,
    caller::Caller,
    extract::{Path, Query},
    problem::Problem,
    share::Place,
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use domain::{OrgKey, SimulatorId, access::Permission};
use futures_util::stream;
use nats::news::News;
use serde::Deserialize;
use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, Instant},
};
use store::{
    Database,
    simulator::{Lines, activities},
};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

/// How often the log is looked at without news: none are promised.
const LOOK: Duration = Duration::from_secs(2);
/// Pause before the log is looked at again for each of many news.
const GATHER: Duration = Duration::from_millis(20);
/// How often it is looked at whether the caller may still read.
const CHECK: Duration = Duration::from_secs(2);
/// Silence after which a comment says that the stream is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// How soon a reader is to come back when this service stops.
const COME_BACK: Duration = Duration::from_secs(1);
/// Rows that are read at once.
const ROWS: i64 = 200;
/// Where a reader says what it has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct Begin {
    /// Behind the line of this number; left out: with what happens from now on. `Last-Event-ID` counts
    /// more.
    #[param(minimum = 0)]
    after: Option<i64>,
}

/// Follow what a simulator does
///
/// Server-Sent Events: `id` is the line's number, `event` its kind, `data` the line as in the log. A reader
/// that comes back with `Last-Event-ID` misses none and gets none twice.
#[utoipa::path(get, path = "/simulator/activity/stream/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path), Begin,
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that the reader has")),
    responses(
        (status = 200, description = "Events, until the caller may read no more or the service stops",
            content_type = "text/event-stream", body = String),
        (status = 503, description = "Too many streams at once, or the log can't be read"),
    ))]
pub(in crate::routes) async fn follow_activities(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(begin): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Read)?;
    let database = log(&api)?.clone();
    let has = last_event_id(&headers)?.or(line(begin.after)?);
    let busy = |_| Problem::away("too many streams at once; try again later");
    let permit = api.gate.streams.clone().try_acquire_owned().map_err(busy)?;
    let place = api.gate.streams_of.take(&caller).ok_or_else(|| {
        Problem::away("you, or your org, follow as many streams as one may; end one first")
    })?;
    let after = first(&database, poller.id, has).await?;
    let follower = Follower {
        news: heard(&api, &poller.org, poller.id).await,
        credentials: headers,
        id: poller.id,
        org: poller.org.clone(),
        after,
        rows: VecDeque::new(),
        checked: Instant::now(),
        over: false,
        database,
        api,
        _permit: permit,
        _place: place,
    };
    let events = Sse::new(stream::unfold(Box::new(follower), Follower::next));
    let events = events.keep_alive(KeepAlive::new().interval(ALIVE));
    // Proxies that gather what they pass on would hold events back.
    Ok(([("x-accel-buffering", "no")], events).into_response())
}

/// What a reader says that it has.
fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    let number = number.filter(|number| *number >= 0);
    let wrong =
        || Problem::field("/header/last-event-id", "the id of an earlier event is expected");
    number.map(Some).ok_or_else(wrong)
}

/// The number behind which a stream begins. One that is ahead of the log is of a database that was put
/// back to an older copy: then it begins with what happens now.
async fn first(database: &Database, id: SimulatorId, has: Option<i64>) -> Result<i64, Problem> {
    let last = activities(database, id, &Lines::default(), 1).await.map(|(rows, _)| rows);
    match (last, has) {
        (Ok(rows), has) => {
            let last = rows.last().map_or(0, |row| row.id);
            Ok(has.map_or(last, |has| has.min(last)))
        }
        // It is known where to go on: what is there is read when the database is back.
        (Err(_), Some(has)) => Ok(has),
        (Err(fault), None) => Err(log_away(&fault)),
    }
}

async fn heard(api: &Api, org: &OrgKey, id: SimulatorId) -> Option<News> {
    News::about(&api.wire, org, "simulator", &id.to_string()).await.ok()
}

/// One reader's place in the log.
struct Follower {
    api: Api,
    database: Database,
    news: Option<News>,
    /// By which the caller is known, to look again whether it still may.
    credentials: HeaderMap,
    id: SimulatorId,
    org: OrgKey,
    after: i64,
    /// Rows that were read and not sent yet.
    rows: VecDeque<ActivityView>,
    checked: Instant,
    over: bool,
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

impl Follower {
    /// The next event; `None`: the stream ends.
    async fn next(mut self: Box<Self>) -> Option<(Result<Event, Infallible>, Box<Self>)> {
        loop {
            if self.over {
                return None;
            }
            if self.api.shutdown.is_cancelled() {
                self.over = true;
                return Some((Ok(Event::default().retry(COME_BACK)), self));
            }
            if !self.still_may().await {
                return None;
            }
            if let Some(row) = self.rows.pop_front() {
                return Some((Ok(event(&row)), self));
            }
            if !self.read().await {
                self.wait().await;
            }
        }
    }

    /// Whether the caller may still read this simulator, and it is still there.
    async fn still_may(&mut self) -> bool {
        if self.checked.elapsed() < CHECK {
            return true;
        }
        self.checked = Instant::now();
        let Ok(caller) = auth::caller(&self.credentials, &self.api).await else { return false };
        simulator(&self.api, &caller, self.id.0, Permission::Read).is_ok()
    }

    /// Reads what follows; whether there is any. A database that is away is read later.
    async fn read(&mut self) -> bool {
        let lines = Lines { after: self.after, first: true, ..Lines::default() };
        match activities(&self.database, self.id, &lines, ROWS).await {
            Ok((rows, _)) => {
                self.after = rows.last().map_or(self.after, |row| row.id);
                self.rows.extend(rows.into_iter().map(ActivityView::from));
            }
            Err(fault) => tracing::debug!(%fault, simulator = self.id.0, "its log can't be read"),
        }
        !self.rows.is_empty()
    }

    /// Waits for news, or for the next look.
    async fn wait(&mut self) {
        let shutdown = self.api.shutdown.clone();
        let news = async {
            match &mut self.news {
                Some(news) => news.wait().await,
                None => std::future::pending().await,
            }
        };
        let heard = tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => None,
            open = news => Some(open),
        };
        match heard {
            Some(true) => tokio::time::sleep(GATHER).await,
            Some(false) => self.news = None,
            None if self.news.is_none() => self.news = heard_again(self).await,
            None => {}
        }
    }
}

async fn heard_again(follower: &Follower) -> Option<News> {
    heard(&follower.api, &follower.org, follower.id).await
}

fn event(row: &ActivityView) -> Event {
    let id = row.id.unwrap_or_default().to_string();
    let data = serde_json::to_string(row).expect("a line can be written");
    Event::default().id(id).event(row.event_type).data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_says_by_a_number_what_it_has() {
        let said = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LAST_EVENT_ID, text.parse().unwrap());
            last_event_id(&headers)
        };
        assert_eq!(last_event_id(&HeaderMap::new()), Ok(None));
        assert_eq!(said(""), Ok(None));
        assert_eq!(said("17"), Ok(Some(17)));
        for no in ["-1", "x", "1.5", "99999999999999999999"] {
            assert_eq!(said(no).unwrap_err().status(), 422, "{no}");
        }
    }
}
