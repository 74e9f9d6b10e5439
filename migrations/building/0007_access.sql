-- Who may do what, assets, what was taken away, and who changed what. The role of the API reads under
-- row-level security, and values through functions that check the org.

create table core.acl_user (
    user_id integer primary key,
    name text not null,
    email text,
    -- Who vouches for the user, and what the user is called there.
    issuer text not null,
    subject text not null,
    platform_admin boolean not null,
    active boolean not null,
    model_sequence bigint not null
);

-- What a user may do in a whole org.
create table core.acl_org (
    org_id integer not null references core.org deferrable initially deferred,
    user_id integer not null,
    permissions text[] not null,
    model_sequence bigint not null,
    primary key (org_id, user_id)
);

-- What a user may do with single entities of an org, beside that. No foreign key to the entity: it may
-- be taken away, and what was granted then opens nothing.
create table core.org_entity_permission (
    org_id integer not null,
    user_id integer not null,
    entity_id integer not null,
    permissions text[] not null,
    primary key (org_id, user_id, entity_id),
    foreign key (org_id, user_id) references core.acl_org on delete cascade deferrable initially deferred
);

create table core.asset_types (
    org_id integer not null references core.org deferrable initially deferred,
    asset_type text not null,
    name text not null,
    metric_definitions jsonb not null,
    transformation_engine text,
    health_algorithm text,
    model_sequence bigint not null,
    primary key (org_id, asset_type)
);

create table core.assets (
    asset_id integer primary key,
    org_id integer not null references core.org deferrable initially deferred,
    asset_type text not null,
    name text not null,
    tags jsonb not null,
    -- Computed, not part of the record.
    health_score double precision,
    health_score_updated_at timestamptz,
    health_score_computed_by text,
    last_telemetry_at timestamptz,
    model_sequence bigint not null
);
create index assets_by_org on core.assets (org_id, asset_id);

-- The asset that a device observes: one, the one whose record was written last.
create table core.asset_device (
    device_id text primary key,
    asset_id integer not null references core.assets on delete cascade deferrable initially deferred
);
create index asset_device_by_asset on core.asset_device (asset_id);

-- What was taken away stays as a row that nobody sees: others may still point at it.
alter table core.entity add column gone boolean not null default false;
alter table core.devices add column gone boolean not null default false;
-- A gateway may be taken away while somebody registers what it speaks for.
alter table core.devices drop constraint devices_parent_device_id_fkey;

-- Who changed the model: one row a record that a person or a program of theirs wrote. A database that
-- was away while a record changed twice knows the later change only.
create table core.audit_log (
    model_sequence bigint primary key,
    at timestamptz not null,
    org_id integer,
    changed_by text not null,
    request_id text,
    subject text not null,
    -- The record as it was and as it is; a large one by its length and hash.
    before jsonb,
    after jsonb not null
);
create index audit_log_by_org on core.audit_log (org_id, model_sequence desc);
create index audit_log_by_subject on core.audit_log (subject, model_sequence desc);

-- The orgs that the present caller may see, as the API says for each transaction.
create function core.caller_orgs() returns integer[]
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce(nullif(current_setting('haystack.orgs', true), ''), '{}')::integer[]
$$;

-- The values table of an org that the caller may see; an error of its own where it may not.
create function core.checked_values(org integer) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    org_key text;
begin
    if org is null or org <> all(core.caller_orgs()) then
        raise exception 'org % is not open to the caller', org using errcode = 'insufficient_privilege';
    end if;
    select o.org_key into org_key from core.org o where o.org_id = org;
    return 'values_' || org_key;
end $$;

-- Values of entities of one org, in order, `most` rows at most. From is included, to is not.
create function core.read_values(
    org integer, entities integer[], from_ts timestamptz, to_ts timestamptz, newest_first boolean,
    most integer)
