-- Readings: a pair of tables for each org, made when the org is, and the deletions that drop older
-- versions which arrive later.

create table core.deletions (
    org_id integer not null,
    entity_id integer not null,
    ts_from timestamptz not null,
    ts_to timestamptz not null,
    accepted_at timestamptz not null,
    version bigint not null,
    primary key (org_id, entity_id, ts_from, ts_to)
);
create index deletions_by_acceptance on core.deletions (org_id, accepted_at);
-- Tombstones are few and wide, removals many and one microsecond each: they are looked up apart.
create index deletions_wide on core.deletions (org_id, entity_id)
    where ts_to - ts_from <> interval '1 microsecond';

-- Makes a values table a hypertable, compressed after a week, where TimescaleDB is there.
create function core.make_hypertable(values_table text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
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
        'select %I.create_hypertable(%L::regclass, %L::name, '
        'chunk_time_interval => interval ''1 day'', create_default_indexes => false)',
        extension_schema, values_table, 'ts');
    begin
        execute format(
            'alter table %s set (timescaledb.compress, '
            'timescaledb.compress_segmentby = %L, timescaledb.compress_orderby = %L)',
            values_table, 'entity_id', 'ts');
        execute format(
            'select %I.add_compression_policy(%L::regclass, interval ''7 days'')',
            extension_schema, values_table);
    exception when feature_not_supported then
        raise warning '% stays uncompressed: this edition of TimescaleDB does not compress',
            values_table;
    end;
end $$;

-- Lets the writing role at the tables of one org, or at the shared ones.
create function core.grant_writing(tables text[]) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    one text;
begin
    if not exists (select from pg_roles where rolname = 'haystack_ingest') then
        return;
    end if;
    foreach one in array tables loop
        execute format(
            'grant select, insert, update, delete on core.%I to haystack_ingest', one);
    end loop;
end $$;

-- Makes an org's two tables. Safe to call again and by two at once. The writing role may call it
-- and nothing else that makes tables: it runs with the rights of the role that migrated.
create function core.create_values_tables(org_key text) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    values_table text := 'values_' || org_key;
    current_table text := 'values_' || org_key || '_current';
    columns constant text :=
        'entity_id integer not null, ts timestamptz not null, value_n double precision, '
        'value_b boolean, value_s text, value_ts timestamptz, '
        'accepted_at timestamptz not null, version bigint not null, ';
begin
    if org_key is null or org_key !~ '^[a-z][a-z0-9_]{0,30}$' or org_key ~ '_current$' then
        raise exception 'org key % is not valid', quote_nullable(org_key);
    end if;
    perform pg_advisory_xact_lock(1213399043, 0);
    if to_regclass(format('core.%I', values_table)) is null then
        execute format('create table core.%I (%s primary key (entity_id, ts))',
            values_table, columns);
        perform core.make_hypertable(format('core.%I', values_table));
    end if;
    if to_regclass(format('core.%I', current_table)) is null then
        -- Half-filled pages: a newer value of an entity stays on its page and touches no index.
        execute format('create table core.%I (%s primary key (entity_id)) with (fillfactor = 50)',
            current_table, columns);
    end if;
    perform core.grant_writing(array[values_table, current_table]);
end $$;

-- Gives the writing role what it needs, also where it was created after the tables were. Run after
-- every migration by the role that owns the tables.
create function core.grant_access() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles where rolname = 'haystack_ingest') then
        return;
    end if;
    perform pg_advisory_xact_lock(1213399043, 0);
    grant usage on schema core to haystack_ingest;
    grant execute on function core.create_values_tables(text) to haystack_ingest;
    -- `doctor` compares the migrations that were applied.
    grant select on core.schema_migrations to haystack_ingest;
    perform core.grant_writing(array['org', 'entity', 'entity_tag', 'tag_def', 'device_types',
        'device_type_current', 'devices', 'device_point', 'model_position', 'deletions']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;

revoke execute on function core.create_values_tables(text) from public;
revoke execute on function core.make_hypertable(text) from public;
revoke execute on function core.grant_writing(text[]) from public;
revoke execute on function core.grant_access() from public;
