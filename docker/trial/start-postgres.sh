#!/usr/bin/env bash
# What the official image of PostgreSQL does at its start, as far as compose.yaml needs it.
set -euo pipefail
export PGDATA=/var/lib/postgresql/data
# In /tmp, because an engine may put a folder of its own over /run.
sockets=/tmp

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  read -ra options <<<"${POSTGRES_INITDB_ARGS:-}"
  initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" "${options[@]}" >/dev/null
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses='' -k $sockets" start >/dev/null
  for script in /docker-entrypoint-initdb.d/*.sh; do
    PGHOST=$sockets PGUSER=postgres bash "$script"
  done
  pg_ctl --wait --mode=fast stop >/dev/null
fi
exec postgres -c listen_addresses='*' -k "$sockets"
