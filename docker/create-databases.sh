#!/usr/bin/env bash
# Makes the databases `mlflow` and `optuna`, each owned by a role of its own that can nothing else.
# Runs in the PostgreSQL image at its first start, and natively against any server. Again is harmless.
#
#   PGHOST=localhost PGUSER=postgres PGPASSFILE=... \
#     MLFLOW_DATABASE_PASSWORD_FILE=... OPTUNA_DATABASE_PASSWORD_FILE=... docker/create-databases.sh
set -euo pipefail
: "${MLFLOW_DATABASE_PASSWORD_FILE:?must name the file with the password of the role mlflow}"
: "${OPTUNA_DATABASE_PASSWORD_FILE:?must name the file with the password of the role optuna}"
export MLFLOW_DATABASE_PASSWORD_FILE OPTUNA_DATABASE_PASSWORD_FILE

for file in "$MLFLOW_DATABASE_PASSWORD_FILE" "$OPTUNA_DATABASE_PASSWORD_FILE"; do
  [ -s "$file" ] || { echo "error: $file must hold a password, and is missing or empty" >&2; exit 2; }
done

# psql reads the passwords itself: an argument would be in the list of processes. What fails must
# not be logged by the server with the password in it.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-${PGUSER:-postgres}}" \
  --dbname postgres <<'SQL'
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;
SET password_encryption = 'scram-sha-256';
\set mlflow_password `cat "$MLFLOW_DATABASE_PASSWORD_FILE"`
\set optuna_password `cat "$OPTUNA_DATABASE_PASSWORD_FILE"`

SELECT 'CREATE ROLE ' || name || ' LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION'
  FROM unnest(ARRAY['mlflow', 'optuna']) AS name
  WHERE name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE mlflow PASSWORD :'mlflow_password';
ALTER ROLE optuna PASSWORD :'optuna_password';

-- A cluster that was made without a locale would make them SQL_ASCII, which nothing here can read.
SELECT 'CREATE DATABASE ' || name || ' OWNER ' || name || ' ENCODING ''UTF8'' TEMPLATE template0'
  FROM unnest(ARRAY['mlflow', 'optuna']) AS name
  WHERE name NOT IN (SELECT datname FROM pg_database) \gexec
-- Everybody may connect to a new database; only its owner has anything to do there.
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
REVOKE ALL ON DATABASE optuna FROM PUBLIC;
SQL
