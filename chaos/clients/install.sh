#!/bin/sh
# Installs the two MQTT client libraries that play devices in the tests into the folder DIR, where
# they are not there yet: paho-mqtt (Python) and MQTT.js, each file checked against its hash.
#
#   sh install.sh DIR
#   PYTHONPATH=DIR python3 paho_device.py …
#   NODE_PATH=DIR/node_modules node mqttjs_device.mjs …
#
# Run as root it installs node, npm and pip by apt-get where they are missing.
set -eu

# parseArgs of node:util, and what MQTT.js needs.
NODE=18

say() { printf '%s\n' "clients: $*"; }
fail() {
    printf '%s\n' "clients: $*" >&2
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
python_list=$here/requirements.txt
node_list=$here/package-lock.json

# --- is everything here? ---

# What was installed, as the lists said it then.
mark=$dir/.installed
wanted=$(cat "$python_list" "$here/package.json" "$node_list" | cksum)
installed() {
    [ "$(cat "$mark" 2>/dev/null)" = "$wanted" ] && [ -d "$dir/paho/mqtt" ] &&
        [ -d "$dir/node_modules/mqtt" ]
}

programs() {
    missing=
    have python3 || missing="$missing python3"
    installed || python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
    have node || missing="$missing nodejs"
    installed || have npm || missing="$missing npm"
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

node_version() {
    version=$(node --version) || fail "node does not run (see above)"
    major=${version#v}
    [ "${major%%.*}" -ge "$NODE" ] 2>/dev/null || fail "Node.js $NODE or newer is needed, \
$(command -v node) is $version. Newer ones: https://nodejs.org/en/download"
}

# --- what is missing ---

install_python() {
    rm -rf "$dir/paho" "$dir"/paho_mqtt-*.dist-info
    PIP_USER=0 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
        python3 -m pip install --quiet --no-deps --require-hashes --only-binary=:all: \
        --target "$dir" --requirement "$python_list" >&2 ||
        fail "pip could not install paho-mqtt (see above). It must reach pypi.org, or the index \
that \`pip config list\` names"
}

install_node() {
    cp "$here/package.json" "$node_list" "$dir/"
    npm ci --prefix "$dir" --omit=dev --no-audit --no-fund --ignore-scripts \
        --no-update-notifier --loglevel=error \
        >&2 || fail "npm could not install MQTT.js (see above). It must reach \
$(npm config get registry 2>/dev/null || echo its registry)"
}

programs
node_version
# One at a time: tests may ask for it together.
exec 9>"$dir/.lock"
flock 9
if ! installed; then
    say "installs paho-mqtt and MQTT.js into $dir"
    rm -f "$mark"
    install_python
    install_node
    printf '%s\n' "$wanted" >"$mark"
fi
