//! What the API reads for a caller: under a role that sees the rows of the caller's orgs and no others,
//! and values only through functions that check the org.
//!
//! Rows come as JSON, in the shape in which the API shows them.

use crate::{
    connect::{Borrowed, Database, answered},
    fault::Fault,
};
use domain::{OrgId, Timestamp};
use futures_util::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::{AssertSqlSafe, types::Json};
use std::time::Duration;

/// What a caller may see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Orgs of which the caller may see anything.
    pub orgs: Vec<i32>,
    /// Those of them that the caller may see whole.
    pub whole: Vec<i32>,
    /// Entities of the others that the caller may see.
    pub entities: Vec<i32>,
}

/// What there are lists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Orgs.
    Org,
    /// Entities with their tags.
    Entity,
    /// Tag definitions.
    TagDef,
    /// Device types: the versions in force.
    DeviceType,
    /// Devices with their points.
    Device,
    /// Kinds of assets.
    AssetType,
    /// Assets with their devices.
    Asset,
    /// Pollers.
    Poller,
    /// What users may do.
    Grant,
    /// Gateways' reports that came in parts.
    Transaction,
}

/// Where a list goes on: behind this row. The two columns give each kind its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behind(pub i64, pub String);

/// Which rows of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Which {
    /// Of this org only.
    pub org: Option<i32>,
    /// The one with this number (its first column).
    pub number: Option<i64>,
    /// The one of this name (its second column).
    pub name: Option<String>,
    /// Of this type or with this tag, where the kind has one.
    pub of_type: Option<String>,
    /// In this status, where the kind has one.
    pub status: Option<String>,
}

/// A row as it is shown, and where a list goes on behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The row.
    pub row: T,
    /// Where it stands.
    pub behind: Behind,
}

/// Rows of a list, and whether they are all that were asked for: a page ends where it is large enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// In their order.
    pub rows: Vec<Listed<T>>,
    /// Whether no more were asked for.
    pub whole: bool,
}

/// Columns `a` and `b` are the order, `kind` what `of_type` asks for, `state` what `status` asks for.
fn select(kind: Kind) -> &'static str {
    match kind {
        Kind::Org => {
            "select org_id as a, '' as b, '' as kind, '' as state, org_id, org_key, name, \
                 model_sequence as revision from core.org"
        }
        Kind::Entity => {
            "select entity_id as a, '' as b, '' as kind, '' as state, entity_id, org_id, name, \
                 coalesce((select jsonb_object_agg(t.tag, case t.kind when 'Marker' then '\"M\"' \
                     when 'Ref' then to_jsonb('@' || (t.value #>> '{}')) else t.value end) \
                     from core.entity_tag t where t.entity_id = e.entity_id), '{}') as tags, \
                 model_sequence as revision from core.entity e where not gone"
        }
        Kind::TagDef => {
            "select org_id as a, name as b, '' as kind, '' as state, org_id, name, kind as value_kind, \
                 doc, model_sequence as revision from core.tag_def"
        }
        Kind::DeviceType => {
            "select c.org_id as a, c.device_type as b, t.processing_mode as kind, '' as state, \
                 c.org_id, c.device_type, c.version, t.processing_mode, t.protocol_adapter, \
                 t.definition, c.model_sequence as revision \
                 from core.device_type_current c join core.device_types t \
                 using (org_id, device_type, version)"
        }
        Kind::Device => {
            "select 0 as a, d.device_id as b, d.device_type as kind, '' as state, d.org_id, \
                 d.device_id, d.device_type, d.name, d.device_role, d.parent_device_id, \
                 d.logical_identifier, \
                 coalesce((select jsonb_object_agg(p.metric, jsonb_build_object('entity_id', \
                     p.entity_id, 'kind', p.kind)) from core.device_point p \
                     where p.device_id = d.device_id), '{}') as points, \
                 s.online, s.last_seen, d.model_sequence as revision \
                 from core.devices d left join core.device_presence s using (device_id) \
                 where not d.gone"
        }
        Kind::AssetType => {
            "select org_id as a, asset_type as b, '' as kind, '' as state, org_id, asset_type, name, \
                 metric_definitions, transformation_engine, health_algorithm, \
                 model_sequence as revision from core.asset_types"
        }
        Kind::Asset => {
            "select asset_id as a, '' as b, asset_type as kind, '' as state, asset_id, org_id, \
                 asset_type, name, tags, health_score, health_score_updated_at, \
                 health_score_computed_by, last_telemetry_at, \
                 coalesce((select jsonb_agg(d.device_id order by d.device_id) \
                     from core.asset_device d where d.asset_id = a.asset_id), '[]') as devices, \
                 model_sequence as revision from core.assets a"
        }
        Kind::Poller => {
            "select poller_id as a, '' as b, poller_type as kind, status as state, id, org_id, \
                 poller_type, poller_id, poller_name, config, status, created_at, \
                 greatest(created_at, (select a.at from core.audit_log a \
                     where a.model_sequence = p.model_sequence)) as updated_at, \
                 model_sequence as revision from core.poller_config p"
        }
        Kind::Grant => {
            "select g.user_id as a, '' as b, '' as kind, '' as state, g.org_id, g.user_id, \
                 g.permissions, coalesce((select jsonb_object_agg(p.entity_id::text, p.permissions) \
                     from core.org_entity_permission p \
                     where p.org_id = g.org_id and p.user_id = g.user_id), '{}') as entities, \
                 g.model_sequence as revision from core.acl_org g"
        }
        Kind::Transaction => {
            "select end_sequence as a, '' as b, gateway_id as kind, outcome as state, org_id, \
                 gateway_id, transaction_id, parts_expected, parts_seen, parts_missing, outcome, \
                 reason, began_at, ended_at from core.telemetry_transactions"
        }
    }
}

