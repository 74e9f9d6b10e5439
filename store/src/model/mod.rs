//! `MODEL` into tables: a projection, applied in order and guarded by the records' sequences.

mod access;
mod asset;
mod audit;
mod device;
mod entity;
mod gone;
mod poller;
mod types;

pub use audit::Change;

use crate::{
    connect::{Borrowed, Database, answered},
    fault::Fault,
    write::open::MODEL_LOCK,
};
use domain::model::{Org, Record};
use entity::Entities;
use std::time::Duration;

/// A transaction that applies records. Dropped without [`Projection::commit`] it changes nothing.
pub struct Projection {
    connection: Borrowed,
    patience: Duration,
    position: u64,
    entities: Entities,
}

impl Projection {
    /// Begins: waits for another instance that applies records to this database, then reads how far
    /// it is.
    pub async fn begin(database: &Database) -> Result<Self, Fault> {
        let mut connection = database.borrow().await?;
        let limit = database.limits.deletion.as_millis();
        let sql = format!(
            "begin isolation level read committed; set local statement_timeout = {limit}; \
             select true from pg_advisory_xact_lock({MODEL_LOCK}, 0)"
        );
        let patience = database.patience(true);
        let begun = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection.held);
        answered(patience, begun).await?;
        // Asked after the lock is held: what the other instance committed is seen.
        let asked = sqlx::query_scalar("select sequence from core.model_position")
            .fetch_one(&mut *connection.held);
        let position: i64 = answered(patience, asked).await?;
        let entities = Entities::default();
        Ok(Self { connection, patience, position: position as u64, entities })
    }

    /// The sequence up to which `MODEL` has been applied. Ahead of the stream's end it shows that
    /// this database belongs to another stream.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Applies a record. One that is not newer than the row it would write changes nothing.
    pub async fn apply(&mut self, sequence: u64, record: &Record) -> Result<(), Fault> {
        answered(self.patience, self.apply_one(sequence, record)).await
    }

    /// Notes who wrote a record, for good.
    pub async fn note(
        &mut self,
        sequence: u64,
        record: &Record,
        change: Change<'_>,
    ) -> Result<(), Fault> {
        let noted = audit::note(&mut self.connection.held, sequence, record, change);
        answered(self.patience, noted).await
    }

    async fn apply_one(&mut self, sequence: u64, record: &Record) -> Result<(), Fault> {
        let connection = &mut *self.connection.held;
        match record {
            Record::Org(org) => apply_org(connection, sequence, org).await?,
            Record::Entity(entity) => {
                self.entities.add(sequence, entity);
                if self.entities.full() {
                    self.entities.flush(connection).await?;
                }
            }
            Record::TagDef(def) => types::tag_def(connection, sequence, def).await?,
            Record::Profile(profile) => types::profile(connection, sequence, profile).await?,
            Record::DeviceType(head) => types::head(connection, sequence, head).await?,
            Record::Device(device) => device::apply(connection, sequence, device).await?,
            Record::Poller(poller) => poller::apply(connection, sequence, poller).await?,
            Record::User(user) => access::user(connection, sequence, user).await?,
            Record::Grant(grant) => access::grant(connection, sequence, grant).await?,
            // Keys open the API, not a database: no copy of what recognises them is made.
            Record::Key(_) => {}
            Record::AssetType(kind) => asset::kind(connection, sequence, kind).await?,
            Record::Asset(asset) => asset::apply(connection, sequence, asset).await?,
            Record::Gone(gone) => {
                // What waits may be the record that is gone.
                self.entities.flush(connection).await?;
                gone::apply(connection, sequence, gone).await?;
            }
        }
        Ok(())
    }

    /// Commits everything applied; what refers to something that is missing is found here.
    pub async fn commit(mut self, position: u64) -> Result<(), Fault> {
        answered(self.patience, self.finish(position)).await?;
        self.connection.give_back();
        Ok(())
    }

    async fn finish(&mut self, position: u64) -> Result<(), Fault> {
        let connection = &mut *self.connection.held;
        self.entities.flush(connection).await?;
        sqlx::query("update core.model_position set sequence = $1 where sequence < $1")
            .bind(position as i64)
            .execute(&mut *connection)
            .await?;
        sqlx::raw_sql("commit").execute(connection).await?;
        Ok(())
    }
}

async fn apply_org(
    connection: &mut sqlx::PgConnection,
    sequence: u64,
    org: &Org,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into core.org as o (org_id, org_key, name, model_sequence) \
         values ($1, $2, $3, $4) on conflict (org_id) do update \
         set org_key = excluded.org_key, name = excluded.name, \
             model_sequence = excluded.model_sequence \
         where excluded.model_sequence > o.model_sequence",
    )
    .bind(org.id.0)
    .bind(org.key.as_str())
    .bind(&org.name)
    .bind(sequence as i64)
    .execute(&mut *connection)
    .await?;
    sqlx::query("select core.create_values_tables($1)")
        .bind(org.key.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
