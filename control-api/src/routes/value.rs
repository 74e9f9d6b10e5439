//! Values of entities: as they are, thinned out, and the newest.

use super::moment::Moment;
use crate::{
    Api,
    caller::Caller,
    extract::{Path, Query},
    page::{large, too_large},
    problem::Problem,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderName, HeaderValue},
    response::Response,
};
use domain::{EntityId, OrgId, Timestamp, access::Permission};
use serde::{Deserialize, Serialize};
use store::view::{self, BucketRow, Range, Seen, ValueRow};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Rows of an answer where the caller names no number, and at most.
const USUAL: u32 = 1_000;
const MOST: u32 = 20_000;
/// How far back an answer goes where the caller names no beginning, in microseconds.
const USUAL_RANGE: i64 = 24 * 3_600 * 1_000_000;
/// Most entities whose newest values are asked for at once.
const MAX_CURRENT: usize = 1_000;
/// The header of an answer that has as many rows as it may: there may be more.
const LIMITED: HeaderName = HeaderName::from_static("x-limited-to");
/// Longest and shortest bucket, in microseconds.
const EVERY: std::ops::RangeInclusive<i64> = 1_000_000..=366 * 24 * 3_600 * 1_000_000;

pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(history))
        .routes(routes!(current))
        .routes(routes!(current_of_many))
}

/// A value of an entity.
#[derive(Serialize, Deserialize, ToSchema)]
struct ValueView {
    entity_id: i32,
    #[schema(value_type = String, format = DateTime)]
    ts: Moment,
    value_n: Option<f64>,
    value_b: Option<bool>,
    value_s: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    value_ts: Option<Moment>,
}

impl From<ValueRow> for ValueView {
    fn from(row: ValueRow) -> Self {
        let ValueRow { entity_id, ts, value_n, value_b, value_s, value_ts } = row;
        let (ts, value_ts) = (ts.into(), value_ts.map(Moment::from));
        // JSON has no NaN and no infinity.
        let value_n = value_n.filter(|n| n.is_finite());
        Self { entity_id, ts, value_n, value_b, value_s, value_ts }
    }
}

/// Numbers of an entity in a bucket of time; a boolean counts as 0 or 1.
#[derive(Serialize, Deserialize, ToSchema)]
struct BucketView {
    /// Where the bucket begins.
    #[schema(value_type = String, format = DateTime)]
    ts: Moment,
    count: i64,
    min: f64,
    max: f64,
    mean: f64,
    first: f64,
    last: f64,
}

impl From<BucketRow> for BucketView {
    fn from(row: BucketRow) -> Self {
        let BucketRow { ts, count, min, max, mean, first, last } = row;
        Self { ts: ts.into(), count, min, max, mean, first, last }
    }
}

/// Which values.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryFilter {
    /// Not before this moment; left out: the last 24 hours before `to`.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Moment>,
    /// Before this moment; left out: up to the newest.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Moment>,
    /// Thin out: a row for each span of so long, e.g. `30s`, `15m`, `1h`, `1d`, `1w`.
    #[param(example = "15m", pattern = "^[0-9]+[smhdw]$")]
    every: Option<String>,
    /// Rows, 1 to 20000.
    #[param(minimum = 1, maximum = 20_000, default = 1000)]
    limit: Option<u32>,
    /// The newest first; not with `every`.
    #[param(default = false)]
    newest_first: Option<bool>,
}

/// Values, or what they come to in each span of time.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum History {
    /// As they are.
    Values(Vec<ValueView>),
    /// With `every`.
    Buckets(Vec<BucketView>),
}

/// Which entities.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CurrentFilter {
    /// Their org.
    org_id: i32,
    /// Their numbers, with commas between them; at most 1000.
    #[param(example = "1,2,3", min_length = 1)]
    entity_id: String,
}

fn range(api: &Api, from: Option<Moment>, to: Option<Moment>) -> Result<Range, Problem> {
    // The newest value may be a little ahead of our clock.
    let to = to.map_or(Timestamp::MAX, |moment| moment.0);
    let before = |to: Timestamp| to.min(api.clock.now()).plus_micros(-USUAL_RANGE);
    let from = from.map_or_else(|| before(to), |moment| moment.0);
    if from <= to {
        Ok(Range { from, to })
    } else {
        Err(Problem::field("/query/from", "it is after `to`"))
    }
}

fn most(limit: Option<u32>) -> Result<i32, Problem> {
    match limit.unwrap_or(USUAL) {
        limit @ 1..=MOST => Ok(limit as i32),
        _ => Err(Problem::field("/query/limit", format!("1 to {MOST} is expected"))),
    }
}