/// Rows of a kind that the caller may see, in their order, `most` at most.
pub async fn list<T: DeserializeOwned>(
    database: &Database,
    seen: &Seen,
    kind: Kind,
    which: &Which,
    behind: Option<&Behind>,
    most: i64,
) -> Result<Page<T>, Fault> {
    // Entities alone can be open one by one.
    let single = kind == Kind::Entity;
    let tagged = if kind == Kind::Entity { "r.tags ? $5" } else { "r.kind = $5" };
    let sql = format!(
        "select r.a::bigint, r.b, to_jsonb(r) - 'a' - 'b' - 'kind' - 'state' \
         from ({}) r where ($1::integer is null or r.org_id = $1) \
         and ($2::bigint is null or r.a = $2) and ($3::text is null or r.b = $3) \
         and ($4::text is null or r.state = $4) and ($5::text is null or {tagged}) \
         and ($6::bigint is null or (r.a, r.b) > ($6::bigint, $7::text)) \
         and (r.org_id = any($9) or ({single} and r.a = any($10))) \
         order by r.a, r.b limit $8",
        select(kind),
    );
    let mut view = View::begin(database, seen).await?;
    let query = sqlx::query_as(AssertSqlSafe(sql))
        .bind(which.org)
        .bind(which.number)
        .bind(&which.name)
        .bind(&which.status)
        .bind(&which.of_type)
        .bind(behind.map(|behind| behind.0))
        .bind(behind.map(|behind| behind.1.as_str()))
        .bind(most)
        .bind(if kind == Kind::Org { &seen.orgs } else { &seen.whole })
        .bind(&seen.entities);
    let rows = query.fetch(&mut *view.connection.held);
    let bytes = |(_, _, row): &(i64, String, Value)| row.to_string().len();
    let (rows, whole) = answered(view.patience, bounded(rows, bytes)).await?;
    if whole {
        view.end().await?;
    }
    let listed = |(a, b, row)| {
        let row = serde_json::from_value(row)
            .map_err(|error| Fault::hold(format!("a row that can't be shown: {error}")))?;
        Ok(Listed { row, behind: Behind(a, b) })
    };
    let rows = rows.into_iter().map(listed).collect::<Result<_, Fault>>()?;
    Ok(Page { rows, whole })
}

/// A read-only transaction in which one caller's orgs count.
struct View {
    connection: Borrowed,
    patience: Duration,
}

impl View {
    async fn begin(database: &Database, seen: &Seen) -> Result<Self, Fault> {
        let mut connection = database.borrow().await?;
        let patience = database.patience(false);
        // Numbers only: nothing of a caller's text comes in here.
        let orgs: Vec<String> = seen.orgs.iter().map(ToString::to_string).collect();
        let sql = format!("begin read only; set local haystack.orgs = '{{{}}}'", orgs.join(","));
        let begun = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection.held);
        answered(patience, begun).await?;
        Ok(Self { connection, patience })
    }

    async fn end(mut self) -> Result<(), Fault> {
        let ended = sqlx::raw_sql("commit").execute(&mut *self.connection.held);
        answered(self.patience, ended).await?;
        self.connection.give_back();
        Ok(())
    }
}

/// A value of an entity.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct ValueRow {
    /// Whose.
    pub entity_id: i32,
    /// When.
    pub ts: chrono::DateTime<chrono::Utc>,
    /// A number.
    pub value_n: Option<f64>,
    /// A boolean.
    pub value_b: Option<bool>,
    /// A text.
    pub value_s: Option<String>,
    /// A moment.
    pub value_ts: Option<chrono::DateTime<chrono::Utc>>,
}

/// Numbers of an entity in a bucket of time; a boolean counts as 0 or 1.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct BucketRow {
    /// Where the bucket begins.
    pub ts: chrono::DateTime<chrono::Utc>,
    /// How many there are.
    pub count: i64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// The first.
    pub first: f64,
    /// The last.
    pub last: f64,
}

