#!/bin/sh
# Installs Debian packages without starting the servers in them. Run as root:
#
#   sh scripts/packages.sh postgresql mosquitto …
#
# What ran before keeps running. What is changed for the while of the installation is put back,
# also when it fails; what a killed run left is put back by the next.
set -eu

policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.conf
saved=$clusters.before-haystack
mark='# Written by haystack setup while it installs packages; removed afterwards.'

[ "$(id -u)" = 0 ] || {
    echo "packages.sh: run this as root" >&2
    exit 1
}
[ $# -gt 0 ] || {
    echo "usage: sh packages.sh PACKAGE…" >&2
    exit 2
}

put_back() {
    if grep -qsF "$mark" "$policy"; then rm -f "$policy"; fi
    if [ -e "$saved" ]; then mv -f "$saved" "$clusters"; fi
}
trap put_back EXIT
trap 'exit 130' INT TERM HUP
put_back

# Debian asks this program whether a package may start its server: no. Somebody else's answer is
# left alone.
forbid_starts() {
    [ ! -e "$policy" ] || return 0
    cat >"$policy.new" <<POLICY
#!/bin/sh
$mark
for word; do
    case \$word in
        --*) ;;
        mosquitto* | postgresql*) exit 101 ;;
        *) exit 0 ;;
    esac
done
POLICY
    chmod 755 "$policy.new"
    mv "$policy.new" "$policy"
}

# The PostgreSQL package makes and enables a cluster of its own, on 5432.
forbid_cluster() {
    cp -p "$clusters" "$saved"
    printf '%s\n' 'create_main_cluster = false' >>"$clusters"
}

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-upgrade \
        -o DPkg::Lock::Timeout=120 "$@"
}

has() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# Units of these servers that run now, one a line.
running() {
    [ -d /run/systemd/system ] || return 0
    systemctl list-units --plain --no-legend --state=active 'mosquitto*.service' \
        'postgresql@*.service' | awk '{ print $1 }'
}

before=$(running)
broker_was_here=no
if has mosquitto; then broker_was_here=yes; fi

echo "packages.sh: installs $*"
apt-get update -q
forbid_starts
case " $* " in
    *" postgresql "*)
        install postgresql-common
        forbid_cluster
        ;;
esac
install "$@"

# Nor at the next boot: the broker that we start has its own configuration.
if [ "$broker_was_here" = no ] && has mosquitto; then
    if [ -d /run/systemd/system ]; then
        systemctl disable --quiet --now mosquitto.service
    elif command -v systemctl >/dev/null 2>&1; then
        systemctl disable --quiet mosquitto.service
    else
        update-rc.d mosquitto disable
    fi
fi

# An upgrade of something they need may have stopped them, and was not allowed to start them.
for unit in $before; do
    systemctl is-active --quiet "$unit" || systemctl start "$unit"
done
