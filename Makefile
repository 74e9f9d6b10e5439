# What a developer types. `make up` is all that a newcomer needs.

SHELL := /bin/sh
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: up down setup build test check lint deny advisories bench test-timescale fuzz clients \
	schemathesis peers

# Installs what is missing, builds, starts everything on this machine. Ctrl-C stops it.
# Flags for it: make up ARGS="--data-dir /srv/haystack --detach"
up: build
	exec target/release/haystack up $(ARGS)

# Stops what `make up ARGS=--detach` started.
down:
	target/release/haystack down $(ARGS)

# Installs what is missing and starts nothing. INSTALL_RUST=1 installs Rust too.
setup:
	sh scripts/setup.sh

build: setup
	cargo build --release --locked -p haystack-cli

# Every test, on real servers of its own, with the real binary. TEST_FILTER=crash:: runs a part.
# Each test starts several servers: more threads than cores would only wait for each other.
test: setup clients schemathesis
	cargo build --locked -p haystack-cli --features failpoints
	cargo test --workspace --locked -- --test-threads=4 $(TEST_FILTER)

# The client libraries, not ours, that play devices in the tests.
clients:
	sh chaos/clients/install.sh .tools/clients

# What tries the API against its own description in the tests.
schemathesis:
	sh chaos/schemathesis/install.sh .tools/schemathesis

# Quick enough for each commit.
check: lint
	cargo test --workspace --locked --lib --bins

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# What the Python peer needs, to be measured beside us.
peers:
	@test -d .tools/peers/asyncpg || python3 -m pip install --quiet --target .tools/peers \
		--requirement bench/peers/requirements.txt

# Looks for bytes from outside that break a promise, FUZZ seconds for each kind; needs a nightly
# compiler. What it finds worth keeping goes into chaos/corpus, which every test run tries.
FUZZ ?= 60
fuzz:
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	for kind in payload part envelope; do \
		cargo +nightly fuzz run --fuzz-dir chaos/fuzz $$kind chaos/corpus/$$kind -- \
			-max_total_time=$(FUZZ) -max_len=4096 || exit 1; done

# Licences, sources and banned crates of everything we depend on.
deny:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny@0.20.2
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

# Known advisories; needs to reach the RustSec database.
advisories:
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny@0.20.2
	cargo deny --locked check advisories

# The database tests on TimescaleDB, where it is installed for the newest PostgreSQL here.
test-timescale: setup
	sh scripts/test-timescale.sh

# Measures this machine, with servers of its own.
bench: setup peers
	cargo build --release --locked -p haystack-cli -p haystack-bench
	cargo run --release --locked -p haystack-bench -- $(ARGS)
