#!/bin/sh
# Installs schemathesis, which tries the API against its own description, into the folder DIR, where it
# is not there yet: each file checked against its hash.
#
#   sh install.sh DIR
#   PYTHONPATH=DIR/site python3 -m schemathesis.cli run …
#
# Run as root it installs Python and pip by apt-get where they are missing.
set -eu

PYTHON=3.10

say() { printf '%s\n' "schemathesis: $*"; }
fail() {
    printf '%s\n' "schemathesis: $*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

[ $# = 1 ] && [ -n "$1" ] || {
    echo "usage: sh install.sh DIR" >&2
    exit 2
}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
mkdir -p -- "$1" || fail "can't make the folder $1"
dir=$(CDPATH='' cd -- "$1" && pwd)
list=$here/requirements.txt

# --- is everything here? ---

programs() {
    missing=
    have python3 || missing="$missing python3"
    have python3 && python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
    [ -n "$missing" ] || return 0
    have apt-get || fail "there is no apt-get here; install these yourself:$missing"
    [ "$(id -u)" = 0 ] || fail "these packages are missing, and only root can install them:

    sudo apt-get install --no-install-recommends$missing

Do that, then run this again."
    say "installs with apt-get:$missing"
    # Names of packages: splitting is wanted.
    # shellcheck disable=SC2086
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends -o DPkg::Lock::Timeout=120 $missing; } >&2 ||
        fail "apt-get could not install$missing (see above)"
}

python_version() { python3 -c 'import platform; print(platform.python_version())'; }

enough() { [ "$(printf '%s\n' "$1" "$PYTHON" | sort -V | head -n 1)" = "$PYTHON" ]; }

# What was installed, as the list said it then, and for which Python: some files fit only one.
mark=$dir/.installed
wanted() { { cat "$list" && python3 -c 'import sys; print(sys.version_info[:2])'; } | cksum; }
installed() {
    have python3 && [ "$(cat "$mark" 2>/dev/null)" = "$(wanted)" ] &&
        [ -d "$dir/site/schemathesis" ]
}

# --- what is missing ---

install() {
    say "installs schemathesis into $dir"
    rm -rf "$mark" "$dir/site"
    PIP_USER=0 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
        python3 -m pip install --quiet --no-deps --require-hashes --only-binary=:all: \
        --target "$dir/site" --requirement "$list" >&2 ||
        fail "pip could not install schemathesis (see above). It must reach pypi.org, or the index \
that \`pip config list\` names"
    wanted >"$mark"
}

# One at a time: tests may ask for it together.
exec 9>"$dir/.lock"
flock 9
if ! installed; then
    programs
    version=$(python_version) || fail "python3 does not run (see above)"
    enough "$version" || fail "Python $PYTHON or newer is needed, $(command -v python3) is $version"
    install
fi
