"""`server`: an MLflow server of the right size for one machine, in one line."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys

from search_spaces.errors import shown
from sweeps.cli.shared_options import argument_type
from sweeps.option_values import path
from tracking.addresses import redacted
from tracking.mlflow_server.options import ServerPlan, port_number, server_plan
from tracking.mlflow_server.schema_lock import first_alone, only_server, unserved_experiments
from tracking.stores import DEFAULT_URI, check_database

DESCRIPTION = "Start an MLflow server for one machine: fast, quiet, on loopback."
EXAMPLES = """
examples:
  {prog}
  {prog} --auth --user sweeper=sweeper.password
  {prog} --backend-store-uri postgresql+psycopg://mlflow@localhost/mlflow --auth
  {prog} --host 0.0.0.0 --auth --allowed-hosts mlflow.example.org

A database's password is read from PGPASSFILE, ~/.pgpass or PGPASSWORD: the list of processes, which
everybody on the machine can read, shows what stands in a command.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `server`."""
    add = parser.add_argument
    add("--backend-store-uri", default=DEFAULT_URI, metavar="URI",
        help="database of runs; created if missing (default: %(default)s)")  # fmt: skip
    add("--artifacts-destination", default="mlartifacts", metavar="URI",
        help="artifact store: a folder, or a bucket that MLflow supports "
        "(default: %(default)s)")  # fmt: skip
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to bind; any but loopback needs --auth and --allowed-hosts "
        "(default: %(default)s)")  # fmt: skip
    add("--port", type=port_number, default=5000, metavar="N",
        help="port (default: %(default)s)")  # fmt: skip
    add("--workers", type=_worker_count, default=1, metavar="N",
        help="server processes; one takes 0.4 GB and is enough for one machine's sweeps "
        "(default: %(default)s)")  # fmt: skip
    who = parser.add_argument_group("access")
    who.add_argument("--auth", action="store_true", help="require a user name and password")
    who.add_argument("--admin-password-file", type=argument_type(path),
        default="mlflow-admin.password", metavar="FILE",
        help="file with the password of the user admin; generated if missing "
        "(default: %(default)s)")  # fmt: skip
    who.add_argument("--user", action="append", default=[], metavar="NAME=FILE",
        help="a user who may track and read, but not administer; FILE holds the password and is "
        "generated if missing (repeatable)")  # fmt: skip
    who.add_argument("--auth-database-uri", metavar="URI",
        help="database of users (default: the PostgreSQL database of runs, or "
        "sqlite:///mlflow-auth.db)")  # fmt: skip
    who.add_argument("--allowed-hosts", metavar="LIST",
        help="host names that requests may use, separated by commas")  # fmt: skip
    who.add_argument("--cors-allowed-origins", metavar="LIST", default="",
        help="origins of other web pages that may send requests, separated by commas: "
        "https://example.org (default: none)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Serves until it is stopped; returns the exit status."""
    plan = server_plan(arguments)
    for uri, option in ((plan.store_uri, "--backend-store-uri"),
                        (plan.auth_database_uri, "--auth-database-uri")):  # fmt: skip
        if uri.startswith("postgresql"):
            check_database(uri, option)
    if plan.auth:
        os.umask(0o077)  # Who may sign in is decided by the server, not by who has an account here.
    from tracking.mlflow_server.process import MlflowServer, WrongPasswordError, ensure_users

    made_up = not plan.admin_password_file.exists()
    with only_server(plan.store_uri), MlflowServer(plan) as server:
        print(f"starting  MLflow at {plan.address}, which takes some seconds", flush=True)
        with first_alone(plan.store_uri):
            server.start()
        if not server.stopping:
            try:
                if plan.auth:
                    ensure_users(plan)
            except WrongPasswordError:
                if made_up:  # It is nobody's password: there was a database of users already.
                    plan.admin_password_file.unlink(missing_ok=True)
                raise
            _announce(plan)
        return server.wait()


def _announce(plan: ServerPlan) -> None:
    """Prints where the server is and how a sweep is pointed at it."""
    print(f"serving   {plan.address}")
    print(f"runs      {redacted(plan.store_uri)}, files in {redacted(plan.artifacts)}")
    before = unserved_experiments(plan.store_uri)
    if before:
        print(f"WARNING: files of {', '.join(sorted(before)[:3])}{' ...' * (len(before) > 3)} stay "
              "in a local folder and do not go through the server: what signs in elsewhere cannot "
              "read them. To have them served, end this server before its first sweep, start one "
              "with a new --backend-store-uri, and copy this store: `keras-sweeps migrate`.",
              file=sys.stderr, flush=True)  # fmt: skip
    if plan.auth:
        name, file = plan.users[0] if plan.users else ("admin", plan.admin_password_file)
        print(f"sign in   as admin, with the password in {plan.admin_password_file}")
        print(f"a sweep   export MLFLOW_TRACKING_USERNAME={shlex.quote(name)} "
              f'MLFLOW_TRACKING_PASSWORD="$(cat {shlex.quote(str(file))})"')  # fmt: skip
        print("          ", end="")
    else:
        print("a sweep   ", end="")
    print(f"python sweeps/run.py --space cnn --tracking-uri {plan.address}")
    print("stop      Ctrl-C", flush=True)


def _worker_count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,2}", text) or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to 64. Received: {shown(text)}"
        )
    return int(text)
