-- The archive: every device message as it came. Append-only for the writing role; what is older than
-- the policy, which only the owner of the tables sets, goes by a function.

create table core.telemetry_raw (
    -- Where it stands in the stream RAW: a row of a values table names the same (accepted_at, and
    -- sequence and index inside `version`).
    accepted_at timestamptz not null,
    sequence bigint not null,
    index integer not null,
    received_at timestamptz not null,
    -- Null where the sender was not registered.
    org_key text,
    device_id text,
    device_type text,
    profile_version integer,
    -- What the sender called itself.
    name text not null,
    content_type text not null,
    -- Of the broker's delivery: its session, the packet's id there, and the door's own count.
    session bigint not null,
    packet_id integer not null,
    number bigint not null,
    payload bytea not null,
    primary key (accepted_at, sequence, index)
);

create table core.archive_policy (
    only_row boolean primary key default true check (only_row),
    -- 0: for ever.
    keep_days integer not null check (keep_days >= 0)
);
insert into core.archive_policy (keep_days) values (30);

-- A hypertable, compressed after a week, where TimescaleDB is there.
do $$
declare
    extension_schema text;
begin
    select n.nspname into extension_schema
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'timescaledb';
    if extension_schema is null then
        return;
    end if;
    execute format(
        'select %I.create_hypertable(''core.telemetry_raw''::regclass, ''accepted_at''::name, '
        'chunk_time_interval => interval ''1 day'', create_default_indexes => false)',
        extension_schema);
    begin
        alter table core.telemetry_raw set (timescaledb.compress,
            timescaledb.compress_segmentby = 'device_id',
            timescaledb.compress_orderby = 'accepted_at, sequence, index');
        execute format(
            'select %I.add_compression_policy(''core.telemetry_raw''::regclass, '
            'interval ''7 days'')', extension_schema);
    exception when feature_not_supported then
        raise warning 'the archive stays uncompressed: this edition of TimescaleDB does not compress';
    end;
end $$;

-- Removes what is older than the policy says, at most so many rows; gives how many. The writing role
-- may call it and can't remove anything else.
create function core.expire_telemetry_raw(most integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    keep integer;
    removed bigint;
    extension_schema text;
begin
    select keep_days into keep from core.archive_policy;
    if coalesce(keep, 0) = 0 then
        return 0;
    end if;
    select n.nspname into extension_schema
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace
    where e.extname = 'timescaledb';
    if extension_schema is not null then
        -- Whole days at once, without a look at rows.
        execute format(
            'select count(*) from %I.drop_chunks(''core.telemetry_raw''::regclass, '
            'older_than => now() - make_interval(days => %s))', extension_schema, keep);
        return 0;
    end if;
    delete from core.telemetry_raw where (accepted_at, sequence, index) in (
        select accepted_at, sequence, index from core.telemetry_raw
        where accepted_at < now() - make_interval(days => keep)
        order by accepted_at limit most);
    get diagnostics removed = row_count;
    return removed;
end $$;
revoke execute on function core.expire_telemetry_raw(integer) from public;

-- Every org's values with the device that sent them, as one view. It is made anew with each org. Where
-- PostgreSQL can (15), it shows to each role what that role may read, and no more.
create function core.refresh_history() returns void
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
        'v.value_b, v.value_s, v.value_ts, v.accepted_at '
        'from core.%I v '
        'left join core.device_point p on p.entity_id = v.entity_id '
        'left join core.devices d on d.device_id = p.device_id',
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
            'null::timestamptz as accepted_at where false';
    end if;
    -- Unchanged, it is left alone: whoever reads it would be in the way.
    if obj_description(to_regclass('core.telemetry_history'), 'pg_class') = md5(orgs) then
        return;
    end if;
    execute format('create or replace view core.telemetry_history %s as %s', options, orgs);
    execute format('comment on view core.telemetry_history is %L', md5(orgs));
end $$;
revoke execute on function core.refresh_history() from public;
select core.refresh_history();

create or replace function core.grant_access() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles where rolname = 'haystack_ingest') then
        return;
    end if;
    perform pg_advisory_xact_lock(1213399043, 0);
    grant usage on schema core to haystack_ingest;
    grant execute on function core.create_values_tables(text) to haystack_ingest;
    grant execute on function core.expire_telemetry_raw(integer) to haystack_ingest;
    grant execute on function core.refresh_history() to haystack_ingest;
    -- `doctor` compares the migrations that were applied.
    grant select on core.schema_migrations, core.archive_policy, core.telemetry_history
        to haystack_ingest;
    -- What came is on record: it is added to, and never changed.
    revoke all on core.telemetry_raw from haystack_ingest;
    grant select, insert on core.telemetry_raw to haystack_ingest;
    perform core.grant_writing(array['org', 'entity', 'entity_tag', 'tag_def', 'device_types',
        'device_type_current', 'devices', 'device_point', 'poller_config', 'poller_entity',
        'model_position', 'deletions', 'telemetry_transactions', 'device_presence']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;
