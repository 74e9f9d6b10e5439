-- Which devices are there, as their births and last wills say. No foreign key: a status may come
-- before its device's record.

create table core.device_presence (
    device_id text primary key,
    org_id integer not null,
    online boolean not null,
    -- When the status in force was received.
    status_at timestamptz not null,
    -- When the device, or the broker on its behalf, last said anything of that kind; null where only
    -- a message is known that the broker had kept.
    last_seen timestamptz,
    accepted_at timestamptz not null,
    version bigint not null
);
create index device_presence_by_org on core.device_presence (org_id);

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
        'model_position', 'deletions', 'telemetry_transactions', 'device_presence']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;
