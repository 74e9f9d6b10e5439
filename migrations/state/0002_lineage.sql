-- Stands for all descriptions of a run, in their order. None: there was only the one in `config`.
alter table core.simulator_state add column lineage bigint;
