-- The ledger: which messages of the streams this target has applied, and what became of their readings.
-- Written in the COMMIT that writes the rows.

-- Messages of TELEMETRY, by org, by the hour in which the stream stored them, and by blocks of 1,024
-- sequences. A message whose bit is set was counted, and is not counted again when it is delivered again.
-- Numbers that no org has: 0 has messages of which nothing can come (letters say why), -1 those that
-- somebody settled by hand, -2 those of all orgs in blocks that are folded. An org's sums of folded blocks stand
-- in block -1.
create table core.ledger (
    org_id integer not null,
    hour timestamptz not null,
    block bigint not null,
    seen bit(1024) not null,
    messages integer not null,
    readings bigint not null,
    stored bigint not null,
    superseded bigint not null,
    duplicate bigint not null,
    deleted bigint not null,
    dead bigint not null,
    primary key (org_id, hour, block)
) with (fillfactor = 50);
create index ledger_by_block on core.ledger (block);

-- Messages of RAW of which something came with a message of TELEMETRY.
create table core.ledger_origins (
    org_id integer not null,
    hour timestamptz not null,
    block bigint not null,
    seen bit(1024) not null,
    primary key (org_id, hour, block)
) with (fillfactor = 50);
create index ledger_origins_by_block on core.ledger_origins (block);

-- How many rows an org's values table has, by what was inserted and deleted since it was made.
create table core.ledger_rows (
    org_id integer primary key,
    counted bigint not null
) with (fillfactor = 50);

-- From which sequences on this target counts.
create table core.ledger_since (
    one boolean primary key default true check (one),
    telemetry bigint not null,
    raw bigint not null
);

-- Notes messages of one org, hour and block. `offsets` are their places in the block, `held` their readings,
-- `fates` what became of all of them: stored, superseded, duplicate, deleted, dead. Of messages that were noted
-- before nothing is counted: then the fates of the others are taken in that order, and what is left over was
-- there already.
create function core.note_messages(org integer, of_hour timestamptz, in_block bigint, bits bit,
    offsets integer[], held integer[], fates bigint[]) returns void
language plpgsql as $$
declare
    known bit(1024);
    fresh integer;
    left_over bigint;
    part bigint[] := array[0, 0, 0, 0, 0];
    fate integer;
begin
    insert into core.ledger as l (org_id, hour, block, seen, messages, readings, stored, superseded,
        duplicate, deleted, dead)
    values (org, of_hour, in_block, bits, cardinality(offsets),
        (select coalesce(sum(h), 0) from unnest(held) h),
        fates[1], fates[2], fates[3], fates[4], fates[5])
    on conflict (org_id, hour, block) do update set
        seen = l.seen | excluded.seen, messages = l.messages + excluded.messages,
        readings = l.readings + excluded.readings, stored = l.stored + excluded.stored,
        superseded = l.superseded + excluded.superseded, duplicate = l.duplicate + excluded.duplicate,
        deleted = l.deleted + excluded.deleted, dead = l.dead + excluded.dead
    where (l.seen & excluded.seen) = 0::bit(1024);
    if found then
        return;
    end if;
    select l.seen into known from core.ledger l
    where l.org_id = org and l.hour = of_hour and l.block = in_block for update;
    select count(*), coalesce(sum(m.h), 0) into fresh, left_over
    from unnest(offsets, held) as m (o, h) where get_bit(known, m.o) = 0;
    if fresh = 0 then
        return;
    end if;
    foreach fate in array array[1, 5, 2, 4] loop
        part[fate] := least(fates[fate], left_over);
        left_over := left_over - part[fate];
    end loop;
    part[3] := left_over;
    update core.ledger l set seen = l.seen | bits, messages = l.messages + fresh,
        readings = l.readings + part[1] + part[2] + part[3] + part[4] + part[5],
        stored = l.stored + part[1], superseded = l.superseded + part[2],
        duplicate = l.duplicate + part[3], deleted = l.deleted + part[4], dead = l.dead + part[5]
    where l.org_id = org and l.hour = of_hour and l.block = in_block;
end $$;

-- Notes that something came of messages of RAW.
create function core.note_origins(org integer, of_hour timestamptz, in_block bigint, bits bit)
returns void language sql as $$
    insert into core.ledger_origins as l (org_id, hour, block, seen)
    values (org, of_hour, in_block, bits)
    on conflict (org_id, hour, block) do update set seen = l.seen | excluded.seen
    where l.seen <> (l.seen | excluded.seen);
$$;

-- Folds blocks below one in which nothing can be delivered again: an org keeps its sums, and the bits of all orgs
-- stand in one row a block. Gives how many blocks it folded, `most` at most.
create function core.fold_ledger(below bigint, origins_below bigint, before timestamptz, most integer)
returns integer language plpgsql as $$
declare
    blocks bigint[];
    folded integer;
