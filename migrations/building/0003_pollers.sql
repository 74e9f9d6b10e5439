-- Pollers: what of ours brings readings by itself, such as a simulator. A projection of MODEL.

create table core.poller_config (
    id integer primary key,
    org_id integer not null references core.org deferrable initially deferred,
    poller_type varchar not null,
    poller_id integer not null unique,
    poller_name varchar not null,
    -- JSON.
    config varchar not null,
    status varchar not null,
    created_at timestamptz not null default now(),
    model_sequence bigint not null
);
create index poller_config_by_org on core.poller_config (org_id);

-- The entities of a poller, by the key that its configuration gives them.
create table core.poller_entity (
    poller_id integer not null
        references core.poller_config (poller_id) on delete cascade deferrable initially deferred,
    key text not null,
    entity_id integer not null references core.entity deferrable initially deferred,
    primary key (poller_id, key)
);

create or replace function core.grant_access() returns void
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
        'device_type_current', 'devices', 'device_point', 'poller_config', 'poller_entity',
        'model_position', 'deletions']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;
