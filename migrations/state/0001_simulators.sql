-- What simulators remember, and what they did.

create schema if not exists core;

-- One row a simulator. Only the owner of its lease writes it: `epoch` is the highest that ever did.
create table core.simulator_state (
    id integer generated always as identity primary key,
    simulator_id integer not null unique,
    service_name varchar not null,
    -- The last interval boundary whose readings are stored.
    last_run_timestamp timestamptz not null,
    -- What each meter shows, for people; `memory` counts.
    totalizers jsonb not null,
    status varchar not null,
    config jsonb not null,
    error_message text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    epoch bigint not null,
    -- How often it began anew: readings of different runs can't be confused.
    run bigint not null,
    pace jsonb not null,
    -- Where this run's building remembered nothing, and whether it had more than one description.
    begun_at timestamptz not null,
    changed boolean not null,
    -- The building's memory at `last_run_timestamp`, MessagePack.
    memory bytea not null
);

create table core.simulator_activity_log (
    id bigint generated always as identity primary key,
    simulator_id integer not null,
    timestamp timestamptz not null,
    event_type varchar not null check (event_type in ('generation', 'gap_fill', 'error',
        'startup', 'shutdown', 'start', 'stop', 'reset', 'config')),
    message text not null,
    details jsonb not null,
    created_at timestamptz not null default now()
);
create index simulator_activity_by_time
    on core.simulator_activity_log (simulator_id, timestamp desc);

-- Gives the role that simulators sign in as what it needs. Run after every migration.
create function core.grant_access() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles where rolname = 'haystack_simulator') then
        return;
    end if;
    grant usage on schema core to haystack_simulator;
    grant select, insert, update on core.simulator_state to haystack_simulator;
    grant select, insert, delete on core.simulator_activity_log to haystack_simulator;
    grant select on core.schema_migrations to haystack_simulator;
end $$;

revoke execute on function core.grant_access() from public;
