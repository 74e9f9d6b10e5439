-- Gateways' transactions that have ended: reports that came in parts.

create table core.telemetry_transactions (
    org_id integer not null references core.org deferrable initially deferred,
    gateway_id text not null,
    transaction_id text not null,
    -- The record of the end in the stream CHUNKS: a name may be used again.
    end_sequence bigint not null,
    parts_expected integer not null,
    parts_seen integer not null,
    -- Numbers of the parts that did not come, as ranges.
    parts_missing text not null,
    outcome text not null check (outcome in ('complete', 'expired', 'superseded')),
    reason text not null,
    sha256 text,
    -- When the first part was received.
    began_at timestamptz not null,
    ended_at timestamptz not null,
    primary key (org_id, gateway_id, transaction_id, end_sequence)
);
create index telemetry_transactions_by_time on core.telemetry_transactions (org_id, ended_at desc);

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
        'model_position', 'deletions', 'telemetry_transactions']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;
