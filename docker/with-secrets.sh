#!/usr/bin/env bash
# Runs a command with secrets from files in its environment: NAME_FILE=/run/secrets/x becomes NAME.
# Nothing secret is in a command line, an image or a compose file.
#   PGPASSWORD_FILE=secrets/optuna_database_password docker/with-secrets.sh python sweeps/run.py ...
set -euo pipefail

for name in PGPASSWORD MLFLOW_TRACKING_PASSWORD; do
  file_variable="${name}_FILE"
  file="${!file_variable:-}"
  [ -n "$file" ] || continue
  if [ ! -r "$file" ] || [ ! -s "$file" ]; then
    echo "error: $file_variable must name a file that holds a password. Received: '$file'." >&2
    exit 2
  fi
  value=$(<"$file")
  export "$name=$value"
  unset "$file_variable"
done

[ "$#" -gt 0 ] || { echo "error: a command must follow." >&2; exit 2; }
exec "$@"
