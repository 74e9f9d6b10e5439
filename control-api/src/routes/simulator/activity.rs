//! What simulators did: their activity log.

use super::{ask::ask, log, log_away, simulator};
use crate::{
    Api,
    caller::Caller,
    extract::{Json, Path, Query},
    page::{Page, large_page},
    problem::Problem,
    routes::moment::Moment,
    shape,
};
use axum::{extract::State, http::StatusCode, response::Response};
use domain::{
    SimulatorId,
    access::Permission,
    simulator::{Ask, EventType, check_note},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{
    Database,
    simulator::{Lines, Logged, activities},
};
use utoipa::{IntoParams, ToSchema};

/// Lines among which one that was just added is looked for.
const LATEST: i64 = 50;

/// A line of a simulator's log.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct ActivityView {
    /// Its number: the log goes on behind it.
    pub(super) id: Option<i64>,
    simulator_id: i32,
    #[schema(value_type = Option<String>, format = DateTime)]
    timestamp: Option<Moment>,
    #[schema(value_type = shape::EventType)]
    pub(super) event_type: &'static str,
    message: String,
    details: Value,
}

impl From<Logged> for ActivityView {
    fn from(Logged { id, activity }: Logged) -> Self {
        Self {
            id: Some(id),
            simulator_id: activity.simulator_id.0,
            timestamp: Some(Moment(activity.timestamp)),
            event_type: activity.event_type.as_str(),
            message: activity.message,
            details: activity.details,
        }
    }
}

/// Which lines.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct ActivityFilter {
    /// Lines, 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
    /// Of this kind.
    #[serde(rename = "type")]
    #[param(rename = "type", value_type = Option<shape::EventType>)]
    event_type: Option<EventType>,
    /// Not before this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Moment>,
    /// Before this moment.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Moment>,
    /// The first lines behind that of this number, or of `x-next-cursor` of the page before; left out: the
    /// last lines.
    #[serde(alias = "cursor")]
    #[param(minimum = 0)]
    after: Option<i64>,
}

/// List what a simulator did
///
/// In order, the newest last.
#[utoipa::path(get, path = "/simulator/activity/{simulator_id}", tag = "simulators",
    params(("simulator_id" = i32, Path), ActivityFilter),
    responses((status = 200, description = "A page of its log", body = Vec<ActivityView>)))]
pub(in crate::routes) async fn list_activities(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(filter): Query<ActivityFilter>,
) -> Result<Response, Problem> {
    let poller = simulator(&api, &caller, id, Permission::Read)?;
    let limit = Page { limit: filter.limit, cursor: None }.limit()?;
    let after = line(filter.after)?;
    let lines = Lines {
        after: after.unwrap_or(0),
        from: filter.from.map(|moment| moment.0),
        to: filter.to.map(|moment| moment.0),
        event_type: filter.event_type,
        first: after.is_some(),
    };
    // One more than asked for says whether there is more.
    let most = limit + i64::from(lines.first);
    let asked = activities(log(&api)?, poller.id, &lines, most).await;
    let (mut rows, whole) = asked.map_err(|fault| log_away(&fault))?;
    let more = rows.len() as i64 > limit || (!whole && lines.first);
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| last.id.to_string());
    let rows: Vec<ActivityView> = rows.into_iter().map(ActivityView::from).collect();
    large_page(&api, &caller, &rows, next).await
}

/// The number of a line, as a caller names it.
pub(super) fn line(after: Option<i64>) -> Result<Option<i64>, Problem> {
    match after {
        Some(..0) => Err(Problem::field("/query/after", "0 or more is expected")),
        after => Ok(after),
    }
}

/// A line to be added to a simulator's log.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct NewActivity {
    #[schema(value_type = shape::EventType)]
    event_type: EventType,
    #[schema(min_length = 1, max_length = 4096)]
    message: String,
    /// For programs; left out: `{}`.
    details: Option<Value>,
}

/// Add to what a simulator did
///
/// Its owner is asked: nobody else writes its log. Where the line can't be read back at once, its `id` and
/// `timestamp` are null.
#[utoipa::path(post, path = "/simulator/activity/{simulator_id}", tag = "simulators", request_body = NewActivity,
    params(("simulator_id" = i32, Path)),
    responses(
        (status = 201, description = "It stands in the log", body = ActivityView),
        (status = 409, description = "Nobody runs the simulator, or it can't be run"),
        (status = 503, description = "No simulator service answers"),
    ))]
pub(in crate::routes) async fn add_activity(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Json(NewActivity { event_type, message, details }): Json<NewActivity>,
) -> Result<(StatusCode, axum::Json<ActivityView>), Problem> {
    let poller = simulator(&api, &caller, id, Permission::Control)?;
    let details = details.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    if let Err(why) = check_note(&message, &details) {
        let (name, detail) = why.split_once(": ").unwrap_or(("", &why));
        return Err(Problem::field(format!("/{name}"), detail));
    }
    let order = Ask::Note { event_type, message: message.clone(), details: details.clone() };
    ask(&api, &caller, &poller, &order, "").await?;
    let added = |row: &Logged| row.activity.message == message && row.activity.details == details;
    let rows = match &api.state {
        Some(database) => latest(database, poller.id, event_type).await,
        None => Vec::new(),
    };
    let row = rows.into_iter().rfind(added).map(ActivityView::from);
    let view = row.unwrap_or(ActivityView {
        id: None,
        simulator_id: id,
        timestamp: None,
        event_type: event_type.as_str(),
        message,
        details,
    });
    Ok((StatusCode::CREATED, axum::Json(view)))
}

/// The last lines of a kind; none where they can't be read.
async fn latest(database: &Database, id: SimulatorId, event_type: EventType) -> Vec<Logged> {
    let lines = Lines { event_type: Some(event_type), ..Lines::default() };
    let rows = activities(database, id, &lines, LATEST).await.map(|(rows, _)| rows);
    rows.inspect_err(|fault| tracing::warn!(%fault, "a new line can't be read back"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines_are_numbered_from_0() {
        assert_eq!(line(None), Ok(None));
        assert_eq!(line(Some(0)), Ok(Some(0)));
        assert_eq!(line(Some(-1)).unwrap_err().status(), 422);
    }
}
