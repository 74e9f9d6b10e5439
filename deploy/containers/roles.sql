-- Roles of the platform in the PostgreSQL of a container, and what they may do in this database.
-- PostgreSQL's image runs it (psql) when it makes its data. It may be run again, in a container
-- that runs:
--
--   docker compose exec primary psql -U postgres -d haystack -f /docker-entrypoint-initdb.d/10-haystack.sql
--
-- What stands here stands in local/src/roles.rs too, for `haystack up`.
\set ON_ERROR_STOP on
\set dir `echo "${HAYSTACK_ROLES:-/docker-entrypoint-initdb.d}"`
\set owner `cat :'dir'/owner`
\set ingest `cat :'dir'/ingest`
\set simulator `cat :'dir'/simulator`
\set api `cat :'dir'/api`

-- A statement that fails must not carry a password into the server's log.
set log_min_error_statement = 'panic';
set log_statement = 'none';

-- A password that could not be read would leave a role without one: division by zero instead.
select 1 / least(length(:'owner'), length(:'ingest'), length(:'simulator'), length(:'api')) as passwords;

select format('create role %I', name)
from unnest(array['haystack', 'haystack_ingest', 'haystack_simulator', 'haystack_api']) name
where not exists (select from pg_roles where rolname = name)
\gexec

alter role haystack login nosuperuser nocreatedb nocreaterole noreplication nobypassrls
    password :'owner';
alter role haystack_ingest login nosuperuser nocreatedb nocreaterole noreplication nobypassrls
    password :'ingest';
alter role haystack_simulator login nosuperuser nocreatedb nocreaterole noreplication nobypassrls
    password :'simulator';
alter role haystack_api login nosuperuser nocreatedb nocreaterole noreplication nobypassrls
    password :'api';

-- Who has nothing to do there need not get in.
revoke all on database postgres, template1 from public;
alter database :"DBNAME" owner to haystack;
revoke all on database :"DBNAME" from public, haystack_ingest, haystack_simulator, haystack_api;
grant connect on database :"DBNAME" to haystack_api;
-- One role writes: simulators in their database of state, ingest in the others.
select case :'DBNAME' when 'haystack_state' then 'haystack_simulator' else 'haystack_ingest' end
    as writer
\gset
grant connect, temporary on database :"DBNAME" to :"writer";
-- Only the owner makes tables; before PostgreSQL 15 everybody could.
revoke create on schema public from public;

-- Where it is installed; the database of state has no use for it.
select :'DBNAME' <> 'haystack_state'
    and exists (select from pg_available_extensions where name = 'timescaledb') as timescaledb
\gset
\if :timescaledb
create extension if not exists timescaledb;
\endif
