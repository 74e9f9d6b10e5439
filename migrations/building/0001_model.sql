-- What is not a reading: a projection of the MODEL stream. Every table carries the sequence of the
-- record that wrote its row, so that a late or repeated record never overwrites a newer one.
-- Foreign keys are checked at COMMIT: a bootstrap writes records in any order in one transaction.

create schema if not exists core;

create table core.org (
    org_id integer primary key,
    org_key text not null unique,
    name text not null,
    model_sequence bigint not null
);

create table core.entity (
    entity_id integer primary key,
    org_id integer not null references core.org deferrable initially deferred,
    name text not null,
    model_sequence bigint not null
);
create index entity_by_org on core.entity (org_id);

create table core.entity_tag (
    entity_id integer not null references core.entity on delete cascade deferrable initially deferred,
    tag text not null,
    kind text not null,
    -- As tags are written in files; null for a marker.
    value jsonb,
    model_sequence bigint not null,
    primary key (entity_id, tag)
);
create index entity_tag_by_tag on core.entity_tag (tag);

create table core.tag_def (
    org_id integer not null references core.org deferrable initially deferred,
    name text not null,
    kind text not null,
    doc text not null,
    model_sequence bigint not null,
    primary key (org_id, name)
);

-- One row a version; versions never change once written.
create table core.device_types (
    org_id integer not null references core.org deferrable initially deferred,
    device_type text not null,
    version integer not null,
    processing_mode text not null
        check (processing_mode in ('endpoint', 'gateway', 'gateway_chunked')),
    protocol_adapter text not null,
    -- The metrics by name: where they stand in a message and what they become.
    message_schema jsonb not null,
    -- The whole device type as its file says it.
    definition jsonb not null,
    model_sequence bigint not null,
    primary key (org_id, device_type, version)
);

-- The version of a device type that is in force.
create table core.device_type_current (
    org_id integer not null references core.org deferrable initially deferred,
    device_type text not null,
    version integer not null,
    model_sequence bigint not null,
    primary key (org_id, device_type),
    foreign key (org_id, device_type, version)
        references core.device_types deferrable initially deferred
);

create table core.devices (
    device_id text primary key,
    org_id integer not null references core.org deferrable initially deferred,
    device_type text not null,
    name text not null,
    device_role text not null default 'endpoint',
    parent_device_id text references core.devices deferrable initially deferred,
    logical_identifier text,
    network_metadata jsonb,
    protocol text,
    model_sequence bigint not null,
    foreign key (org_id, device_type)
        references core.device_type_current deferrable initially deferred
);
create index devices_by_org on core.devices (org_id);

-- The entity that holds the values of a device's metric.
create table core.device_point (
    device_id text not null references core.devices on delete cascade deferrable initially deferred,
    metric text not null,
    entity_id integer not null references core.entity deferrable initially deferred,
    kind text not null,
    model_sequence bigint not null,
    primary key (device_id, metric)
);
create index device_point_by_entity on core.device_point (entity_id);

-- How far MODEL has been applied: one row.
create table core.model_position (
    only_row boolean primary key default true check (only_row),
    sequence bigint not null
);
insert into core.model_position (sequence) values (0);
