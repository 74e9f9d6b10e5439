//! Users and what they may do.

use domain::{
    access::{Grant, Permissions, User},
    model::Record,
};
use sqlx::{PgConnection, postgres::PgBindIterExt};

pub(super) async fn user(
    connection: &mut PgConnection,
    sequence: u64,
    user: &User,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into core.acl_user as u (user_id, name, email, issuer, subject, platform_admin, \
             active, model_sequence) \
         values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (user_id) do update \
         set name = excluded.name, email = excluded.email, issuer = excluded.issuer, \
             subject = excluded.subject, platform_admin = excluded.platform_admin, \
             active = excluded.active, model_sequence = excluded.model_sequence \
         where excluded.model_sequence > u.model_sequence",
    )
    .bind(user.id.0)
    .bind(&user.name)
    .bind(&user.email)
    .bind(&user.issuer)
    .bind(&user.subject)
    .bind(user.platform_admin)
    .bind(user.active)
    .bind(sequence as i64)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn grant(
    connection: &mut PgConnection,
    sequence: u64,
    grant: &Grant,
) -> sqlx::Result<()> {
    let changed = sqlx::query(
        "insert into core.acl_org as a (org_id, user_id, permissions, model_sequence) \
         values ($1, $2, $3, $4) on conflict (org_id, user_id) do update \
         set permissions = excluded.permissions, model_sequence = excluded.model_sequence \
         where excluded.model_sequence > a.model_sequence",
    )
    .bind(grant.org_id.0)
    .bind(grant.user.0)
    .bind(names(&grant.rights.permissions))
    .bind(sequence as i64)
    .execute(&mut *connection)
    .await?;
    if changed.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("delete from core.org_entity_permission where org_id = $1 and user_id = $2")
        .bind(grant.org_id.0)
        .bind(grant.user.0)
        .execute(&mut *connection)
        .await?;
    if grant.rights.is_empty() {
        // Out of the org.
        return sqlx::query("delete from core.acl_org where org_id = $1 and user_id = $2")
            .bind(grant.org_id.0)
            .bind(grant.user.0)
            .execute(connection)
            .await
            .map(drop);
    }
    let single = || grant.rights.entities.iter();
    sqlx::query(
        "insert into core.org_entity_permission (org_id, user_id, entity_id, permissions) \
         select $1, $2, p.entity_id, string_to_array(p.permissions, ',') \
         from unnest($3::integer[], $4::text[]) as p (entity_id, permissions)",
    )
    .bind(grant.org_id.0)
    .bind(grant.user.0)
    .bind(single().map(|(entity, _)| entity.0).bind_iter())
    .bind(single().map(|(_, these)| names(these).join(",")).bind_iter())
    .execute(connection)
    .await
    .map(drop)
}

fn names(permissions: &Permissions) -> Vec<&'static str> {
    permissions.iter().map(|permission| permission.as_str()).collect()
}

/// The record as the audit log shows it: a key without what recognises its secret.
pub(super) fn shown(record: &Record) -> serde_json::Value {
    let mut shown = serde_json::to_value(record).unwrap_or_default();
    if let Some(key) = shown.get_mut("key").and_then(serde_json::Value::as_object_mut) {
        key.remove("hash");
    }
    shown
}
