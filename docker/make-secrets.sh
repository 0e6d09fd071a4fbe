#!/usr/bin/env bash
# Makes up the passwords that compose.yaml wants, each in a file; those that are there stay.
#   docker/make-secrets.sh [FOLDER]    (default: docker/secrets)
set -euo pipefail
folder=${1:-"$(dirname "$0")/secrets"}

mkdir -p "$folder"
# The folder keeps others on this machine out; the files in it must be readable by the users of the
# containers, into which each is mounted by itself.
chmod 700 "$folder"
for name in postgres_password mlflow_database_password optuna_database_password \
  mlflow_admin_password mlflow_sweeper_password; do
  file="$folder/$name"
  [ -s "$file" ] && continue
  # Hexadecimal, so that it means the same everywhere.
  head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$file.new"
  chmod 444 "$file.new"
  mv "$file.new" "$file"
  echo "made $file"
done