returns table (entity_id integer, ts timestamptz, value_n double precision, value_b boolean,
    value_s text, value_ts timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    table_name text := core.checked_values(org);
    direction text := case when newest_first then 'desc' else 'asc' end;
begin
    if to_regclass(format('core.%I', table_name)) is null then
        return;
    end if;
    return query execute format(
        'select v.entity_id, v.ts, v.value_n, v.value_b, v.value_s, v.value_ts from core.%I v '
        'where v.entity_id = any($1) and v.ts >= $2 and v.ts < $3 '
        'and exists (select from core.entity e where e.entity_id = v.entity_id and e.org_id = $4 '
        'and not e.gone) order by v.entity_id, v.ts %s limit $5', table_name, direction)
        using entities, from_ts, to_ts, org, most;
end $$;

-- The same of one entity, a row a bucket of time. Buckets begin at multiples of `every` from Monday,
-- 2000-01-03 on.
create function core.read_buckets(
    org integer, entity integer, from_ts timestamptz, to_ts timestamptz, every interval, most integer)
returns table (ts timestamptz, count bigint, min double precision, max double precision,
    mean double precision, first double precision, last double precision)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    table_name text := core.checked_values(org);
begin
    if to_regclass(format('core.%I', table_name)) is null then
        return;
    end if;
    return query execute format(
        'select b.bucket, count(*), min(b.n), max(b.n), avg(b.n), '
        '(array_agg(b.n order by b.ts))[1], (array_agg(b.n order by b.ts desc))[1] '
        'from (select date_bin($4, v.ts, timestamptz ''2000-01-03 00:00:00+00'') as bucket, v.ts, '
        'coalesce(v.value_n, v.value_b::integer::double precision) as n from core.%I v '
        'where v.entity_id = $1 and v.ts >= $2 and v.ts < $3 '
        'and exists (select from core.entity e where e.entity_id = v.entity_id and e.org_id = $5 '
        'and not e.gone)) b where b.n is not null group by b.bucket order by b.bucket limit $6',
        table_name)
        using entity, from_ts, to_ts, every, org, most;
end $$;

-- The newest value of each of the entities.
create function core.read_current(org integer, entities integer[])
returns table (entity_id integer, ts timestamptz, value_n double precision, value_b boolean,
    value_s text, value_ts timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    table_name text := core.checked_values(org) || '_current';
begin
    if to_regclass(format('core.%I', table_name)) is null then
        return;
    end if;
    return query execute format(
        'select v.entity_id, v.ts, v.value_n, v.value_b, v.value_s, v.value_ts from core.%I v '
        'join core.entity e on e.entity_id = v.entity_id and e.org_id = $2 and not e.gone '
        'where v.entity_id = any($1) order by v.entity_id', table_name)
        using entities, org;
end $$;

revoke execute on function core.checked_values(integer) from public;
revoke execute on function core.read_values(
    integer, integer[], timestamptz, timestamptz, boolean, integer) from public;
revoke execute on function core.read_buckets(
    integer, integer, timestamptz, timestamptz, interval, integer) from public;
revoke execute on function core.read_current(integer, integer[]) from public;

-- Values of an org with the device that sent them and the asset that it observes, as
-- `core.telemetry_history` shows them, for who may not read the tables.
create function core.read_history(org integer, from_ts timestamptz, to_ts timestamptz, most integer)
returns table (device_id text, metric text, asset_id integer, entity_id integer, ts timestamptz,
    value_n double precision, value_b boolean, value_s text, value_ts timestamptz,
    accepted_at timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    table_name text := core.checked_values(org);
begin
    if to_regclass(format('core.%I', table_name)) is null then
        return;
    end if;
    return query execute format(
        'select p.device_id, p.metric, a.asset_id, v.entity_id, v.ts, v.value_n, v.value_b, v.value_s, '
        'v.value_ts, v.accepted_at from core.%I v '
        'join core.entity e on e.entity_id = v.entity_id and e.org_id = $1 and not e.gone '
        'left join core.device_point p on p.entity_id = v.entity_id '
        'left join core.asset_device a on a.device_id = p.device_id '
        'where v.ts >= $2 and v.ts < $3 order by v.ts, v.entity_id limit $4', table_name)
        using org, from_ts, to_ts, most;
end $$;
revoke execute on function core.read_history(integer, timestamptz, timestamptz, integer) from public;

-- The view with the asset that a device observes.
create or replace function core.refresh_history() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    orgs text;
    options text := '';
begin
    if current_setting('server_version_num')::integer >= 150000 then
        options := 'with (security_invoker = true)';
    end if;
    select string_agg(format(
        'select %s::integer as org_id, %L::text as org_key, p.device_id, d.device_type, '
        'd.parent_device_id, d.logical_identifier, p.metric, v.entity_id, v.ts, v.value_n, '
        'v.value_b, v.value_s, v.value_ts, v.accepted_at, a.asset_id, a.asset_type, '
        'a.name as asset_name '
        'from core.%I v '
        'left join core.device_point p on p.entity_id = v.entity_id '
        'left join core.devices d on d.device_id = p.device_id '
        'left join core.asset_device o on o.device_id = p.device_id '
        'left join core.assets a on a.asset_id = o.asset_id',
        o.org_id, o.org_key, 'values_' || o.org_key), ' union all ' order by o.org_id)
    into orgs
    from core.org o
    where to_regclass(format('core.%I', 'values_' || o.org_key)) is not null;
    if orgs is null then
        -- The same columns, no row.
        orgs := 'select null::integer as org_id, null::text as org_key, null::text as device_id, '
            'null::text as device_type, null::text as parent_device_id, '
            'null::text as logical_identifier, null::text as metric, null::integer as entity_id, '
            'null::timestamptz as ts, null::double precision as value_n, null::boolean as value_b, '
            'null::text as value_s, null::timestamptz as value_ts, '
            'null::timestamptz as accepted_at, null::integer as asset_id, null::text as asset_type, '
            'null::text as asset_name where false';
    end if;
    -- Unchanged, it is left alone: whoever reads it would be in the way.
    if obj_description(to_regclass('core.telemetry_history'), 'pg_class') = md5(orgs) then
        return;
    end if;
    execute format('create or replace view core.telemetry_history %s as %s', options, orgs);
    execute format('comment on view core.telemetry_history is %L', md5(orgs));
end $$;
select core.refresh_history();

-- Tables whose rows belong to orgs, and the rule by which the API's role sees a row.
create function core.guarded_tables() returns table (name text, rule text)
language sql immutable set search_path = pg_catalog, pg_temp as $$
    select t, 'org_id = any(core.caller_orgs())' from unnest(array['org', 'entity', 'tag_def',
        'device_types', 'device_type_current', 'devices', 'poller_config', 'acl_org',
        'org_entity_permission', 'asset_types', 'assets', 'audit_log', 'telemetry_transactions',
        'device_presence', 'deletions']) as t
    union all values
        ('entity_tag', 'exists (select from core.entity e where e.entity_id = entity_tag.entity_id)'),
        ('device_point', 'exists (select from core.devices d where d.device_id = device_point.device_id)'),
        ('poller_entity',
            'exists (select from core.poller_config p where p.poller_id = poller_entity.poller_id)'),
        ('asset_device', 'exists (select from core.assets a where a.asset_id = asset_device.asset_id)'),
        ('acl_user',
            'exists (select from core.acl_org a where a.user_id = acl_user.user_id)')
$$;
revoke execute on function core.guarded_tables() from public;

-- Without a policy a role sees nothing: the role that writes gets one for all rows, the role of the API
-- one by org.
do $$
declare
    guarded record;
begin
    for guarded in select * from core.guarded_tables() loop
        execute format('alter table core.%I enable row level security', guarded.name);
    end loop;
end $$;

-- Gives the role of the API what it may have, and takes away all else.
create function core.grant_api_access() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    guarded record;
begin
    if not exists (select from pg_roles where rolname = 'haystack_api') then
        return;
    end if;
    revoke all on all tables in schema core from haystack_api;
    grant usage on schema core to haystack_api;
    grant execute on function core.caller_orgs() to haystack_api;
    grant execute on function core.read_values(
        integer, integer[], timestamptz, timestamptz, boolean, integer) to haystack_api;
    grant execute on function core.read_buckets(
        integer, integer, timestamptz, timestamptz, interval, integer) to haystack_api;
    grant execute on function core.read_current(integer, integer[]) to haystack_api;
    grant execute on function core.read_history(integer, timestamptz, timestamptz, integer)
        to haystack_api;
    grant select on core.model_position, core.schema_migrations to haystack_api;
    for guarded in select * from core.guarded_tables() loop
        execute format('grant select on core.%I to haystack_api', guarded.name);
        -- One that is there is left alone: making it anew would lock out whoever uses the table.
        if not exists (select from pg_policies p where p.schemaname = 'core'
                and p.tablename = guarded.name and p.policyname = 'by_org') then
            execute format('create policy by_org on core.%I for select to haystack_api using (%s)',
                guarded.name, guarded.rule);
        end if;
    end loop;
end $$;
revoke execute on function core.grant_api_access() from public;

create or replace function core.grant_access() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    guarded record;
begin
    perform pg_advisory_xact_lock(1213399043, 0);
    perform core.grant_api_access();
    if not exists (select from pg_roles where rolname = 'haystack_ingest') then
        return;
    end if;
    for guarded in select * from core.guarded_tables() loop
        if not exists (select from pg_policies p where p.schemaname = 'core'
                and p.tablename = guarded.name and p.policyname = 'writer') then
            execute format('create policy writer on core.%I to haystack_ingest using (true) '
                'with check (true)', guarded.name);
        end if;
    end loop;
    grant usage on schema core to haystack_ingest;
    grant execute on function core.create_values_tables(text) to haystack_ingest;
    grant execute on function core.expire_telemetry_raw(integer) to haystack_ingest;
    grant execute on function core.refresh_history() to haystack_ingest;
    -- `doctor` compares the migrations that were applied.
    grant select on core.schema_migrations, core.archive_policy, core.telemetry_history
        to haystack_ingest;
    -- What came, and who changed what, is on record: it is added to, and never changed.
    revoke all on core.telemetry_raw, core.audit_log from haystack_ingest;
    grant select, insert on core.telemetry_raw, core.audit_log to haystack_ingest;
    perform core.grant_writing(array['org', 'entity', 'entity_tag', 'tag_def', 'device_types',
        'device_type_current', 'devices', 'device_point', 'poller_config', 'poller_entity',
        'model_position', 'deletions', 'telemetry_transactions', 'device_presence', 'acl_user',
        'acl_org', 'org_entity_permission', 'asset_types', 'assets', 'asset_device']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;
