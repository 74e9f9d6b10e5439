-- The API reads what simulators did. It asks the simulators themselves for everything else.

create index simulator_activity_by_id on core.simulator_activity_log (simulator_id, id);

create or replace function core.grant_access() returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if exists (select from pg_roles where rolname = 'haystack_api') then
        grant usage on schema core to haystack_api;
        grant select on core.simulator_activity_log, core.schema_migrations to haystack_api;
    end if;
    if not exists (select from pg_roles where rolname = 'haystack_simulator') then
        return;
    end if;
    grant usage on schema core to haystack_simulator;
    grant select, insert, update on core.simulator_state to haystack_simulator;
    grant select, insert, delete on core.simulator_activity_log to haystack_simulator;
    grant select on core.schema_migrations to haystack_simulator;
end $$;