/// A range of time: from is in it, to is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Where it begins.
    pub from: Timestamp,
    /// Where it ends.
    pub to: Timestamp,
}

/// Most bytes of texts in one answer of values, and of rows in one page of a list.
const MAX_BYTES: usize = 4 << 20;

/// Values of entities of one org, by entity and time, `most` at most; `None` where their texts are more
/// than an answer may hold.
pub async fn values(
    database: &Database,
    seen: &Seen,
    org: OrgId,
    entities: &[i32],
    range: Range,
    newest_first: bool,
    most: i32,
) -> Result<Option<Vec<ValueRow>>, Fault> {
    let mut view = View::begin(database, seen).await?;
    let rows = sqlx::query_as("select * from core.read_values($1, $2, $3, $4, $5, $6)")
        .bind(org.0)
        .bind(entities)
        .bind(range.from.to_chrono())
        .bind(range.to.to_chrono())
        .bind(newest_first)
        .bind(most)
        .fetch(&mut *view.connection.held);
    let text = |row: &ValueRow| row.value_s.as_ref().map_or(0, String::len);
    let (rows, whole) = answered(view.patience, bounded(rows, text)).await?;
    if !whole {
        // The rest of the answer is on its way: the connection is closed, not used again.
        return Ok(None);
    }
    view.end().await?;
    Ok(Some(rows))
}

/// Rows as long as they are few enough bytes, and whether these are all.
pub(crate) async fn bounded<T>(
    rows: impl Stream<Item = sqlx::Result<T>>,
    bytes: impl Fn(&T) -> usize,
) -> sqlx::Result<(Vec<T>, bool)> {
    let (mut kept, mut sum) = (Vec::new(), 0);
    let mut rows = std::pin::pin!(rows);
    while let Some(row) = rows.next().await {
        let row = row?;
        sum += bytes(&row);
        // One is always given: a page with nothing on it would never end.
        if sum > MAX_BYTES && !kept.is_empty() {
            return Ok((kept, false));
        }
        kept.push(row);
    }
    Ok((kept, true))
}

/// Buckets of an entity of an org, of `every` microseconds each, `most` at most.
pub async fn buckets(
    database: &Database,
    seen: &Seen,
    org: OrgId,
    entity: i32,
    range: Range,
    every: i64,
    most: i32,
) -> Result<Vec<BucketRow>, Fault> {
    let mut view = View::begin(database, seen).await?;
    let asked = sqlx::query_as(
        "select * from core.read_buckets($1, $2, $3, $4, $5 * interval '1 microsecond', $6)",
    )
    .bind(org.0)
    .bind(entity)
    .bind(range.from.to_chrono())
    .bind(range.to.to_chrono())
    .bind(every as f64)
    .bind(most)
    .fetch_all(&mut *view.connection.held);
    let rows = answered(view.patience, asked).await?;
    view.end().await?;
    Ok(rows)
}

/// The newest value of each of the entities of an org.
pub async fn current(
    database: &Database,
    seen: &Seen,
    org: OrgId,
    entities: &[i32],
) -> Result<Vec<ValueRow>, Fault> {
    let mut view = View::begin(database, seen).await?;
    let asked = sqlx::query_as("select * from core.read_current($1, $2)")
        .bind(org.0)
        .bind(entities)
        .fetch_all(&mut *view.connection.held);
    let rows = answered(view.patience, asked).await?;
    view.end().await?;
    Ok(rows)
}

/// Changes of an org's model, the last first, before the change of sequence `before`: `most` at most, and
/// fewer where they are large.
pub async fn changes<T: DeserializeOwned>(
    database: &Database,
    seen: &Seen,
    org: OrgId,
    before: Option<i64>,
    most: i64,
) -> Result<Vec<T>, Fault> {
    let mut view = View::begin(database, seen).await?;
    let asked = sqlx::query_scalar(
        "select to_jsonb(r) from (select model_sequence as revision, at, changed_by, request_id, \
             subject, before, after from core.audit_log where org_id = $1 \
             and ($2::bigint is null or model_sequence < $2) \
             order by model_sequence desc limit $3) r order by r.revision desc",
    )
    .bind(org.0)
    .bind(before)
    .bind(most)
    .fetch(&mut *view.connection.held);
    let bytes = |Json(row): &Json<Value>| row.to_string().len();
    let (rows, whole) = answered(view.patience, bounded(asked, bytes)).await?;
    if whole {
        view.end().await?;
    }
    let shown = |Json(row)| {
        serde_json::from_value(row)
            .map_err(|error| Fault::hold(format!("a row that can't be shown: {error}")))
    };
    rows.into_iter().map(shown).collect()
}