/// A length of time as people write it, in microseconds.
fn length(text: &str) -> Option<i64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    let number: i64 = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(seconds * 1_000_000).filter(|every| EVERY.contains(every))
}

/// The entity's org and what the caller may see, where the entity is the caller's to see.
fn open(api: &Api, caller: &Caller, id: i32) -> Result<(OrgId, Seen), Problem> {
    let directory = api.directory.read();
    let none = || Problem::not_found("entity");
    let org = directory.entity(EntityId(id)).map(|entity| entity.org_id).ok_or_else(none)?;
    if !caller.may_with(org, Permission::Read, EntityId(id)) {
        caller.require(org, Permission::Read, "entity")?;
    }
    Ok((org, Seen { orgs: vec![org.0], ..caller.seen(&directory) }))
}

/// Values of an entity, by time
#[utoipa::path(get, path = "/value/{entity_id}", tag = "values",
    params(("entity_id" = i32, Path), HistoryFilter),
    responses((status = 200, description = "By time", body = History)))]
async fn history(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
    Query(filter): Query<HistoryFilter>,
) -> Result<Response, Problem> {
    let (org, seen) = open(&api, &caller, id)?;
    let range = range(&api, filter.from, filter.to)?;
    let most = most(filter.limit)?;
    if let Some(every) = filter.every {
        let rule = "a number and s, m, h, d or w are expected, from 1s to 366d";
        let every = length(&every).ok_or_else(|| Problem::field("/query/every", rule))?;
        let rows = view::buckets(&*api.reading(&caller).await?, &seen, org, id, range, every, most)
            .await?;
        let buckets = History::Buckets(rows.into_iter().map(BucketView::from).collect());
        return large(&api, &caller, &buckets).await;
    }
    let newest = filter.newest_first.unwrap_or(false);
    let rows =
        view::values(&*api.reading(&caller).await?, &seen, org, &[id], range, newest, most).await?;
    let rows = rows.ok_or_else(too_large)?;
    let cut = rows.len() == most as usize;
    let values = History::Values(rows.into_iter().map(ValueView::from).collect());
    let mut answer = large(&api, &caller, &values).await?;
    if cut {
        answer.headers_mut().insert(LIMITED, HeaderValue::from(most));
    }
    Ok(answer)
}

/// The newest value of an entity
#[utoipa::path(get, path = "/value/{entity_id}/current", tag = "values",
    params(("entity_id" = i32, Path)),
    responses((status = 200, description = "Its newest value; null where it has none", body = Option<ValueView>)))]
async fn current(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<i32>,
) -> Result<Json<Option<ValueView>>, Problem> {
    let (org, seen) = open(&api, &caller, id)?;
    let rows = view::current(&*api.reading(&caller).await?, &seen, org, &[id]).await?;
    Ok(Json(rows.into_iter().next().map(ValueView::from)))
}

/// The newest values of entities
///
/// Entities that the caller may not see, and those without a value, are left out.
#[utoipa::path(get, path = "/value", tag = "values", params(CurrentFilter),
    responses((status = 200, description = "By entity", body = Vec<ValueView>)))]
async fn current_of_many(
    State(api): State<Api>,
    caller: Caller,
    Query(filter): Query<CurrentFilter>,
) -> Result<Json<Vec<ValueView>>, Problem> {
    let org = OrgId(filter.org_id);
    if !caller.may_any(org) || api.directory.read().org_by_id(org).is_none() {
        return Err(Problem::not_found("org"));
    }
    let wrong =
        || Problem::field("/query/entity_id", format!("1 to {MAX_CURRENT} numbers are expected"));
    let read = filter.entity_id.split(',').map(|text| text.trim().parse::<i32>());
    let asked: Vec<i32> = read.collect::<Result<_, _>>().map_err(|_| wrong())?;
    if asked.len() > MAX_CURRENT {
        return Err(wrong());
    }
    let open = |id: &i32| caller.may_with(org, Permission::Read, EntityId(*id));
    let asked: Vec<i32> = asked.into_iter().filter(open).collect();
    let seen = Seen { orgs: vec![org.0], ..Seen::default() };
    let rows = view::current(&*api.reading(&caller).await?, &seen, org, &asked).await?;
    Ok(Json(rows.into_iter().map(ValueView::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths_are_written_as_people_write_them() {
        assert_eq!(length("15m"), Some(900_000_000));
        assert_eq!(length("366d"), length("8784h"));
        for no in ["", "m", "0s", "-1h", "1.5h", "367d", "1y", "15", "9999999999999999999w", "1é"]
        {
            assert_eq!(length(no), None, "{no}");
        }
    }
}
