#!/bin/sh
# Makes what docker-compose.yml needs before anything starts: passwords, certificates, and the
# servers' configurations with them. Each folder below FOLDER is a volume of one container, open to
# that container's user alone.
#
#   sh secrets.sh FOLDER
#
# Run again, it keeps what is there, writes the configurations of this release, and renews
# certificates that are due.
set -eu
umask 077

at=${1:?usage: secrets.sh FOLDER}
share=${SHARE:-/usr/share/haystack}

# Who reads what: the users in the images.
ours=${OURS:-10001:10001}
emqx=${EMQX:-1000:1000}
postgres=${POSTGRES:-70:70}

clusters='primary secondary state'
users=$(sed -n 's/.*{ user: \([a-z]*\),.*/\1/p' "$share/nats-server.conf")

# put FILE: standard input, whole or not at all.
put() {
    cat >"$1.new"
    mv -f "$1.new" "$1"
}

# make FILE: a password of 40 letters and digits, where there is none.
make() {
    if [ ! -s "$1" ]; then
        head -c 4096 /dev/urandom | LC_ALL=C tr -dc A-Za-z0-9 | head -c 40 | put "$1"
    fi
    if [ "$(LC_ALL=C tr -dc A-Za-z0-9 <"$1" | wc -c)" -ne 40 ]; then
        echo "secrets.sh: $1 holds no password of 40 letters and digits" >&2
        exit 1
    fi
}

# of_user USER: the file with the password of a user of the stream server.
of_user() {
    case $1 in
        bridge | ingest | simulator | api) echo "$at/$1/nats-$1" ;;
        *) echo "$at/admin/nats-$1" ;;
    esac
}

# pgpass CLUSTER ROLE: a line of a password file; a role is named as the file with its password.
pgpass() {
    role=haystack_$2
    if [ "$2" = owner ]; then role=haystack; fi
    printf '%s:5432:*:%s:%s\n' "$1" "$role" "$(cat "$at/$1/$2")"
}

# --- passwords ---

for folder in admin bridge ingest simulator api nats nats-data emqx/certs $clusters pki; do
    mkdir -p "$at/$folder"
done
for user in $users; do make "$(of_user "$user")"; done
for cluster in $clusters; do
    for role in superuser owner ingest simulator api; do make "$at/$cluster/$role"; done
done
make "$at/bridge/mqtt-bridge"
make "$at/bridge/mqtt-session"
make "$at/emqx/cookie"

# --- the stream server ---

put "$at/nats/nats-server.conf" <"$share/nats-server.conf"
{
    printf 'HAYSTACK_PORT: 4222\nHAYSTACK_STORE: "/data"\n'
    for user in $users; do
        name=$(echo "$user" | tr '[:lower:]' '[:upper:]')
        printf 'HAYSTACK_%s: "%s"\n' "$name" "$(cat "$(of_user "$user")")"
    done
} | put "$at/nats/secrets.conf"

# --- the databases ---

for cluster in $clusters; do put "$at/$cluster/10-haystack.sql" <"$share/roles.sql"; done
{ pgpass primary ingest && pgpass secondary ingest; } | put "$at/ingest/pgpass"
pgpass state simulator | put "$at/simulator/pgpass"
{ pgpass primary api && pgpass state api; } | put "$at/api/pgpass"
for cluster in $clusters; do
    for role in owner ingest simulator api; do pgpass "$cluster" "$role"; done
done | put "$at/admin/pgpass"

# --- the broker ---

"${HAYSTACK:-haystack}" pki init --dir "$at/pki" --host emqx --crl-url http://pki:8080/crl.pem
put "$at/emqx/certs/ca.pem" <"$at/pki/ca.pem"
put "$at/emqx/certs/server.pem" <"$at/pki/server/cert.pem"
put "$at/emqx/certs/server.key" <"$at/pki/server/key.pem"
put "$at/emqx/acl.conf" <"$share/acl.conf"
{
    cat "$share/emqx.conf"
    printf '\nnode.cookie = "%s"\n' "$(cat "$at/emqx/cookie")"
} | put "$at/emqx/emqx.conf"
{
    echo user_id,password,is_superuser
    printf 'haystack.bridge,%s,false\n' "$(cat "$at/bridge/mqtt-bridge")"
} | put "$at/emqx/auth-built-in-db-bootstrap.csv"

# --- who may read it ---

cd "$at"
chown -R "$ours" admin bridge ingest simulator api nats pki
chown "$ours" nats-data
chown -R "$emqx" emqx
# shellcheck disable=SC2086 # three names
chown -R "$postgres" $clusters
# shellcheck disable=SC2086
chmod 0700 admin bridge ingest simulator api nats nats-data pki emqx $clusters
echo "secrets, certificates and configurations are in place"