begin
    -- One at a time.
    perform pg_advisory_xact_lock(1213399045, 0);
    select array_agg(b.block) into blocks from (
        select l.block from core.ledger l where l.org_id > 0 and l.block >= 0 and l.block < below
        group by l.block having max(l.hour) < before order by l.block limit most) b;
    folded := coalesce(cardinality(blocks), 0);
    if folded > 0 then
        insert into core.ledger as l
        select -2, max(o.hour), o.block, bit_or(o.seen), 0, 0, 0, 0, 0, 0, 0
        from core.ledger o where o.org_id > 0 and o.block = any (blocks) group by o.block
        on conflict (org_id, hour, block) do update set seen = l.seen | excluded.seen;
        insert into core.ledger as l
        select o.org_id, o.hour, -1, 0::bit(1024), sum(o.messages), sum(o.readings), sum(o.stored),
            sum(o.superseded), sum(o.duplicate), sum(o.deleted), sum(o.dead)
        from core.ledger o where o.org_id > 0 and o.block = any (blocks) group by o.org_id, o.hour
        on conflict (org_id, hour, block) do update set messages = l.messages + excluded.messages,
            readings = l.readings + excluded.readings, stored = l.stored + excluded.stored,
            superseded = l.superseded + excluded.superseded,
            duplicate = l.duplicate + excluded.duplicate, deleted = l.deleted + excluded.deleted,
            dead = l.dead + excluded.dead;
        delete from core.ledger where org_id > 0 and block = any (blocks);
    end if;
    select array_agg(b.block) into blocks from (
        select l.block from core.ledger_origins l where l.org_id > 0 and l.block < origins_below
        group by l.block having max(l.hour) < before order by l.block limit most) b;
    if cardinality(blocks) > 0 then
        insert into core.ledger_origins as l
        select -2, max(o.hour), o.block, bit_or(o.seen)
        from core.ledger_origins o where o.org_id > 0 and o.block = any (blocks) group by o.block
        on conflict (org_id, hour, block) do update set seen = l.seen | excluded.seen;
        delete from core.ledger_origins where org_id > 0 and block = any (blocks);
        folded := folded + cardinality(blocks);
    end if;
    return folded;
end $$;

-- Notes that an org's values table has so many rows more, or fewer.
create function core.note_rows(org integer, more bigint) returns void language sql as $$
    insert into core.ledger_rows as l (org_id, counted) values (org, more)
    on conflict (org_id) do update set counted = l.counted + excluded.counted;
$$;

revoke execute on function
    core.note_messages(integer, timestamptz, bigint, bit, integer[], integer[], bigint[]),
    core.note_origins(integer, timestamptz, bigint, bit), core.note_rows(integer, bigint),
    core.fold_ledger(bigint, bigint, timestamptz, integer) from public;

-- What is there already.
do $$
declare
    known record;
begin
    for known in select o.org_id, o.org_key from core.org o
        where to_regclass('core.values_' || o.org_key) is not null loop
        execute format('insert into core.ledger_rows (org_id, counted) '
            'select %s, count(*) from core.%I', known.org_id, 'values_' || known.org_key);
    end loop;
end $$;

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
    grant execute on function
        core.note_messages(integer, timestamptz, bigint, bit, integer[], integer[], bigint[]),
        core.note_origins(integer, timestamptz, bigint, bit), core.note_rows(integer, bigint),
        core.fold_ledger(bigint, bigint, timestamptz, integer)
        to haystack_ingest;
    -- `doctor` compares the migrations that were applied.
    grant select on core.schema_migrations, core.archive_policy, core.telemetry_history
        to haystack_ingest;
    -- What came, and who changed what, is on record: it is added to, and never changed.
    revoke all on core.telemetry_raw, core.audit_log from haystack_ingest;
    grant select, insert on core.telemetry_raw, core.audit_log to haystack_ingest;
    perform core.grant_writing(array['org', 'entity', 'entity_tag', 'tag_def', 'device_types',
        'device_type_current', 'devices', 'device_point', 'poller_config', 'poller_entity',
        'model_position', 'deletions', 'telemetry_transactions', 'device_presence', 'acl_user',
        'acl_org', 'org_entity_permission', 'asset_types', 'assets', 'asset_device', 'ledger',
        'ledger_origins', 'ledger_rows', 'ledger_since']);
    perform core.grant_writing(array_agg(t.relname::text))
    from core.org o
    join pg_class t on t.relnamespace = 'core'::regnamespace
        and t.relname in ('values_' || o.org_key, 'values_' || o.org_key || '_current')
    having count(*) > 0;
end $$;
