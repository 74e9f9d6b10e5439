#!/bin/sh
# Runs the database tests on TimescaleDB where it is installed, and says so where it is not.
set -eu

newest=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null | sort -V | tail -n 1)
library=/usr/lib/postgresql/$newest/lib/timescaledb.so
if [ ! -e "$library" ]; then
    echo "test-timescale: TimescaleDB is not installed for PostgreSQL ${newest:-(none)}: nothing was tested." >&2
    echo "test-timescale: its packages are described at https://docs.timescale.com/self-hosted/latest/install/" >&2
    exit 1
fi
echo "test-timescale: on PostgreSQL $newest with TimescaleDB ($library)"
cargo build --locked -p haystack-cli --features failpoints
HAYSTACK_TEST_TIMESCALE=1 exec cargo test --locked -p haystack-chaos --test real -- \
    store:: ingest:: outage:: archive:: custody:: ledger:: replay:: api::tenancy api::model api::bulk api::jobs "$@"
